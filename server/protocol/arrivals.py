"""How many devices are about at which time of day, learnt from the arrivals alone.

A device is *about* while it would come if it were asked: idle, charging and on
Wi-Fi. How many are about changes by a factor of four or more between night and
day, and nobody reports it. But the server knows what it asked for. If ``e`` devices
are about and each returns ``D`` seconds after it was answered, they arrive at the
rate ``A = e / D`` (Little 1961, *A proof for the queuing formula L = λW*, Operations
Research 9:383-387). ``A`` is counted, and ``D`` is the mean delay of those
invitations that fall due now; so

    e = A D

and the estimate does not depend on the delays that were chosen because of it.

The day is divided into `BINS`. When one is over, its estimate, as a share of all
devices that are known, is mixed into the bin's profile with the weight `NEWEST`;
the ratio of both, smoothed, corrects the forecast for days that differ (weekends,
holidays). Memory is constant: the profile, and for the invitations that are
outstanding two sums for each bin up to the longest delay. Nothing is kept of any
device.
"""

import math

#: Parts of the day: half an hour each.
BINS = 48
#: The weight of the newest day in the profile; what is older is forgotten by halves.
NEWEST = 0.5
#: A bin says nothing if fewer were invited to it, for each who came: most of those
#: who came do so for the first time.
LEAST_INVITED = 0.25
#: The weight of the newest bin in the ratio of today to the profile.
_LEVEL = 0.25
#: That ratio's bounds.
_LEAST_LEVEL, _MOST_LEVEL = 0.25, 4.0


class Arrivals:
    """One selector's view of one population's day.

    Args:
        day_s: Seconds of a day.
        longest_s: Seconds of the longest delay that is asked for.

    Raises:
        ValueError: one of them is not a positive number.
    """

    def __init__(self, *, day_s: float, longest_s: float) -> None:
        for name, value in (("day_s", day_s), ("longest_s", longest_s)):
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a positive number of seconds, not {value}")
        self.bin_s = day_s / BINS
        self._profile: list[float | None] = [None] * BINS
        self._level = 1.0
        self._newest: float | None = None
        # Sums of the invitations due in each coming bin, and of their delays, kept as
        # differences from bin to bin, so that an invitation costs the same however
        # long its window is.
        self._ring = math.ceil(longest_s / self.bin_s) + 3
        self._due = [0.0] * self._ring
        self._due_delay = [0.0] * self._ring
        self._due_now = self._due_delay_now = 0.0
        self._arrived = 0
        self._known_devices = 0.0
        self._bin: int | None = None

    @property
    def known(self) -> bool:
        """Whether any bin has been estimated."""
        return self._newest is not None

    @property
    def due(self) -> float:
        """Invitations that fall due in the part of the day that was last heard of."""
        return max(0.0, self._due_now)

    def arrived(self, now: float, count: int, known_devices: float) -> None:
        """So many devices checked in at ``now`` (seconds), of so many that are known."""
        self._advance(now)
        self._arrived += count
        self._known_devices = known_devices

    def invited(self, now: float, window: tuple[float, float], count: float = 1.0) -> None:
        """So many devices were asked at ``now`` to return within the window of seconds."""
        first = self._advance(now)
        low, high = window
        delay = (low + high) / 2
        # A window without width is taken for one of a thousandth of a bin.
        width = max(high - low, self.bin_s / 1000)
        for at, sign in ((now + low, 1.0), (now + low + width, -1.0)):
            place = min(math.floor(at / self.bin_s), first + self._ring - 2)
            rest = min(1.0, max(0.0, place + 1 - at / self.bin_s))
            step = sign * count * self.bin_s / width
            for index, part in ((place, rest), (place + 1, 1 - rest)):
                if index <= first:
                    self._due_now += step * part
                    self._due_delay_now += step * part * delay
                else:
                    self._due[index % self._ring] += step * part
                    self._due_delay[index % self._ring] += step * part * delay

    def about(self, at: float) -> float | None:
        """The share of the devices that is or will be about at a time; None: not known yet.

        A part of the day that has not been seen yet is taken to be as the last one was.
        """
        profile = self._profile[math.floor(at / self.bin_s) % BINS]
        share = self._newest if profile is None else profile * self._level
        return None if share is None else min(share, 1.0)

    def _advance(self, now: float) -> int:
        index = math.floor(now / self.bin_s)
        if self._bin is None or not self._bin <= index < self._bin + self._ring:
            # The first call, or a clock that was set: nothing outstanding makes sense.
            self._due = [0.0] * self._ring
            self._due_delay = [0.0] * self._ring
            self._due_now = self._due_delay_now = 0.0
            self._arrived = 0
            self._bin = index
            return index
        while self._bin < index:
            self._complete(self._bin % BINS)
            self._bin += 1
            place = self._bin % self._ring
            self._due_now += self._due[place]
            self._due_delay_now += self._due_delay[place]
            self._due[place] = self._due_delay[place] = 0.0
        return index

    def _complete(self, place: int) -> None:
        arrived, self._arrived = self._arrived, 0
        # Rounding leaves a trace of what was subtracted.
        if self._due_now < max(1e-6, LEAST_INVITED * arrived) or self._due_delay_now <= 0:
            self._due_now, self._due_delay_now = (
                max(0.0, self._due_now),
                max(0.0, self._due_delay_now),
            )
            return
        about = arrived / self.bin_s * self._due_delay_now / self._due_now
        about = min(1.0, about / max(self._known_devices, 1.0))
        old = self._profile[place]
        if old is None:
            # One day is little to go by, and the first is not like the others.
            known = [each for each in self._profile if each is not None] or [about]
            self._profile[place] = about + (1 - NEWEST) * (sum(known) / len(known) - about)
        else:
            if old > 0:
                ratio = min(max(about / old, _LEAST_LEVEL), _MOST_LEVEL)
                self._level += _LEVEL * (ratio - self._level)
            self._profile[place] = old + NEWEST * (about - old)
        self._newest = about
