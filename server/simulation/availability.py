"""When each of millions of devices is idle, charging and on Wi-Fi: as arrays, on demand.

Nothing is stored of a device's days but its owner's habits: what happens on day
``k`` follows from a hash of device and day, so that it is the same whenever it is
asked for, and any device can be asked about any time. The hash is SplitMix64's
finalizer (Steele, Lea and Flood 2014, *Fast splittable pseudorandom number
generators*, OOPSLA).

A device's local day is taken to begin at 8 in the morning, so that a stretch by
day and the night after it lie in one. Times are whole milliseconds from the
beginning of the simulation, which is midnight UTC.
"""

import numpy as np
from numpy.typing import NDArray

from server.simulation.scenario import Habits, TimeZones

Times = NDArray[np.int32]
Devices = NDArray[np.int32]

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
#: The local hour at which a device's day begins.
_DAWN_MS = 8 * HOUR_MS
#: Days that are looked ahead for the next stretch.
_MOST_DAYS = 60


class Availability:
    """The stretches of time in which each device is available.

    Args:
        count: Devices.
        zones: Where they live.
        habits: How they live.
        seed: Of all chance in here.
    """

    def __init__(self, *, count: int, zones: TimeZones, habits: Habits, seed: int) -> None:
        rng = np.random.default_rng([seed, 1])
        self._habits = habits
        self._salt = np.uint64(rng.integers(1 << 63))
        offsets = np.array([_offset_ms(hours) for hours in zones], np.int32)
        shares = np.array(list(zones.values()))
        self._offsets = offsets
        self._zone = np.empty(count, np.uint8)
        # Minutes after dawn, and minutes of length.
        self._begins = np.empty(count, np.int16)
        self._lasts = np.empty(count, np.int16)
        for part in _parts(count):
            size = part.stop - part.start
            self._zone[part] = np.searchsorted(
                np.cumsum(shares / shares.sum())[:-1], rng.random(size), side="right"
            )
            begins = habits.night_begins + habits.night_begins_sd * rng.standard_normal(size)
            lasts = habits.night_hours + habits.night_hours_sd * rng.standard_normal(size)
            self._begins[part] = np.clip((begins - 8) * 60, 720, 1200)
            self._lasts[part] = np.clip(lasts * 60, 60, 660)

    def next_stretch(self, devices: Devices, at: Times) -> tuple[Times, Times]:
        """From when, at ``at`` or later, and until when each device is available next."""
        begin = np.empty(len(devices), np.int64)
        end = np.empty(len(devices), np.int64)
        open_ = np.arange(len(devices))
        offset = self._offsets[self._zone[devices]].astype(np.int64)
        local = at.astype(np.int64) + offset
        day = local // DAY_MS
        clock = local - day * DAY_MS
        for _ in range(_MOST_DAYS):
            who = devices[open_]
            first, last = self._next_on(who, day[open_], clock[open_])
            found = last >= 0
            done = open_[found]
            shift = day[done] * DAY_MS - offset[done]
            begin[done] = first[found] + shift
            end[done] = last[found] + shift
            open_ = open_[~found]
            if not len(open_):
                break
            day[open_] += 1
            clock[open_] = 0
        # Who is never available is asked again after the simulation's end.
        begin[open_] = end[open_] = np.iinfo(np.int32).max
        limit = np.iinfo(np.int32).max
        return np.minimum(begin, limit).astype(np.int32), np.minimum(end, limit).astype(np.int32)

    def by_day(self, devices: Devices, at: Times) -> NDArray[np.bool_]:
        """Whether it is between 8 and 20 o'clock where each device is."""
        local = at.astype(np.int64) + self._offsets[self._zone[devices]]
        by_day: NDArray[np.bool_] = (local % DAY_MS) < 12 * HOUR_MS
        return by_day

    def _next_on(
        self, devices: Devices, day: NDArray[np.int64], clock: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The stretch on that local day that is not over at that time of it; ends at -1: none."""
        habits = self._habits
        bits = _hash(devices.astype(np.uint64) * np.uint64(512) + day.astype(np.uint64), self._salt)
        by_day = _uniform(bits, 0) < habits.day_share
        day_lasts = (habits.day_hours * (0.5 + _uniform(bits, 16)) * HOUR_MS).astype(np.int64)
        day_begins = (_uniform(bits, 32) * (14 * HOUR_MS - day_lasts)).astype(np.int64)
        at_night = _uniform(bits, 48) < habits.night_share
        # Two uniforms more, from a second hash; their variance is that of the deviation.
        more = _hash(bits, self._salt)
        wide = habits.night_to_night_sd * np.sqrt(12) * HOUR_MS
        night_begins = self._begins[devices] * np.int64(60_000)
        night_begins += ((_uniform(more, 0) - 0.5) * wide).astype(np.int64)
        night_ends = night_begins + self._lasts[devices] * np.int64(60_000)
        night_ends += ((_uniform(more, 16) - 0.5) * wide).astype(np.int64)
        night_ends = np.minimum(np.maximum(night_ends, night_begins + HOUR_MS), DAY_MS)
        in_day = by_day & (clock < day_begins + day_lasts)
        in_night = at_night & (clock < night_ends)
        first = np.where(in_day, np.maximum(clock, day_begins), np.maximum(clock, night_begins))
        last = np.where(in_day, day_begins + day_lasts, np.where(in_night, night_ends, -1))
        return first, last


def _offset_ms(hours: float) -> int:
    # Local time, minus dawn, so that a device's day begins at zero; plus a day, so that
    # nothing is negative.
    return round(hours * HOUR_MS) - _DAWN_MS + DAY_MS


def _parts(count: int) -> list[slice]:
    size = 1 << 20
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _hash(values: NDArray[np.uint64], salt: np.uint64) -> NDArray[np.uint64]:
    bits = values * np.uint64(0x9E3779B97F4A7C15) + salt
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def _uniform(bits: NDArray[np.uint64], shift: int) -> NDArray[np.float64]:
    return ((bits >> np.uint64(shift)) & np.uint64(0xFFFF)).astype(np.float64) * (1 / 65536)
