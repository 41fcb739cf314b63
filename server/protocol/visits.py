"""When a device should be back, by a clock that runs faster while few devices are about."""

import math
from bisect import bisect_left
from collections.abc import Sequence

from server.protocol.arrivals import Arrivals

#: At least this share of the devices is taken to be about, whatever was estimated.
LEAST_ABOUT = 0.02


class Visits:
    """How often a device should have come back by when: a clock that runs with the need.

    While the share ``a`` of ``n`` devices is about, arrivals match the rate if each
    of them comes ``rate / (a n)`` times a second. So this clock runs at
    ``rate / (a(t) n)``, and a device is due when it has advanced by one.

    Args:
        arrivals: Forecasts ``a``.
        longest_s: How many seconds are looked ahead.
        speed: ``rate / n``.
    """

    def __init__(self, now: float, arrivals: Arrivals, *, longest_s: float, speed: float) -> None:
        self.delays = [0.0]
        self.visits = [0.0]
        delay, visits = 0.0, 0.0
        ends = (math.floor(now / arrivals.bin_s) + 1) * arrivals.bin_s - now
        while delay < longest_s:
            until = min(ends, longest_s)
            about = arrivals.about(now + (delay + until) / 2)
            visits += (until - delay) * speed / max(1.0 if about is None else about, LEAST_ABOUT)
            delay = until
            ends += arrivals.bin_s
            self.delays.append(delay)
            self.visits.append(visits)

    def until(self, delay: float) -> float:
        """Visits due by then."""
        place = min(bisect_left(self.delays, delay), len(self.delays) - 1) or 1
        return _between(self.delays, self.visits, place, delay)

    def when(self, visits: float) -> float:
        """The delay after which so many are due."""
        place = min(bisect_left(self.visits, visits), len(self.visits) - 1) or 1
        return _between(self.visits, self.delays, place, visits)


def _between(xs: Sequence[float], ys: Sequence[float], place: int, x: float) -> float:
    """Linear interpolation left of a place; the last value beyond the end."""
    low, high = xs[place - 1], xs[place]
    part = min(1.0, (x - low) / (high - low)) if high > low else 1.0
    return ys[place - 1] + part * (ys[place] - ys[place - 1])
