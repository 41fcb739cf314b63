"""An update on its way in: chunks in order, resumable, never on disk."""

import threading


class UploadBudget:
    """How many bytes of unfinished uploads the process may hold.

    Args:
        limit: Bytes.
    """

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        """Reserves `size` bytes; False if they are not to be had now."""
        with self._lock:
            if self._held + size > self._limit:
                return False
            self._held += size
            return True

    def give_back(self, size: int) -> None:
        with self._lock:
            self._held -= size

    @property
    def held(self) -> int:
        return self._held


class Upload:
    """The bytes of one update received so far.

    Args:
        total: Bytes of the whole update.
        budget: Where they are reserved until the upload is dropped.
    """

    __slots__ = ("_budget", "_buffer", "_whole", "received", "total")

    def __init__(self, *, total: int, budget: UploadBudget) -> None:
        """The caller has taken `total` bytes from the budget."""
        self.total = total
        #: Bytes received; the offset of the next chunk.
        self.received = 0
        self._whole: bytes | None = None
        self._buffer: bytearray | None = None
        self._budget: UploadBudget | None = budget

    def append(self, chunk: bytes) -> None:
        """Adds the next chunk. The caller has checked that it fits."""
        if self.received == 0 and len(chunk) == self.total:
            # One chunk is the whole update: keep it without a copy.
            self._whole = chunk
        else:
            if self._buffer is None:
                self._buffer = bytearray(self.total)
            self._buffer[self.received : self.received + len(chunk)] = chunk
        self.received += len(chunk)

    @property
    def complete(self) -> bool:
        return self.received == self.total

    def data(self) -> bytes | memoryview:
        """The whole update.

        Raises:
            ValueError: chunks are still missing.
        """
        if not self.complete:
            raise ValueError(f"{self.received} of {self.total} bytes have arrived")
        if self._whole is not None:
            return self._whole
        return memoryview(self._buffer or b"")

    def release(self) -> None:
        """Gives the bytes back to the budget; harmless when repeated."""
        budget, self._budget = self._budget, None
        if budget is not None:
            budget.give_back(self.total)
