"""How many check-ins were accepted, and how many rejected and why.

Counting must cost next to nothing: a check-in costs some 10 µs in all. So the
counts are plain integers in lists, without a lock. That is exact on CPython 3.11,
which switches threads at calls and backward jumps only, so that `cells[n] += 1` is
never interrupted; tests/server/telemetry/test_counts.py holds it to that.
"""

import time
from collections import deque
from collections.abc import Iterator

from device_plan.wire_pb2 import Reason

#: Populations that are counted apart; those beyond count under `OTHERS`.
MAX_POPULATIONS = 200

#: The label of what is beyond a bound.
OTHERS = "others"

#: The label of a check-in whose population is not served here: what a device calls
#: it must not become a label, or anybody could make any number of them.
UNKNOWN = ""

#: Seconds over which arrivals per second are a mean.
ARRIVALS_WINDOW_S = 10.0

_CELLS = max(Reason.values()) + 1


class CheckInCounts:
    """Counts since the process began. Any number of threads may count."""

    def __init__(self) -> None:
        self._of: dict[str, list[int]] = {UNKNOWN: [0] * _CELLS}
        self._samples: deque[tuple[float, int]] = deque()

    def told(self, population: str, reason: int) -> None:
        """A device of a population that is served here was told something.

        Args:
            population: Its name.
            reason: Why it was rejected; 0 if it was accepted, into a pool or a round.
        """
        cells = self._of.get(population)
        if cells is None:
            cells = self._open(population)
        cells[reason] += 1

    def refused(self, population: str | None, reason: int) -> None:
        """A check-in was a mistake (4xx); its population need not exist."""
        self._of.get(population or UNKNOWN, self._of[UNKNOWN])[reason] += 1

    def items(self) -> Iterator[tuple[str, str, int]]:
        """Population, reason ("" for accepted) and count, where the count is not 0."""
        for population, cells in list(self._of.items()):
            for reason, count in enumerate(cells):
                if count:
                    yield population, Reason.Name(Reason.ValueType(reason)) if reason else "", count

    @property
    def total(self) -> int:
        """Check-ins of all populations and outcomes."""
        return sum(sum(cells) for cells in list(self._of.values()))

    def sample(self, now: float | None = None) -> None:
        """Notes how many there are now, for `per_second`; to be called about each second."""
        now = time.monotonic() if now is None else now
        self._samples.append((now, self.total))
        while len(self._samples) > 2 and now - self._samples[1][0] >= ARRIVALS_WINDOW_S:
            self._samples.popleft()

    @property
    def per_second(self) -> float:
        """Arrivals per second over the last `ARRIVALS_WINDOW_S`, as far as it was sampled."""
        samples = list(self._samples)
        if len(samples) < 2:
            return 0.0
        (since, before), (until, after) = samples[0], samples[-1]
        return (after - before) / (until - since) if until > since else 0.0

    def _open(self, population: str) -> list[int]:
        if len(self._of) > MAX_POPULATIONS:
            population = OTHERS
        return self._of.setdefault(population, [0] * _CELLS)
