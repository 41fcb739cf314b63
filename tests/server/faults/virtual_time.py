"""Virtual time: one thing runs at a time, and a heap of events says which is next.

Whatever may wait (a message's handler, a device, a request) is a `Task`, a
greenlet: code that was written for threads blocks in it as it would in one, and
gives way only where it waits. Nothing depends on the real clock, so the same
choices give the same run.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Any, Protocol

from greenlet import GreenletExit, getcurrent, greenlet


class Owner(Protocol):
    """Who an event happens to: it does not happen to the dead, and later to the frozen.

    Attributes:
        alive: Whether it can still do anything.
        frozen_until: The virtual time before which it gets no time.
    """

    @property
    def alive(self) -> bool: ...

    @property
    def frozen_until(self) -> float: ...


class Promise(Protocol):
    """Something that will be done."""

    def done(self) -> bool: ...

    def add_done_callback(self, callback: Callable[[Any], None]) -> None: ...


class Timer:
    """An event that is still to come."""

    __slots__ = ("_action", "_owner")

    def __init__(self, owner: Owner | None, action: Callable[[], None]) -> None:
        self._owner = owner
        self._action: Callable[[], None] | None = action

    @property
    def pending(self) -> bool:
        return self._action is not None

    def cancel(self) -> bool:
        """Returns False when it has happened or was cancelled before."""
        pending, self._action = self.pending, None
        return pending

    @property
    def owner(self) -> Owner | None:
        return self._owner

    def take(self) -> Callable[[], None] | None:
        action, self._action = self._action, None
        return action


class Strand:
    """A greenlet that runs one body after another: making one costs more than most bodies do.

    Args:
        hub: The greenlet that it gives way to.

    Attributes:
        body: What it runs next, or runs now; None if it has nothing to do.
        error: What the last body ended with, if it was not its own end.
    """

    def __init__(self, hub: greenlet) -> None:
        self.body: Callable[[], None] | None = None
        self.error: BaseException | None = None
        self._hub = hub
        self._greenlet = greenlet(self._live, parent=hub)

    def go_on(self) -> None:
        """Runs the body until it waits or ends; raises what it ended with."""
        self._greenlet.switch()
        self._raise()

    def unwind(self) -> None:
        """Ends a body where it waits; one that does nothing ends itself."""
        self._greenlet.throw(GreenletExit)
        self._raise()

    def _raise(self) -> None:
        if self.error is not None:
            error, self.error = self.error, None
            raise error

    def _live(self) -> None:
        while self.body is not None:
            try:
                self.body()
            except GreenletExit:
                pass
            except BaseException as error:
                self.error = error
            self.body = None
            self._hub.switch()


class Task:
    """Code that runs in virtual time and may wait.

    Args:
        time: The clock it lives by.
        owner: Whose code it is.
        body: What it does; its exception ends the whole run.
        actor: The cell whose message it handles, if any.

    Attributes:
        doom: Called before each of its effects; it may end the task's owner.
        over: It has ended.
    """

    __slots__ = ("_body", "_strand", "_time", "abandoned", "actor", "doom", "over", "owner")

    def __init__(
        self,
        time: VirtualTime,
        owner: Owner | None,
        body: Callable[[], None],
        actor: object | None = None,
    ) -> None:
        self.owner = owner
        self.actor = actor
        self.abandoned = False
        self.over = False
        self.doom: Callable[[], None] | None = None
        self._time = time
        self._body = body
        self._strand: Strand | None = None

    def resume(self) -> None:
        """Runs it until it waits or ends. Called by the event loop only."""
        if self.abandoned or self.over:
            return
        strand = self._strand
        if strand is None:
            strand = self._strand = self._time.idle_strand()
            strand.body = self._body
        before, self._time.current = self._time.current, self
        try:
            strand.go_on()
        finally:
            self._time.current = before
            self._look_at(strand)

    def wait(self) -> None:
        """Gives way until somebody calls `resume`."""
        self._time.hub.switch()
        if self._time.over:
            raise GreenletExit

    def discard(self) -> None:
        """Unwinds what is left of it, at the end of a run."""
        if self._strand is not None and not self.over:
            self._strand.unwind()
            self._look_at(self._strand)

    def _look_at(self, strand: Strand) -> None:
        if strand.body is None:
            self.over = True
            self._strand = None
            self._time.idle_strands.append(strand)


class VirtualTime:
    """The event loop.

    Attributes:
        now: Seconds since the start of the run.
        events: How many have happened.
        over: The run has ended; whoever still waits is unwound.
        idle_strands: Those that can run another task.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.events = 0
        self.over = False
        self.hub = getcurrent()
        self.current: Task | None = None
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._tasks: list[Task] = []
        self.idle_strands: list[Strand] = []
        self._news = False

    def idle_strand(self) -> Strand:
        """One for a task that begins."""
        return self.idle_strands.pop() if self.idle_strands else Strand(self.hub)

    def notice(self) -> None:
        """Something has changed that may be what `run` waits for."""
        self._news = True

    def after(self, delay_s: float, owner: Owner | None, action: Callable[[], None]) -> Timer:
        """Has the action happen to the owner after a delay."""
        timer = Timer(owner, action)
        heapq.heappush(self._heap, (self.now + max(0.0, delay_s), next(self._order), timer))
        return timer

    def start(
        self,
        owner: Owner | None,
        body: Callable[[], None],
        *,
        actor: object | None = None,
        delay_s: float = 0.0,
    ) -> Task:
        """Begins a task."""
        task = Task(self, owner, body, actor)
        self._tasks.append(task)
        if len(self._tasks) > 4096:
            self._tasks = [task for task in self._tasks if not task.over]
        self.after(delay_s, owner, task.resume)
        return task

    def sleep(self, delay_s: float) -> None:
        """Lets the current task wait."""
        task = self._waiting()
        self.after(delay_s, task.owner, task.resume)
        task.wait()

    def wait_for(self, future: Promise, timeout_s: float | None) -> bool:
        """Lets the current task wait for a future. Returns whether it is done."""
        if future.done():
            return True
        task = self._waiting()
        woken = False

        def wake(_: object = None) -> None:
            nonlocal woken
            if not woken:
                woken = True
                self.after(0.0, task.owner, task.resume)

        future.add_done_callback(wake)
        timer = self.after(timeout_s, task.owner, wake) if timeout_s is not None else None
        task.wait()
        if timer is not None:
            timer.cancel()
        return future.done()

    def park(self) -> None:
        """Lets the current task wait for ever: its owner is no more."""
        task = self._waiting()
        task.abandoned = True
        task.wait()

    def run(self, until: float, done: Callable[[], bool] | None = None) -> bool:
        """Lets events happen until a time, or until `done` says so after one of them.

        It is asked after the first, and whenever there was a `notice`.
        """
        self._news = True
        while self._heap and self._heap[0][0] <= until:
            when, order, timer = heapq.heappop(self._heap)
            if not timer.pending:
                continue
            owner = timer.owner
            if owner is not None:
                if not owner.alive:
                    continue
                if owner.frozen_until > when:
                    heapq.heappush(self._heap, (owner.frozen_until, order, timer))
                    continue
            action = timer.take()
            assert action is not None
            self.now = when
            self.events += 1
            action()
            if self._news and done is not None:
                self._news = False
                if done():
                    return True
        self.now = max(self.now, until)
        return False

    def end(self) -> None:
        """Unwinds every task that still waits."""
        self.over = True
        for task in self._tasks:
            task.discard()
        for strand in self.idle_strands:
            strand.unwind()
        self._tasks.clear()
        self.idle_strands.clear()
        self._heap.clear()

    def _waiting(self) -> Task:
        if self.over:
            raise GreenletExit
        if self.current is None:
            raise RuntimeError("only a task can wait in virtual time")
        return self.current


class VirtualLock:
    """A lock for code that waits in virtual time while it holds it.

    Args:
        time: The run's clock.
    """

    def __init__(self, time: VirtualTime) -> None:
        self._time = time
        self._held = False

    def __enter__(self) -> None:
        while self._held:
            self._time.sleep(0.001)
        self._held = True

    def __exit__(self, *_: object) -> None:
        self._held = False
