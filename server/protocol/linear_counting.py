"""How many different devices have been seen lately, in constant memory.

Linear counting (Whang, Vander-Zanden and Taylor 1990, *A linear-time
probabilistic counting algorithm for database applications*, ACM TODS
15:208-229): each device marks one of ``m`` slots by its hash. If ``V`` is the
fraction of slots still empty, the maximum likelihood estimate of the number of
devices is ``n = -m ln V`` (eq. 3). Its standard error relative to n, with the
load ``t = n / m``, is ``sqrt(e^t - t - 1) / (t sqrt(m))`` (eq. 10): for a
million slots 0.07 % at a million devices and 1.2 % at ten million.

"Lately" is a sliding window: a slot remembers in which of a few epochs it was
last marked, and is empty again once that epoch is over the horizon. No device
identifier is kept, and slots are shared by chance.
"""

import math
from collections.abc import Iterable

#: Sub-divisions of the horizon; the window is exact to one of them.
EPOCHS = 8
#: Stamps are bytes, and zero is an empty slot.
_STAMPS = 255


class RecentDevices:
    """Counts the different devices seen within the last ``horizon_s`` seconds.

    Takes ``2**slots_log2`` bytes. Marking is a few dozen machine operations; once
    an epoch the table is swept (about a millisecond for a million slots).

    Args:
        horizon_s: How far back, in seconds; in fact up to an eighth further.
        slots_log2: The table's size; good for populations up to ten times it.

    Raises:
        ValueError: the horizon is not positive, or the size not from 4 to 30.
    """

    def __init__(self, *, horizon_s: float, slots_log2: int = 20) -> None:
        if not (math.isfinite(horizon_s) and horizon_s > 0):
            raise ValueError(f"horizon_s must be a positive number of seconds, not {horizon_s}")
        if not 4 <= slots_log2 <= 30:
            raise ValueError(f"slots_log2 must be from 4 to 30, not {slots_log2}")
        self._slots = 1 << slots_log2
        self._mask = self._slots - 1
        self._epoch_s = horizon_s / EPOCHS
        self._epoch = 0
        self._ends_at = -math.inf
        self._clear()

    def mark(self, device_hash: int, now: float) -> None:
        """A device was seen at ``now`` (seconds).

        Args:
            device_hash: An integer whose low bits are uniform over devices and
                the same for the same device, e.g. of its key or a hash of it.
        """
        if now >= self._ends_at:
            self._advance(now)
        place = device_hash & self._mask
        stamp = self._stamp
        old = self._stamps[place]
        if old != stamp:
            self._stamps[place] = stamp
            self._counts[old] -= 1
            self._counts[stamp] += 1

    def mark_all(self, device_hashes: Iterable[int], now: float) -> int:
        """Several devices were seen at ``now``. Returns how many."""
        if now >= self._ends_at:
            self._advance(now)
        mask, stamp, stamps, counts = self._mask, self._stamp, self._stamps, self._counts
        seen = 0
        for device_hash in device_hashes:
            seen += 1
            place = device_hash & mask
            old = stamps[place]
            if old != stamp:
                stamps[place] = stamp
                counts[old] -= 1
                counts[stamp] += 1
        return seen

    def estimate(self, now: float | None = None) -> float:
        """The number of devices; with ``now``, those that are past the horizon are dropped.

        A table without an empty slot is read as if it had one.
        """
        if now is not None and now >= self._ends_at:
            self._advance(now)
        empty = max(self._counts[0], 1)
        return -self._slots * math.log(empty / self._slots) if empty < self._slots else 0.0

    def _clear(self) -> None:
        self._stamps = bytearray(self._slots)
        self._counts = [0] * (_STAMPS + 1)
        self._counts[0] = self._slots

    def _advance(self, now: float) -> None:
        epoch = math.floor(now / self._epoch_s)
        if epoch - self._epoch > EPOCHS or self._ends_at == -math.inf:
            if self._counts[0] < self._slots:
                self._clear()
        else:
            sweep = bytearray(range(256))
            for gone in range(self._epoch - EPOCHS, epoch - EPOCHS):
                stamp = 1 + gone % _STAMPS
                sweep[stamp] = 0
                self._counts[0] += self._counts[stamp]
                self._counts[stamp] = 0
            self._stamps = self._stamps.translate(sweep)
        self._epoch = epoch
        self._stamp = 1 + epoch % _STAMPS
        self._ends_at = (epoch + 1) * self._epoch_s
