"""The Ray actors through which messages enter a process.

`Host` is the process of one of our actors. `Mailbox` stands for a process that
Ray did not start, a selector's, which fetches its messages from it; it is owned
by that process and dies with it.

Both take messages one at a time in the order of each sender. Watches wait in a
concurrency group of their own; when a process dies, Ray fails the calls that
wait, and that is how others learn of it.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, TypeVar

import ray

from server.actors.cells import ASK_TIMEOUT_S, ActorDied, AskTimeout, Ref
from server.cluster.parcels import Parcel, pack, pack_failure, unpack

#: Seconds that a process stays after its actor has ended, for those who ask why.
LINGER_S = 1.0

#: Seconds that a mailbox's owner waits at most for messages before it asks again.
FETCH_S = 1.0

#: Seconds after which an owner that has not asked for messages is taken to be frozen or lost.
SILENCE_S = 5.0

#: Messages that a silent owner is kept; beyond that the oldest tells are of no use any more.
MAX_KEPT = 100_000

_M = TypeVar("_M", bound=Callable[..., Any])


def _within(group: str) -> Callable[[_M], _M]:
    """Has a method run in a concurrency group of its actor."""
    decorate: Callable[[_M], _M] = ray.method(concurrency_group=group)
    return decorate


class Host:
    """The process of one actor, and of those that it spawns within it."""

    def __init__(self, name: str, creation: Parcel, apart: tuple[type, ...]) -> None:
        from server.cluster.ray_system import RaySystem

        gate = ray.get_runtime_context().current_actor
        self._system = RaySystem(
            namespace=ray.get_runtime_context().namespace, apart=apart, gate=gate
        )
        self._end: Future = Future()
        try:
            cls, kwargs = unpack(creation, self._system)
            ref = self._system.spawn_here(cls, name=name, **kwargs)
        except BaseException as error:
            self._begun = pack_failure(error, self._system)
            self._end.set_result(error)
        else:
            self._begun = pack(None, self._system)
            self._end = self._system.end_of(ref)
        self._name = name
        threading.Thread(target=self._leave, args=(gate,), name="leave", daemon=True).start()

    def _leave(self, gate: Any) -> None:
        self._end.result()
        threading.Event().wait(LINGER_S)
        ray.kill(gate)

    def begun(self) -> Parcel:
        """None, or why the actor could not be made."""
        return self._begun

    def tell(self, name: str, message: Parcel) -> None:
        ref = self._system.find_here(name)
        if ref is not None:
            method, args = unpack(message, self._system)
            ref.tell(method, *args)

    def ask(self, name: str, message: Parcel, timeout: float | None) -> Parcel:
        try:
            ref = self._system.find_here(name)
            if ref is None:
                raise ActorDied(name)
            method, args = unpack(message, self._system)
            return pack(ref.ask(method, *args, timeout=timeout), self._system)
        except BaseException as error:
            return pack_failure(error, self._system)

    def stop(self, name: str) -> None:
        ref = self._system.find_here(name)
        if ref is not None:
            self._system.stop(ref)

    @_within("watch")
    def ended(self, name: str) -> Parcel:
        """Waits until the actor has ended. Its reason."""
        ref = self._system.find_here(name)
        if name == self._name:
            reason = self._end.result()
        else:
            reason = None if ref is None else self._system.end_of(ref).result()
        return self._pack_reason(reason)

    def _pack_reason(self, reason: BaseException | None) -> Parcel:
        try:
            return pack(reason, self._system)
        except Exception:
            return pack(RuntimeError(f"{type(reason).__name__}: {reason}"), self._system)

    @_within("query")
    def lives(self, name: str) -> bool:
        return self._system.find_here(name) is not None

    @_within("query")
    def pid(self) -> int:
        return os.getpid()


class Mailbox:
    """The messages for one process that Ray did not start.

    Args:
        owner_pid: The process, for people who look for it.
    """

    def __init__(self, owner_pid: int) -> None:
        self._owner_pid = owner_pid
        self._messages: queue.SimpleQueue[tuple[int, str, str, Any]] = queue.SimpleQueue()
        self._answers: dict[int, Future] = {}
        self._lock = threading.Lock()
        self._number = 0
        self._heard = _Heard()

    def tell(self, name: str, message: Parcel) -> None:
        if self._messages.qsize() < MAX_KEPT:
            self._messages.put((0, "tell", name, message))

    def ask(self, name: str, message: Parcel, timeout: float | None) -> Any:
        limit = ASK_TIMEOUT_S if timeout is None else timeout
        number, answer = self._expect()
        self._messages.put((number, "ask", name, message))
        try:
            return answer.result(limit)
        except FutureTimeout:
            with self._lock:
                self._answers.pop(number, None)
            return _refusal(AskTimeout(f"actor {name!r} did not answer in {limit} s"))

    def stop(self, name: str) -> None:
        self._messages.put((0, "stop", name, None))

    @_within("watch")
    def ended(self, name: str) -> Any:
        number, answer = self._expect()
        self._messages.put((number, "ended", name, None))
        return answer.result()

    @_within("query")
    def lives(self, name: str) -> Any:
        """What the owner says; None if it says nothing."""
        if self._heard.age_s() > SILENCE_S:
            return None
        number, answer = self._expect()
        self._messages.put((number, "lives", name, None))
        try:
            return answer.result(FETCH_S)
        except FutureTimeout:
            with self._lock:
                self._answers.pop(number, None)
            return None

    @_within("query")
    def pid(self) -> int:
        return self._owner_pid

    @_within("owner")
    def fetch(self) -> list[tuple[int, str, str, Any]]:
        """The messages that came since the last call; waits a moment for the first.

        What nobody waits for any more is left out.
        """
        self._heard.now()
        found: list[tuple[int, str, str, Any]] = []
        try:
            found.append(self._messages.get(timeout=FETCH_S))
            while not self._messages.empty():
                found.append(self._messages.get_nowait())
        except queue.Empty:
            pass
        self._heard.now()
        with self._lock:
            return [each for each in found if not each[0] or each[0] in self._answers]

    @_within("answers")
    def answer(self, number: int, parcel: Any) -> None:
        """What the owner made of a message. In a list, it is a reference to a large one."""
        with self._lock:
            answer = self._answers.pop(number, None)
        if answer is not None:
            answer.set_result(parcel)

    def _expect(self) -> tuple[int, Future]:
        with self._lock:
            self._number += 1
            answer = self._answers[self._number] = Future()
            return self._number, answer


class _Heard:
    """When the owner was last heard of."""

    def __init__(self) -> None:
        self.now()

    def now(self) -> None:
        self._at = time.monotonic()

    def age_s(self) -> float:
        return time.monotonic() - self._at


class _Nowhere:
    """Addresses for parcels without references."""

    def gate_of(self, ref: Ref) -> Any:
        raise TypeError(f"{ref!r} has no address")

    def ref_at(self, gate: Any, name: str) -> Ref:  # noqa: ARG002
        raise TypeError(f"{name!r} has no address")


def _refusal(error: BaseException) -> Parcel:
    return pack_failure(error, _Nowhere())
