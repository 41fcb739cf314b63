"""The files that devices may fetch: plans' device parts and checkpoints."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import zstandard

#: Bytes of files kept in memory; the oldest go first, but never the two newest.
MAX_BYTES = 512 << 20

#: Files that may be fetched; those allowed longest ago are forgotten first.
MAX_FILES = 10_000

#: A compressed form is kept if it saves at least this fraction.
WORTHWHILE = 0.1


@dataclass(frozen=True)
class Published:
    """One file, and its zstd form where that is worth sending."""

    data: bytes
    compressed: bytes | None


class Downloads:
    """Content-addressed files by SHA-256. What was not allowed cannot be fetched.

    A file is read from the blob store when the first device asks for it, on the
    thread of its request; others that ask meanwhile wait for that.

    Args:
        load: The content of a population's file, by its SHA-256. Its exceptions
            are those of `get`.
    """

    def __init__(self, *, load: Callable[[str, str], bytes]) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._allowed: OrderedDict[str, str] = OrderedDict()
        self._files: OrderedDict[str, Published] = OrderedDict()
        self._bytes = 0
        self._loading: dict[str, threading.Lock] = {}

    def allow(self, population: str, sha256: str) -> None:
        """Makes a population's file fetchable. Constant time: nothing is read."""
        with self._lock:
            self._allowed[sha256] = population
            self._allowed.move_to_end(sha256)
            if len(self._allowed) > MAX_FILES:
                self._allowed.popitem(last=False)

    def get(self, sha256: str) -> Published | None:
        """The file; None if it was not allowed.

        Raises:
            BlobNotFound, BlobDamaged: the store has lost it.
        """
        found = self._files.get(sha256)
        if found is not None:
            return found
        with self._lock:
            population = self._allowed.get(sha256)
            if population is None:
                return None
            loading = self._loading.setdefault(sha256, threading.Lock())
        with loading:
            found = self._files.get(sha256)
            if found is None:
                found = self._keep(sha256, self._load(population, sha256))
        with self._lock:
            self._loading.pop(sha256, None)
        return found

    def _keep(self, sha256: str, data: bytes) -> Published:
        small = zstandard.ZstdCompressor(level=1).compress(data)
        worthwhile = len(small) <= (1 - WORTHWHILE) * len(data)
        published = Published(data, small if worthwhile else None)
        with self._lock:
            self._files[sha256] = published
            self._bytes += len(data)
            while self._bytes > MAX_BYTES and len(self._files) > 2:
                _, dropped = self._files.popitem(last=False)
                self._bytes -= len(dropped.data)
        return published
