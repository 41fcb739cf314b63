"""The embedded actor runtime: one process, no services.

An actor is an ordinary object whose public methods are its messages. The
runtime runs at most one of them at a time, so an actor's state needs no locks.
Everybody else holds a `Ref` and sends messages by method name:

* `Ref.tell` sends and forgets; it never blocks on the receiver and never raises
  what the handler raised;
* `Ref.ask` sends and waits for the handler's value or its exception;
* `Ref.request` sends and returns a future.

Two ways of dispatch, with the same semantics:

* ``"thread"``: the actor owns a thread and a mailbox. For actors that decide
  (coordinator, master aggregator) and may wait for others.
* ``"inline"``: a message runs on its sender's thread as soon as no other message
  of that actor is running. For actors whose callers are already many threads
  (selector, aggregators behind HTTP): no thread hop, and an upload is summed by
  the thread that received it. A tell to a busy inline actor is left in its
  mailbox and run by whichever thread is busy in it, so tells cannot deadlock,
  not even in circles. Delayed messages to inline actors run on the timer thread
  and should be short.

Failure (after Armstrong 2003, *Making reliable distributed systems in the
presence of software errors*, ch. 4): an exception in a told message means that
nobody is left to handle it; it is logged, the actor dies, and its watchers are
told by ``on_death(name, reason)``. An exception in an asked message belongs to
the asker, and the actor lives on.

Messages from one sender to one actor are handled in the order they were sent.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Literal

from server.actors.cells import (
    ActorDied,
    AskTimeout,
    Cell,
    InlineCell,
    Ref,
    ThreadCell,
    WouldDeadlock,
)
from server.actors.timer import Scheduled, Timer

__all__ = [
    "Actor",
    "ActorDied",
    "ActorSystem",
    "AskTimeout",
    "Dispatch",
    "Ref",
    "Scheduled",
    "SystemDown",
    "WouldDeadlock",
]

Dispatch = Literal["thread", "inline"]

#: How long `ActorSystem.shutdown` waits for handlers that are still running.
SHUTDOWN_TIMEOUT_S = 5.0

_log = logging.getLogger(__name__)


class SystemDown(RuntimeError):
    """The actor system has been shut down and spawns nothing any more."""


class Actor:
    """Optional base class: gives an actor its own reference and its system.

    Both are set before ``__init__`` runs. Any class can be an actor; this one is
    for those that send messages to themselves, spawn or watch others.
    """

    ref: Ref
    system: ActorSystem

    def on_stop(self) -> None:
        """Called once when the actor ends for whatever reason, as its last message."""

    def on_death(self, name: str, reason: BaseException | None) -> None:
        """Called when a watched actor has ended.

        Args:
            name: the name it had.
            reason: the exception that killed it; None when it was stopped.
        """


class ActorSystem:
    """The actors of one process: spawning, watching, delayed messages, shutdown."""

    def __init__(self) -> None:
        self._actors: dict[str, Cell] = {}
        self._lock = threading.Lock()
        self._timer = Timer()
        self._down = False
        self._numbers = itertools.count(1)

    @property
    def names(self) -> list[str]:
        """The living actors' names, oldest first."""
        with self._lock:
            return list(self._actors)

    def now(self) -> float:
        """Seconds of the clock that delays are measured by (monotonic)."""
        return time.monotonic()

    def spawn(
        self,
        cls: Callable[..., Any],
        *,
        name: str | None = None,
        dispatch: Dispatch = "thread",
        **kwargs: Any,
    ) -> Ref:
        """Creates an actor and returns its reference.

        The constructor runs on the caller's thread, and its exception is the
        caller's.

        Args:
            cls: the actor's class, called with ``kwargs``.
            name: unique among the living; by default made from the class.
            dispatch: where messages run, see the module's text.

        Raises:
            ValueError: a living actor has this name, or dispatch is unknown.
            SystemDown: after `shutdown`.
        """
        if dispatch not in ("thread", "inline"):
            raise ValueError(f"dispatch is 'thread' or 'inline', not {dispatch!r}")
        if name is None:
            name = f"{getattr(cls, '__name__', 'actor')}-{next(self._numbers)}"
        cell = (ThreadCell if dispatch == "thread" else InlineCell)(name, self._forget)
        with self._lock:
            if self._down:
                raise SystemDown(f"cannot spawn {name!r}: the actor system has been shut down")
            if name in self._actors:
                raise ValueError(f"an actor named {name!r} is alive; stop it or take another name")
            self._actors[name] = cell
        try:
            cell.start(self._construct(cls, cell, kwargs))
        except BaseException:
            cell.discard()
            raise
        if self._down:
            cell.kill()
        return cell.ref

    def _construct(self, cls: Callable[..., Any], cell: Cell, kwargs: dict[str, Any]) -> object:
        if not (isinstance(cls, type) and issubclass(cls, Actor)):
            return cls(**kwargs)
        actor = cls.__new__(cls)
        actor.ref = cell.ref
        actor.system = self
        actor.__init__(**kwargs)  # type: ignore[misc]
        return actor

    def find(self, name: str) -> Ref | None:
        """The living actor of that name, if there is one."""
        with self._lock:
            cell = self._actors.get(name)
        return cell.ref if cell is not None else None

    def stop(self, ref: Ref) -> None:
        """Ends an actor after the messages it has already been sent. Does not wait.

        Later messages are dropped, later asks raise `ActorDied`, watchers get
        ``on_death(name, None)``. Stopping a dead actor does nothing.
        """
        ref.cell.stop()

    def watch(self, watcher: Ref, ref: Ref) -> None:
        """Has ``watcher`` told ``on_death(name, reason)`` once ``ref`` has ended.

        A watched actor that is already dead is reported at once.

        Raises:
            TypeError: the watcher has no method ``on_death``.
        """
        if not watcher.cell.understands("on_death"):
            raise TypeError(f"{watcher.name!r} cannot watch: it has no method on_death")
        ref.cell.add_watcher(watcher)

    def schedule(self, delay_s: float, ref: Ref, method: str, *args: Any) -> Scheduled:
        """Tells ``ref`` the message after ``delay_s`` seconds unless cancelled before.

        A message to an actor that has died by then is dropped.
        """
        return self._timer.schedule(delay_s, ref, method, args)

    def shutdown(self, timeout_s: float = SHUTDOWN_TIMEOUT_S) -> bool:
        """Ends every actor and the timer.

        Each actor finishes the message it is handling and no other; pending asks
        raise `ActorDied`; no death notices are sent. May be called from any
        thread, also an actor's own, and more than once.

        Returns:
            Whether everything has ended within ``timeout_s``; the names of those
            that have not are logged (their threads do not keep the process alive).
        """
        with self._lock:
            self._down = True
            cells = list(reversed(self._actors.values()))
        deadline = time.monotonic() + timeout_s
        self._timer.stop()
        for cell in cells:
            cell.kill()
        stuck = [cell.ref.name for cell in cells if not cell.join(deadline)]
        stuck += [] if self._timer.join(deadline) else ["timer"]
        if stuck:
            _log.warning("still running after %.1f s of shutdown: %s", timeout_s, stuck)
        return not stuck

    def _forget(self, cell: Cell) -> None:
        with self._lock:
            if self._actors.get(cell.ref.name) is cell:
                del self._actors[cell.ref.name]
