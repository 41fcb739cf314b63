"""A few threads that step many devices, each when it is due."""

import heapq
import itertools
import logging
import threading
from collections.abc import Callable
from typing import Protocol

#: Seconds until a device whose step raised an unexpected error is tried again.
FAULT_DELAY_S = 60.0

_log = logging.getLogger(__name__)


class Steps(Protocol):
    """Something that does a little and says when it wants to do more."""

    def step(self, now: float) -> float:
        """Returns the seconds until the next step."""


class Crew:
    """Threads around one heap of due times.

    At most one idle thread waits for the earliest due time (the leader); the
    others wait to be called, so that an idle crew wakes once a due time and
    not once a thread.

    Args:
        threads: How many.
        clock: Seconds; must not go back.
    """

    def __init__(self, *, threads: int, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._heap: list[tuple[float, int, Steps]] = []
        self._order = itertools.count()
        self._leader: int | None = None
        self._stopping = False
        #: Steps that raised.
        self.faults = 0
        self._threads = [
            threading.Thread(target=self._work, name=f"crew-{number}", daemon=True)
            for number in range(threads)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def add(self, member: Steps, *, due: float) -> None:
        """The member's step is called from `due` on, never twice at once."""
        with self._changed:
            self._push(due, member)

    def stop(self, *, timeout_s: float) -> bool:
        """Starts no further step; True if all threads ended in time."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        until = self._clock() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, until - self._clock()))
        return not any(thread.is_alive() for thread in self._threads)

    def _push(self, due: float, member: Steps) -> None:
        entry = (due, next(self._order), member)
        heapq.heappush(self._heap, entry)
        if self._heap[0] is entry:
            # The leader, if any, waits for a later time: call another.
            self._leader = None
            self._changed.notify()

    def _take(self) -> Steps | None:
        me = threading.get_ident()
        with self._changed:
            while not self._stopping:
                if not self._heap:
                    self._changed.wait()
                    continue
                wait_s = self._heap[0][0] - self._clock()
                if wait_s <= 0:
                    member = heapq.heappop(self._heap)[2]
                    if self._heap and self._leader is None:
                        self._changed.notify()
                    return member
                if self._leader is not None:
                    self._changed.wait()
                    continue
                self._leader = me
                self._changed.wait(min(wait_s, threading.TIMEOUT_MAX))
                if self._leader == me:
                    self._leader = None
        return None

    def _work(self) -> None:
        while (member := self._take()) is not None:
            try:
                delay = member.step(self._clock())
            except Exception:
                _log.exception("a step failed")
                delay = FAULT_DELAY_S
                with self._changed:
                    self.faults += 1
            with self._changed:
                self._push(self._clock() + delay, member)
