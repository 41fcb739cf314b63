"""Which devices evaluate and never train.

A device is held out if its salted hash, read as a number in [0, 1), is below
the population's fraction. The assignment needs no memory, is the same on every
selector and in every round, cannot be foreseen without the salt, and is
monotone: a larger fraction holds out the same devices and more.
"""

import hashlib

#: Bits of the hash that are read; 53 fit a float without rounding.
_BITS = 53


def is_held_out(device_id: bytes | str, salt: bytes, fraction: float) -> bool:
    """Whether a device belongs to evaluation.

    Args:
        device_id: The device's stable identifier; text counts as its UTF-8 bytes.
        salt: The population's secret; never changed while the population lives.
        fraction: From 0 (nobody) to 1 (everybody).

    Raises:
        ValueError: the fraction is outside [0, 1].
    """
    if not 0.0 <= fraction <= 1.0:
        raise ValueError(f"the held-out fraction must be from 0 to 1, not {fraction}")
    if isinstance(device_id, str):
        device_id = device_id.encode()
    # The salt's length comes first, so that no other salt and device spell the same bytes.
    digest = hashlib.sha256(len(salt).to_bytes(8, "big") + salt + device_id).digest()
    number = int.from_bytes(digest[:8], "big") >> (64 - _BITS)
    return number < fraction * (1 << _BITS)
