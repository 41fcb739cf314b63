"""The key by which a server recognises a device, and by which nobody else can act as it."""

import base64
import hashlib
import os
from pathlib import Path

import numpy as np

#: Bytes of a device key.
KEY_BYTES = 32

#: The largest value in a session's seed; the smallest is 1.
SEED_MAX = 30_000


class Identity:
    """A device's secret key: 32 random bytes, sent as a bearer credential."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a device key has {KEY_BYTES} bytes, not {len(key)}")
        self._key = key

    @classmethod
    def load_or_create(cls, path: Path) -> "Identity":
        """Reads the key file, or makes it, readable by its owner only.

        Raises:
            ValueError: the file is not a device key.
            PermissionError: others may read it.
        """
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            mode = path.stat().st_mode & 0o777
            if mode & 0o077:
                raise PermissionError(
                    f"{path} may be read by others (mode {mode:03o}): run chmod 600 {path}"
                ) from None
            key = path.read_bytes()
            if len(key) != KEY_BYTES:
                raise ValueError(
                    f"{path} is not a device key ({len(key)} bytes): delete it to get a new "
                    "identity"
                ) from None
            return cls(key)
        with os.fdopen(handle, "wb") as file:
            key = os.urandom(KEY_BYTES)
            file.write(key)
            file.flush()
            os.fsync(handle)
        return cls(key)

    @classmethod
    def virtual(cls, *, seed: int, index: int) -> "Identity":
        """The key of a simulated device: the same for the same seed and index.

        It is as guessable as the seed, so it is for fleets, never for phones.
        """
        return cls(hashlib.sha256(f"nightshift virtual device/{seed}/{index}".encode()).digest())

    @property
    def credential(self) -> str:
        """The key in base64url without padding, as the Authorization header carries it."""
        return base64.urlsafe_b64encode(self._key).rstrip(b"=").decode()

    def session_seed(self, session_id: str) -> np.ndarray:
        """What a session's random operations start from, e.g. dropout.

        From the SHA-256 of the key and the session's id: it differs between devices
        and between rounds, and is the same when an attempt is repeated.

        Returns:
            int32 [3], each from 1 to 30000.
        """
        text = b"nightshift session seed\n" + self._key + session_id.encode()
        words = np.frombuffer(hashlib.sha256(text).digest()[:12], ">u4")
        return (1 + words % SEED_MAX).astype(np.int32)

    def __repr__(self) -> str:
        return "Identity(…)"
