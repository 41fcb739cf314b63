"""Delayed messages: one thread and a heap for all of them."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from typing import Any

from server.actors.cells import Ref

#: Cancelled entries are swept out of the heap when they are more than this many
#: and more than half of it.
_SWEEP_AT = 256


class Scheduled:
    """A delayed message that can still be called back."""

    __slots__ = ("_message", "_timer")

    def __init__(self, timer: Timer, message: tuple[Ref, str, tuple[Any, ...]]) -> None:
        self._timer = timer
        self._message: tuple[Ref, str, tuple[Any, ...]] | None = message

    def cancel(self) -> bool:
        """Calls the message back. Returns False when it is too late or done already."""
        with self._timer.condition:
            if self._message is None:
                return False
            self._message = None
            self._timer.note_cancelled()
            return True

    @property
    def pending(self) -> bool:
        """Whether the message is still to be delivered."""
        return self._message is not None

    def take(self) -> tuple[Ref, str, tuple[Any, ...]] | None:
        """The message, once; None when it was taken or cancelled before."""
        message, self._message = self._message, None
        return message


class Timer:
    """Delivers messages when they are due. The thread starts with the first of them."""

    def __init__(self) -> None:
        self.condition = threading.Condition(threading.Lock())
        self._heap: list[tuple[float, int, Scheduled]] = []
        self._order = itertools.count()
        self._cancelled = 0
        self._stopped = False
        self._thread: threading.Thread | None = None

    def schedule(self, delay_s: float, ref: Ref, method: str, args: tuple[Any, ...]) -> Scheduled:
        """Delivers the message ``delay_s`` seconds from now; never after `stop`."""
        scheduled = Scheduled(self, (ref, method, args))
        entry = (time.monotonic() + max(0.0, delay_s), next(self._order), scheduled)
        with self.condition:
            if self._stopped:
                scheduled.take()
                return scheduled
            heapq.heappush(self._heap, entry)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="timer", daemon=True)
                self._thread.start()
            elif self._heap[0] is entry:
                self.condition.notify()
        return scheduled

    def note_cancelled(self) -> None:
        """Counts a cancelled entry. The caller holds `condition`."""
        self._cancelled += 1
        if self._cancelled > _SWEEP_AT and self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].pending]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def stop(self) -> None:
        """Drops what is pending and ends the thread."""
        with self.condition:
            self._stopped = True
            for _, _, scheduled in self._heap:
                scheduled.take()
            self._heap.clear()
            self.condition.notify()

    def join(self, deadline: float) -> bool:
        """Waits for the thread until ``deadline`` (monotonic). Returns whether it ended."""
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(max(0.0, deadline - time.monotonic()))
        return not thread.is_alive()

    def _run(self) -> None:
        while True:
            with self.condition:
                message = self._next()
            if message is None:
                return
            ref, method, args = message
            ref.tell(method, *args)

    def _next(self) -> tuple[Ref, str, tuple[Any, ...]] | None:
        while not self._stopped:
            if not self._heap:
                self.condition.wait()
                continue
            wait_s = self._heap[0][0] - time.monotonic()
            if wait_s > 0 and self._heap[0][2].pending:
                self.condition.wait(wait_s)
                continue
            message = heapq.heappop(self._heap)[2].take()
            if message is not None:
                return message
            self._cancelled = max(0, self._cancelled - 1)
        return None
