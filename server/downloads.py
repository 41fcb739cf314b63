"""The files that devices may fetch: plans' device parts and checkpoints, held in memory."""

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass

import zstandard

#: Bytes of downloads kept; the oldest go first, but never those published last.
MAX_BYTES = 512 << 20

#: A compressed form is kept if it saves at least this fraction.
WORTHWHILE = 0.1


@dataclass(frozen=True)
class Published:
    """One file, and its zstd form where that is worth sending."""

    data: bytes
    compressed: bytes | None


class Downloads:
    """Content-addressed files by SHA-256. What was not published cannot be fetched."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: OrderedDict[str, Published] = OrderedDict()
        self._bytes = 0

    def publish(self, data: bytes) -> str:
        """Makes the bytes fetchable; returns their SHA-256 in hex."""
        sha256 = hashlib.sha256(data).hexdigest()
        with self._lock:
            if sha256 in self._files:
                self._files.move_to_end(sha256)
                return sha256
        small = zstandard.ZstdCompressor(level=1).compress(data)
        worthwhile = len(small) <= (1 - WORTHWHILE) * len(data)
        with self._lock:
            self._files[sha256] = Published(data, small if worthwhile else None)
            self._bytes += len(data)
            while self._bytes > MAX_BYTES and len(self._files) > 2:
                _, dropped = self._files.popitem(last=False)
                self._bytes -= len(dropped.data)
        return sha256

    def get(self, sha256: str) -> Published | None:
        with self._lock:
            return self._files.get(sha256)
