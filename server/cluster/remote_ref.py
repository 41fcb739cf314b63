"""A reference to an actor of another process: every message is a call of a Ray actor."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import (
    GetTimeoutError,
    ObjectLostError,
    RayActorError,
    TaskCancelledError,
)

from server.actors.cells import ASK_TIMEOUT_S, ActorDied, AskTimeout, Ref
from server.cluster.parcels import Parcel

if TYPE_CHECKING:
    from server.cluster.ray_system import RaySystem

#: What Ray raises when the process of an actor, or of an answer, is gone.
GONE = (RayActorError, ObjectLostError)

#: Seconds after which an actor that does not answer is not called alive.
ALIVE_TIMEOUT_S = 5.0


class RemoteRef(Ref):
    """The address of an actor behind the gate of another process.

    Messages of one sender arrive in the order sent. An ask that timed out is
    withdrawn unless it had begun. A death that Ray has not noticed yet, as of a
    machine that was cut off, looks like silence.
    """

    __slots__ = ("_system", "gate")

    def __init__(self, name: str, gate: ActorHandle, system: RaySystem) -> None:
        self.name = name
        self.gate = gate
        self._system = system

    @property
    def alive(self) -> bool:
        """Asked of its process; an actor that is silent for long is not called alive."""
        return self.heard() is True

    def heard(self, timeout: float = ALIVE_TIMEOUT_S) -> bool | None:
        """Whether it lives, as its process says; None if that says nothing in time."""
        try:
            lives: bool | None = ray.get(self.gate.lives.remote(self.name), timeout=timeout)
            return lives
        except GONE:
            return False
        except GetTimeoutError:
            return None

    def tell(self, method: str, *args: Any) -> None:
        self.gate.tell.remote(self.name, self._system.pack((method, args)))

    def ask(self, method: str, *args: Any, timeout: float | None = ASK_TIMEOUT_S) -> Any:
        """As of any reference; the timeout is until the message ends.

        Raises:
            ActorDied: it has ended, or its process or machine has.
        """
        call = self._ask(method, args, timeout)
        try:
            return self._system.open_answer(ray.get(call, timeout=timeout))
        except GONE:
            raise ActorDied(self.name) from None
        except GetTimeoutError:
            withdraw(call)
            raise AskTimeout(
                f"actor {self.name!r} did not answer {method!r} in {timeout} s"
            ) from None

    def request(self, method: str, *args: Any) -> Future:
        answer: Future = Future()
        call = self._ask(method, args, None)
        self._system.when_done(call, lambda done: self._settle(answer, done))
        answer.add_done_callback(lambda _: withdraw(call) if answer.cancelled() else None)
        return answer

    def stop(self) -> None:
        """Ends the actor after the messages that were sent to it before."""
        self.gate.stop.remote(self.name)

    def when_ended(self, tell: Callable[[BaseException | None], None]) -> None:
        """Calls `tell` with the reason once the actor has ended, on a thread of the system."""

        def ended(done: Future) -> None:
            try:
                tell(self._system.open_answer(done.result()))
            except GONE:
                tell(ActorDied(self.name))

        self._system.when_done(self.gate.ended.remote(self.name), ended)

    def _ask(self, method: str, args: tuple[Any, ...], timeout: float | None) -> Any:
        return self.gate.ask.remote(self.name, self._system.pack((method, args)), timeout)

    def _settle(self, answer: Future, done: Future) -> None:
        if not answer.set_running_or_notify_cancel():
            return
        try:
            parcel: Parcel = done.result()
            answer.set_result(self._system.open_answer(parcel))
        except (*GONE, TaskCancelledError):
            answer.set_exception(ActorDied(self.name))
        except BaseException as error:
            answer.set_exception(error)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, RemoteRef)
            and self.name == other.name
            and gate_id(self.gate) == gate_id(other.gate)
        )

    def __hash__(self) -> int:
        return hash((self.name, gate_id(self.gate)))


def gate_id(gate: ActorHandle) -> str:
    """What tells gates apart."""
    return str(gate._actor_id.hex())


def withdraw(call: Any) -> None:
    """Has a message forgotten that has not begun."""
    with contextlib.suppress(Exception):
        ray.cancel(call)
