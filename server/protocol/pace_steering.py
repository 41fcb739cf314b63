"""Pace steering: telling each device when to come back (Bonawitz et al. 2019, §2.3).

Every answer to a device carries two windows, one for the case that it took part
and one for the case that it did not; the device draws a uniform time inside at
once. Nothing is remembered of any device: the windows follow from the estimated
population size ``n`` (`RecentDevices`), the demand ``r`` (devices that rounds can
use per second) and the clock.

*Small populations* have to meet: a round (and a secure-aggregation group) needs
its devices at the same time. If ``n`` is at most ``small_rounds`` times what one
round takes, everybody is sent to the next point of a grid of rendezvous, whose
period ``P`` is the policy's: at time ``t`` the window begins at
``P ceil((t + min_delay) / P)`` and is ``w = jitter P`` wide. Whoever arrives within
the ``w`` after one point is sent to the same next point, because
``P - w >= min_delay``; so devices that have met stay together, and a stray joins
at its next visit.

*Large populations* must not meet. Each device returns after a delay drawn from
``[(1 - s) d, (1 + s) d]``, with the mean ``d``; by renewal theory ``n`` such devices
arrive at the rate ``n / d`` in the long run, and independent uniform delays wash
out any initial herd. So ``d = n / (surplus r)`` makes arrivals match demand, with a
surplus, because rounds whose arrivals only just equal their demand wait for
their last device, and the demand measured by rounds that wait would spiral down.

In both cases no more than ``peak_per_s`` devices a second are sent back: a
rendezvous is widened to ``w = n / peak_per_s``, and given up for a spread when that
does not fit into the period; and ``d >= n / peak_per_s``.

All delays stay within the policy's bounds. Where a population is too large for
its demand even at the longest delay, arrivals exceed demand, and selection
rejects them.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Self

from server.protocol.arrivals import BINS, Arrivals
from server.protocol.linear_counting import RecentDevices
from server.protocol.visits import Visits

#: Half the width of a spread window relative to its middle.
SPREAD = 0.5
#: Parts that a window is cut into once the day's course is known.
SLICES = 8

#: (earliest, latest) seconds after the device has received it.
Window = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class PacePolicy:
    """The operator's bounds on pace steering. Times in seconds.

    A rendezvous period that does not fit between the delays is moved to the
    nearest that does; if none does, even small populations are spread.

    Raises:
        ValueError: a value is out of its range; the message names it.
    """

    #: No device is asked back sooner than this.
    min_delay_s: float = 60.0
    #: No device is asked back later than this.
    max_delay_s: float = 24 * 3600.0
    #: Small populations meet this often.
    rendezvous_period_s: float = 300.0
    #: Share of the period within which those who meet arrive.
    jitter: float = 0.1
    #: A population is small up to this many times the devices of a round.
    small_rounds: float = 4.0
    #: Arrivals aimed at per device that rounds can use.
    surplus: float = 1.2
    #: Devices a second that are asked back at most, whatever the demand.
    peak_per_s: float = 2000.0
    #: Devices count as there if seen within this; None: twice the longest delay.
    horizon_s: float | None = None
    #: Two to this power bytes count the devices; see `RecentDevices`.
    slots_log2: int = 20
    #: Whether windows follow the day's course, once it has been observed.
    by_time_of_day: bool = True
    #: Seconds of a day.
    day_s: float = 24 * 3600.0
    #: After a refusal that trying again will not mend, a device waits at least
    #: this long, and at most twice as long. Not bounded by max_delay_s.
    permanent_delay_s: float = 24 * 3600.0

    def __post_init__(self) -> None:
        if not 0 < self.min_delay_s <= self.max_delay_s < math.inf:
            raise ValueError(
                "min_delay_s must be positive and at most max_delay_s, "
                f"not {self.min_delay_s} with {self.max_delay_s}"
            )
        if not 0 < self.jitter <= 0.25:
            raise ValueError(f"jitter must be above 0 and at most 0.25, not {self.jitter}")
        if not self.surplus >= 1:
            raise ValueError(f"surplus must be at least 1, not {self.surplus}")
        for name in (
            *("rendezvous_period_s", "small_rounds", "peak_per_s", "horizon_s"),
            *("day_s", "permanent_delay_s"),
        ):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a positive number, not {value}")

    def scaled(self, factor: float) -> Self:
        """The same policy with all times multiplied, e.g. by 0.001 for a demonstration."""
        return replace(
            self,
            min_delay_s=self.min_delay_s * factor,
            max_delay_s=self.max_delay_s * factor,
            rendezvous_period_s=self.rendezvous_period_s * factor,
            horizon_s=None if self.horizon_s is None else self.horizon_s * factor,
            day_s=self.day_s * factor,
            permanent_delay_s=self.permanent_delay_s * factor,
        )

    @property
    def permanent(self) -> "Windows":
        """For refusals that only an update of the app or of the server will mend.

        Such as RUNTIME_NOT_SUPPORTED, UNSUPPORTED_PROTOCOL and UNKNOWN_POPULATION. The
        window is as wide as its least delay, so that devices that were refused
        together do not come back together.
        """
        window = (self.permanent_delay_s, 2 * self.permanent_delay_s)
        return Windows(if_accepted=window, if_rejected=window)


@dataclass(frozen=True, slots=True)
class Windows:
    """When to come back, in seconds from the receipt.

    Attributes:
        if_accepted: After having taken part.
        if_rejected: After a rejection, or a session that came to nothing.
    """

    if_accepted: Window
    if_rejected: Window


class PaceSteering:
    """The pace of one population, as one selector sees it. Constant memory.

    Until `steer` has been called the demand is unknown, and devices meet as a
    small population does, as far as ``peak_per_s`` allows.

    Args:
        policy: The bounds.
    """

    def __init__(self, *, policy: PacePolicy) -> None:
        self.policy = policy
        horizon_s = policy.horizon_s or 2 * policy.max_delay_s
        self._devices = RecentDevices(horizon_s=horizon_s, slots_log2=policy.slots_log2)
        self._arrivals = Arrivals(day_s=policy.day_s, longest_s=policy.max_delay_s)
        self._period_s = _fitting_period(policy)
        self._demand_per_s = math.nan
        self._round_period_s = math.nan
        self._accepted_after_s = 0.0
        self._share = 1.0
        self._current: tuple[Windows, ...] = ()
        self._current_from = self._current_until = 0.0
        self._turn = self._observed = self._answered = 0
        # A cached rendezvous is late by up to this; a tenth of its width is lost in it.
        longest_s = min(1.0, policy.min_delay_s)
        width_s = policy.jitter * (self._period_s or math.inf)
        self._meeting_refresh_s = min(longest_s, width_s / 10)
        self._spread_refresh_s = min(policy.min_delay_s / 4, policy.day_s / BINS / 60)

    @property
    def estimate(self) -> float:
        """The number of different devices seen within the horizon."""
        return self._devices.estimate()

    def about(self, now: float) -> float:
        """Devices that would come now if they were asked, as far as is known (`Arrivals`).

        Until the first part of the day is over, all that were seen.
        """
        devices = self._devices.estimate(now) * self._share
        about = self._arrivals.about(now)
        return devices if about is None else about * devices

    def observe(self, device_hash: int, now: float) -> None:
        """A device checked in at ``now`` (seconds).

        Args:
            device_hash: An integer whose low bits are uniform over devices and
                the same for the same device, e.g. bytes of a random device key.
        """
        self._devices.mark(device_hash, now)
        self._observed += 1

    def observe_all(self, device_hashes: Iterable[int], now: float) -> None:
        """Several devices checked in at ``now``: as `observe` for each."""
        self._observed += self._devices.mark_all(device_hashes, now)

    def steer(
        self,
        *,
        demand_per_s: float,
        round_period_s: float,
        accepted_after_s: float = 0.0,
        share: float = 1.0,
    ) -> None:
        """Sets what `current` aims at from now on.

        Args:
            demand_per_s: As of `windows`.
            round_period_s: As of `windows`.
            accepted_after_s: As of `windows`.
            share: Of the population's check-ins, how many come to this selector.
                Devices that go to any of k selectors are seen by all of them, and
                each has to make do with 1 / k of their visits.

        Raises:
            ValueError: the share is not above 0 and at most 1.
        """
        if not 0 < share <= 1:
            raise ValueError(f"share must be above 0 and at most 1, not {share}")
        self._flush()
        self._demand_per_s = demand_per_s
        self._round_period_s = round_period_s
        self._accepted_after_s = accepted_after_s
        self._share = share
        self._current = ()

    def current(self, now: float) -> Windows:
        """The windows for one answer, for what was last set by `steer`.

        For the check-in path: they are computed again only after a fraction of
        their width has passed. Where the window of a large population is
        sliced, each call has the next slice, so that those who ask together
        are sent to all of them.
        """
        windows, first = self.answers(now, 1)
        return windows[first]

    def answers(self, now: float, count: int) -> tuple[Sequence[Windows], int]:
        """The windows for several answers at once.

        Returns:
            Windows and a place among them: the i-th answer has those at
            ``(place + i) % len(windows)``.
        """
        if not self._current or not self._current_from <= now < self._current_until:
            self._flush()
            meeting, self._current = self._windows(
                now,
                demand_per_s=self._demand_per_s,
                round_period_s=self._round_period_s,
                accepted_after_s=self._accepted_after_s,
            )
            refresh_s = self._meeting_refresh_s if meeting else self._spread_refresh_s
            self._current_from, self._current_until = now, now + refresh_s
        turn = self._turn % len(self._current)
        self._turn = (turn + count) % len(self._current)
        self._answered += count
        return self._current, turn

    def windows(
        self,
        now: float,
        *,
        demand_per_s: float,
        round_period_s: float,
        accepted_after_s: float = 0.0,
    ) -> Windows:
        """The whole windows for an answer at ``now``, of which `current` gives slices.

        Args:
            demand_per_s: Devices that this selector's rounds can use per second,
                over all tasks: the selection targets over the round periods. Zero:
                none, come back as late as the policy allows; NaN: not known.
            round_period_s: Seconds from one round's opening to the next's when
                devices are there at once; without the wait for devices, which is
                what pace steering is to change.
            accepted_after_s: A device that took part comes back no sooner.
        """
        _, slices = self._windows(
            now,
            demand_per_s=demand_per_s,
            round_period_s=round_period_s,
            accepted_after_s=accepted_after_s,
        )
        first, last = slices[0], slices[-1]
        return Windows(
            if_accepted=(first.if_accepted[0], last.if_accepted[1]),
            if_rejected=(first.if_rejected[0], last.if_rejected[1]),
        )

    def _flush(self) -> None:
        if self._observed or self._answered:
            now = self._current_from
            devices = self._devices.estimate(now) * self._share
            self._arrivals.arrived(now, self._observed, devices)
            each = self._answered / len(self._current) if self._current else 0
            for windows in self._current:
                self._arrivals.invited(now, windows.if_rejected, each)
            self._observed = self._answered = 0

    def _windows(
        self, now: float, *, demand_per_s: float, round_period_s: float, accepted_after_s: float
    ) -> tuple[bool, tuple[Windows, ...]]:
        policy = self.policy
        devices = self._devices.estimate(now) * self._share
        per_round = demand_per_s * round_period_s
        small = math.isnan(per_round) or 0 < devices <= policy.small_rounds * per_round
        accepted_after_s = max(policy.min_delay_s, accepted_after_s)
        if self._period_s is not None and small:
            width = max(policy.jitter * self._period_s, devices / policy.peak_per_s)
            if width <= self._period_s - policy.min_delay_s:
                meeting = Windows(
                    if_accepted=self._rendezvous(now, accepted_after_s, width),
                    if_rejected=self._rendezvous(now, policy.min_delay_s, width),
                )
                return True, (meeting,)
        rate = policy.peak_per_s
        if not math.isnan(demand_per_s):
            rate = min(rate, policy.surplus * demand_per_s)
        rejected = self._spread(now, devices, rate)
        later = max(1.0, accepted_after_s / max(rejected[0], 1e-9))
        accepted = [min(edge * later, policy.max_delay_s) for edge in rejected]
        return False, tuple(
            Windows(if_accepted=(accepted[i], accepted[i + 1]), if_rejected=(low, high))
            for i, (low, high) in enumerate(pairwise(rejected))
        )

    def _rendezvous(self, now: float, earliest_s: float, width: float) -> Window:
        assert self._period_s is not None
        delay = math.ceil((now + earliest_s) / self._period_s) * self._period_s - now
        return self._within(delay, delay + width)

    def _spread(self, now: float, devices: float, rate: float) -> list[float]:
        """The edges of the slices: delays in seconds, rising."""
        policy = self.policy
        least, most = policy.min_delay_s, policy.max_delay_s
        low, high = least / (1 - SPREAD), most / (1 + SPREAD)
        if low > high:
            return [least, most]
        if not self._arrivals.known or not policy.by_time_of_day:
            mean_s = min(max(devices / rate if rate > 0 else math.inf, low), high)
            return [(1 - SPREAD) * mean_s, (1 + SPREAD) * mean_s]
        return self._sliced(now, devices, rate)

    def _sliced(self, now: float, devices: float, rate: float) -> list[float]:
        policy = self.policy
        low, high = policy.min_delay_s, policy.max_delay_s
        # Without any demand the clock's speed does not matter, only its shape.
        speed = (rate or 1e-9) / max(devices, 1.0)
        clock = Visits(
            now,
            self._arrivals,
            longest_s=policy.max_delay_s,
            speed=speed,
        )
        mean = min(1.0, clock.visits[-1] / (1 + SPREAD))
        mean = max(mean, clock.until(policy.min_delay_s) / (1 - SPREAD))
        parts = [1 - SPREAD + 2 * SPREAD * part / SLICES for part in range(SLICES + 1)]
        return [min(max(clock.when(mean * part), low), high) for part in parts]

    def _within(self, low: float, high: float) -> Window:
        least, most = self.policy.min_delay_s, self.policy.max_delay_s
        return min(max(low, least), most), min(max(high, least), most)


def _fitting_period(policy: PacePolicy) -> float | None:
    """The period nearest to the policy's with which rendezvous keep within its delays."""
    # Twice the jitter leaves room for delays of the network and of cached windows.
    shortest = policy.min_delay_s / (1 - 2 * policy.jitter)
    longest = (policy.max_delay_s - policy.min_delay_s) / (1 + policy.jitter)
    if shortest > longest:
        return None
    return min(max(policy.rendezvous_period_s, shortest), longest)
