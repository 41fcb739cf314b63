"""Which devices evaluate and never train.

A device is held out if its salted hash, read as a number in [0, 1), is below
the population's fraction. The assignment needs no memory, is the same on every
selector and in every round, cannot be foreseen without the salt, and is
monotone: a larger fraction holds out the same devices and more.
"""

import hashlib

#: Bits of the hash that are read; 53 fit a float without rounding.
_BITS = 53


class Holdout:
    """The held-out devices of one population.

    Args:
        salt: The population's secret; never changed while the population lives.
        fraction: From 0 (nobody) to 1 (everybody).

    Raises:
        ValueError: the fraction is outside [0, 1].
    """

    def __init__(self, salt: bytes, fraction: float) -> None:
        if not 0.0 <= fraction <= 1.0:
            raise ValueError(f"the held-out fraction must be from 0 to 1, not {fraction}")
        # The salt's length comes first, so that no other salt and device spell the same bytes.
        self._before = len(salt).to_bytes(8, "big") + salt
        self._end = fraction * (1 << _BITS)

    def holds(self, device_id: bytes) -> bool:
        """Whether a device, by its stable identifier, belongs to evaluation."""
        if not self._end:
            return False
        digest = hashlib.sha256(self._before + device_id).digest()
        return int.from_bytes(digest[:8], "big") >> (64 - _BITS) < self._end


def is_held_out(device_id: bytes | str, salt: bytes, fraction: float) -> bool:
    """Whether a device belongs to evaluation; text counts as its UTF-8 bytes.

    Raises:
        ValueError: the fraction is outside [0, 1].
    """
    if isinstance(device_id, str):
        device_id = device_id.encode()
    return Holdout(salt, fraction).holds(device_id)
