"""An update on its way in: chunks in order, resumable, never on disk."""

import threading


class UploadMemory:
    """The memory of unfinished uploads: bounded, and used again.

    A fresh buffer of some megabytes costs the kernel more than receiving into
    it does, so buffers of uploads that are done are kept for the next ones.

    Args:
        limit: Bytes that unfinished uploads may have together; None: only what
            the memory that this one is a share of allows.
        spare: Bytes of buffers kept for later.
        within: The memory that this one is a share of. It keeps the buffers.
    """

    def __init__(
        self,
        *,
        limit: int | None,
        spare: int = 64 << 20,
        within: "UploadMemory | None" = None,
    ) -> None:
        #: May be changed; what is held already stays.
        self.limit = limit
        self._within = within
        self._spare_limit = spare
        self._held = 0
        self._spare: dict[int, list[bytearray]] = {}
        self._spare_bytes = 0
        self._lock = threading.Lock()

    @property
    def held(self) -> int:
        """Bytes of unfinished uploads."""
        return self._held

    def take(self, size: int) -> bytearray | None:
        """A buffer of `size` bytes, whatever is in it; None if it is not to be had now."""
        with self._lock:
            if self.limit is not None and self._held + size > self.limit:
                return None
            if self._within is not None:
                buffer = self._within.take(size)
                if buffer is not None:
                    self._held += size
                return buffer
            self._held += size
            spare = self._spare.get(size)
            if spare:
                self._spare_bytes -= size
                return spare.pop()
        return bytearray(size)

    def give_back(self, size: int, buffer: bytearray | None) -> None:
        """Ends an upload of `size` bytes; its buffer may be used again unless it is None."""
        with self._lock:
            self._held -= size
            if self._within is not None:
                self._within.give_back(size, buffer)
            elif buffer is not None and self._spare_bytes + size <= self._spare_limit:
                self._spare.setdefault(size, []).append(buffer)
                self._spare_bytes += size


class Upload:
    """The bytes of one update received so far.

    A chunk is received straight into the buffer, outside the selector's lock.
    When a device sends a chunk anew while a connection of its own still hangs
    in the same chunk, the upload goes on in a buffer of its own (`fork`), so
    that whatever the old connection still brings spoils nothing.

    Args:
        buffer: As long as the whole update.
        memory: Where the buffer is from.
    """

    __slots__ = ("_buffer", "_memory", "received", "receiving")

    def __init__(self, *, buffer: bytearray, memory: UploadMemory) -> None:
        self._buffer = buffer
        self._memory: UploadMemory | None = memory
        #: Bytes received; the offset of the next chunk.
        self.received = 0
        #: A request is writing into the buffer.
        self.receiving = False

    @property
    def total(self) -> int:
        """Bytes of the whole update."""
        return len(self._buffer)

    @property
    def complete(self) -> bool:
        return self.received == self.total

    def region(self, length: int) -> memoryview:
        """Where the next chunk goes."""
        return memoryview(self._buffer)[self.received : self.received + length]

    def data(self) -> memoryview:
        """The whole update.

        Raises:
            ValueError: chunks are still missing.
        """
        if not self.complete:
            raise ValueError(f"{self.received} of {self.total} bytes have arrived")
        return memoryview(self._buffer)

    def fork(self) -> None:
        """Goes on in another buffer, and leaves the old one to the request that writes it."""
        other = bytearray(self.total)
        other[: self.received] = memoryview(self._buffer)[: self.received]
        self._buffer = other
        self.receiving = False

    def release(self) -> None:
        """Gives the memory back; harmless when repeated."""
        memory, self._memory = self._memory, None
        if memory is not None:
            memory.give_back(self.total, None if self.receiving else self._buffer)
