"""Seeded, accelerated nights: when a virtual device is idle, charging and on Wi-Fi.

A day has one night. In the night a device is plugged in for most of the time,
mostly left alone, nearly always on Wi-Fi; in the day the gate is closed. Each
device has its own phase (a time zone and habits), and each night its own
plug-in times and moments of use. Everything follows from a seed: the same
seed gives the same trace.
"""

from android_stub.gate import Conditions
from android_stub.randomness import SeededDraws, between

#: Seconds of a real night; the ratio to `night_s` is the acceleration.
REAL_NIGHT_S = 8 * 3600.0
#: Nights of a hundred on which a device is not charged, or not on Wi-Fi.
_UNPLUGGED_PROBABILITY = 0.04
_METERED_PROBABILITY = 0.03
#: A look at the phone lasts this part of a night.
_LOOK = 0.01

#: Times in seconds at which conditions change, and the conditions from then on.
_Trace = tuple[tuple[float, Conditions], ...]

_DAY = Conditions(idle=False, charging=False, unmetered=True)


class Night:
    """One device's `ConditionSource`.

    Args:
        seed: Of the fleet.
        index: Of the device in the fleet.
        night_s: Seconds that one night lasts.
        fraction: Of a day that is night: 1/3 for eight hours of twenty-four.
        origin: The clock's time at which the trace begins.
    """

    __slots__ = ("_day", "_day_s", "_index", "_night_s", "_seed", "_start", "_trace")

    def __init__(
        self,
        *,
        seed: int,
        index: int,
        night_s: float,
        fraction: float = 1 / 3,
        origin: float = 0.0,
    ) -> None:
        if not night_s > 0:
            raise ValueError(f"a night must last more than 0 seconds, not {night_s}")
        if not 0 < fraction <= 1:
            raise ValueError(f"the night's fraction of a day must be in (0, 1], not {fraction}")
        self._seed = seed
        self._index = index
        self._night_s = night_s
        self._day_s = night_s / fraction
        phase = SeededDraws("phase", seed, index).random()
        self._start = origin - phase * self._day_s
        self._day: int | None = None
        self._trace: _Trace = ()

    def conditions(self, now: float) -> Conditions:
        current = _DAY
        for at, conditions in self._trace_of(now):
            if at > now:
                break
            current = conditions
        return current

    def next_change(self, now: float) -> float:
        for at, _ in self._trace_of(now):
            if at > now:
                return at
        assert self._day is not None
        return self._start + (self._day + 1) * self._day_s

    def _trace_of(self, now: float) -> _Trace:
        day = int((now - self._start) // self._day_s)
        if day != self._day:
            self._day = day
            self._trace = self._make(day)
        return self._trace

    def _make(self, day: int) -> _Trace:
        draws = SeededDraws("night", self._seed, self._index, day)
        if draws.random() < _UNPLUGGED_PROBABILITY:
            return ()
        unmetered = draws.random() >= _METERED_PROBABILITY
        asleep = Conditions(idle=True, charging=True, unmetered=unmetered)
        in_use = Conditions(idle=False, charging=True, unmetered=unmetered)
        plugged_in = between(draws, 0.0, 0.08)
        left_alone = between(draws, plugged_in, 0.1)
        awake = between(draws, 0.9, 1.0)
        changes = [(plugged_in, in_use), (left_alone, asleep)]
        looks = int(draws.random() * 3)
        for look in sorted(between(draws, left_alone, awake - _LOOK) for _ in range(looks)):
            if look >= changes[-1][0]:
                changes += [(look, in_use), (look + _LOOK, asleep)]
        changes += [(awake, in_use), (1.0, _DAY)]
        start = self._start + day * self._day_s
        return tuple((start + at * self._night_s, conditions) for at, conditions in changes)
