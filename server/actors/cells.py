"""What stands between a reference and its actor: mailbox, serialisation, life and death.

See `server.actors.runtime` for the semantics; this module is their mechanism.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

_log = logging.getLogger(__name__)

#: An ask that is not given a timeout waits this long.
ASK_TIMEOUT_S = 30.0

#: (future or None for a tell, method, arguments); None asks the actor to stop.
_Message = tuple[Future | None, str, tuple[Any, ...]] | None


class ActorDied(RuntimeError):
    """The actor ended before it could answer."""

    def __init__(self, name: str) -> None:
        super().__init__(f"actor {name!r} has ended")
        self.name = name


class AskTimeout(TimeoutError):
    """No answer in time. The message was withdrawn unless it had already begun."""


class WouldDeadlock(RuntimeError):
    """An actor asked itself, directly or through others, while handling a message.

    It cannot begin the second message before it has ended the first, and the
    first waits for the second. Tell instead, or call the method directly.
    """


class Ref:
    """The address of an actor: everything others may know of it. Safe to share."""

    __slots__ = ("cell", "name")

    def __init__(self, name: str, cell: Cell) -> None:
        self.name = name
        self.cell = cell

    @property
    def alive(self) -> bool:
        """Whether the actor can still answer (it may die right after you looked)."""
        return not self.cell.ended

    def tell(self, method: str, *args: Any) -> None:
        """Sends a message. To the dead it is dropped; watch an actor to learn of its end."""
        self.cell.tell(method, args)

    def ask(self, method: str, *args: Any, timeout: float | None = ASK_TIMEOUT_S) -> Any:
        """Sends a message and waits for its value.

        Args:
            timeout: seconds until the message begins ("inline") or ends
                ("thread"); None waits for ever.

        Raises:
            ActorDied: the actor had ended or ended before it came to this message.
            AskTimeout: no answer in time.
            WouldDeadlock: the caller is this very actor, handling a message.
            Exception: whatever the handler raised.
        """
        return self.cell.ask(method, args, timeout)

    def request(self, method: str, *args: Any) -> Future:
        """Sends a message and returns the future of its value.

        The future fails with what `ask` would raise. An inline actor has usually
        answered when this returns.
        """
        return self.cell.request(method, args)

    def __repr__(self) -> str:
        return f"Ref({self.name!r})"


class Cell(ABC):
    """The runtime's side of one actor."""

    def __init__(self, name: str, forget: Callable[[Cell], None]) -> None:
        self.ref = Ref(name, self)
        self.ended = False
        self._actor: Any = None
        self._forget = forget
        self._killed = False
        self._watchers: list[Ref] = []
        self._watchers_lock = threading.Lock()

    def start(self, actor: object) -> None:
        """Gives the cell its actor; messages sent before wait for this."""
        self._actor = actor

    def discard(self) -> None:
        """Ends a cell whose actor could not be made."""
        self.ended = True
        self._forget(self)

    def understands(self, method: str) -> bool:
        """Whether the actor has such a method."""
        return callable(getattr(self._actor, method, None))

    @abstractmethod
    def tell(self, method: str, args: tuple[Any, ...]) -> None: ...

    @abstractmethod
    def ask(self, method: str, args: tuple[Any, ...], timeout: float | None) -> Any: ...

    @abstractmethod
    def request(self, method: str, args: tuple[Any, ...]) -> Future: ...

    @abstractmethod
    def stop(self) -> None:
        """Ends the actor after the messages already in its mailbox."""

    def kill(self) -> None:
        """Ends the actor after the message it is handling, without death notices."""
        self._killed = True
        self.stop()

    @abstractmethod
    def join(self, deadline: float) -> bool:
        """Waits for the end until ``deadline`` (monotonic). Returns whether it came."""

    def add_watcher(self, watcher: Ref) -> None:
        """Adds a watcher, forgetting those that have died meanwhile."""
        with self._watchers_lock:
            if not self.ended:
                self._watchers = [w for w in self._watchers if w.alive]
                self._watchers.append(watcher)
                return
        watcher.tell("on_death", self.ref.name, None)

    def _perform(self, message: _Message) -> None:
        """Handles one message; only ever on one thread at a time."""
        if self.ended:
            self._refuse(message)
            return
        if message is None or self._killed:
            self._refuse(message)
            self._end(None)
            return
        future, method, args = message
        if future is None:
            try:
                getattr(self._actor, method)(*args)
            except BaseException as error:
                _log.exception("actor %s died of %s", self.ref.name, method)
                self._end(error)
                if not isinstance(error, Exception):
                    raise
        elif future.set_running_or_notify_cancel():
            try:
                value = getattr(self._actor, method)(*args)
            except BaseException as error:
                future.set_exception(error)
                if not isinstance(error, Exception):
                    raise
            else:
                future.set_result(value)

    def _refuse(self, message: _Message) -> None:
        if message is not None and message[0] is not None:
            future = message[0]
            if future.set_running_or_notify_cancel():
                future.set_exception(ActorDied(self.ref.name))

    def _end(self, reason: BaseException | None) -> None:
        with self._watchers_lock:
            self.ended = True
            watchers, self._watchers = self._watchers, []
        actor, self._actor = self._actor, None
        self._forget(self)
        try:
            getattr(actor, "on_stop", _nothing)()
        except Exception:
            _log.exception("actor %s failed in on_stop", self.ref.name)
        if not self._killed:
            for watcher in watchers:
                watcher.tell("on_death", self.ref.name, reason)

    def _deadlock(self, method: str) -> WouldDeadlock:
        return WouldDeadlock(
            f"actor {self.ref.name!r} asked itself {method!r} while handling a message; "
            "tell it instead, or call the method directly"
        )


class ThreadCell(Cell):
    """An actor with its own thread."""

    def __init__(self, name: str, forget: Callable[[Cell], None]) -> None:
        super().__init__(name, forget)
        self._mailbox: queue.SimpleQueue[_Message] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self, actor: object) -> None:
        super().start(actor)
        self._thread.start()

    def discard(self) -> None:
        super().discard()
        self._refuse_all()

    def tell(self, method: str, args: tuple[Any, ...]) -> None:
        if not self.ended:
            self._mailbox.put((None, method, args))

    def ask(self, method: str, args: tuple[Any, ...], timeout: float | None) -> Any:
        if self._thread is threading.current_thread():
            raise self._deadlock(method)
        future = self.request(method, args)
        try:
            return future.result(timeout)
        except TimeoutError:
            # The answer may have come just now, or be itself a TimeoutError.
            if not future.cancel() and future.done():
                return future.result()
            raise AskTimeout(
                f"actor {self.ref.name!r} did not answer {method!r} in {timeout} s"
            ) from None

    def request(self, method: str, args: tuple[Any, ...]) -> Future:
        future: Future = Future()
        self._mailbox.put((future, method, args))
        # The actor empties its mailbox after it has set `ended`. A message that
        # came later than that is refused here, so that no future is left behind.
        if self.ended:
            self._refuse_all()
        return future

    def stop(self) -> None:
        self._mailbox.put(None)

    def join(self, deadline: float) -> bool:
        if self._thread is threading.current_thread() or self._thread.ident is None:
            return True
        self._thread.join(max(0.0, deadline - time.monotonic()))
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not self.ended:
                self._perform(self._mailbox.get())
        except BaseException as error:
            if not self.ended:
                self._end(error)
            raise
        finally:
            self._refuse_all()

    def _refuse_all(self) -> None:
        while True:
            try:
                self._refuse(self._mailbox.get_nowait())
            except queue.Empty:
                return


class InlineCell(Cell):
    """An actor that runs on its callers' threads, one message at a time.

    The lock is not re-entrant on purpose: a message that began in the middle of
    another would see the actor's state half changed. A tell from within is
    queued behind the running message, an ask from within is an error.
    """

    def __init__(self, name: str, forget: Callable[[Cell], None]) -> None:
        super().__init__(name, forget)
        self._mailbox: deque[_Message] = deque()
        self._lock = threading.Lock()
        # Held until there is an actor to run.
        self._lock.acquire()
        self._runner: int | None = threading.get_ident()

    def start(self, actor: object) -> None:
        super().start(actor)
        self._release()

    def discard(self) -> None:
        super().discard()
        self._release()

    def tell(self, method: str, args: tuple[Any, ...]) -> None:
        if not self.ended:
            self._mailbox.append((None, method, args))
            self._run_mailbox()

    def ask(self, method: str, args: tuple[Any, ...], timeout: float | None) -> Any:
        if self._runner == threading.get_ident():
            raise self._deadlock(method)
        if not self._lock.acquire(timeout=-1 if timeout is None else max(0.0, timeout)):
            raise AskTimeout(
                f"actor {self.ref.name!r} was busy for {timeout} s and did not begin {method!r}"
            )
        self._runner = threading.get_ident()
        try:
            # What was sent before this ask is handled before it.
            if self._mailbox:
                for _ in range(len(self._mailbox)):
                    self._perform(self._mailbox.popleft())
            if self._killed and not self.ended:
                self._end(None)
            if self.ended:
                raise ActorDied(self.ref.name)
            return getattr(self._actor, method)(*args)
        finally:
            self._release()

    def request(self, method: str, args: tuple[Any, ...]) -> Future:
        future: Future = Future()
        self._mailbox.append((future, method, args))
        self._run_mailbox()
        return future

    def stop(self) -> None:
        self._mailbox.append(None)
        self._run_mailbox()

    def join(self, deadline: float) -> bool:
        if self._runner == threading.get_ident():
            return True
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            return False
        self._lock.release()
        return True

    def _release(self) -> None:
        self._runner = None
        self._lock.release()
        if self._mailbox:
            self._run_mailbox()

    def _run_mailbox(self) -> None:
        # Whoever holds the lock looks again after releasing it, so a message
        # appended by someone who found it taken is never left lying.
        while self._mailbox and self._lock.acquire(blocking=False):
            self._runner = threading.get_ident()
            try:
                while self._mailbox:
                    self._perform(self._mailbox.popleft())
            finally:
                self._runner = None
                self._lock.release()


def _nothing() -> None:
    pass
