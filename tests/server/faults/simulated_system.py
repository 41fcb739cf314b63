"""The actor system of one simulated process, with the surface of the embedded one.

The semantics are those of server.actors.runtime, with the liberties that
several machines take: a message to another process is late, lost or duplicated,
an answer may be missing although the message was handled, and a process dies
without a word, of which its watchers hear a while later.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from server.actors.runtime import Actor, ActorDied, AskTimeout, Ref, SystemDown, WouldDeadlock
from tests.server.faults.process import Process
from tests.server.faults.virtual_time import Task, Timer

if TYPE_CHECKING:
    from tests.server.faults.world import World


class ActorKilled(RuntimeError):
    """An actor ended in the middle of something, by the explorer's wish."""


class SimulatedFuture:
    """What is used of concurrent.futures.Future, with a `result` that waits in virtual time.

    Args:
        world: The run.
        cell: Whose answer it is to be.
    """

    __slots__ = ("_callbacks", "_cell", "_error", "_state", "_value", "_world")

    def __init__(self, world: World, cell: SimulatedCell | None = None) -> None:
        self._world = world
        self._cell = cell
        self._state = "pending"
        self._value: Any = None
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[SimulatedFuture], None]] = []

    def done(self) -> bool:
        return self._state != "pending"

    def cancelled(self) -> bool:
        return self._state == "cancelled"

    def cancel(self) -> bool:
        if self._state == "pending":
            self._finish("cancelled")
        return self.cancelled()

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        if self.done():
            callback(self)
        else:
            self._callbacks.append(callback)

    def result(self, timeout: float | None = None) -> Any:
        error = self.exception(timeout)
        if error is not None:
            raise error
        return self._value

    def exception(self, timeout: float | None = None) -> BaseException | None:
        if not self.done():
            self._wait(timeout)
        if self.cancelled():
            raise CancelledError
        return self._error

    def settle(self, value: Any = None, error: BaseException | None = None) -> None:
        """Gives it its outcome, unless it has one."""
        if not self.done():
            self._value, self._error = value, error
            self._finish("finished")

    def _finish(self, state: str) -> None:
        self._state = state
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)

    def _wait(self, timeout: float | None) -> None:
        caller = self._world.running_cell()
        if caller is not None:
            caller.asking = self._cell
            self._world.check_for_circle(caller)
        try:
            if not self._world.time.wait_for(self, timeout):
                raise TimeoutError
        finally:
            if caller is not None:
                caller.asking = None


@dataclass(slots=True, eq=False)
class Envelope:
    """One message on its way. A method of None asks the actor to stop."""

    method: str | None
    args: tuple[Any, ...] = ()
    future: SimulatedFuture | None = None
    source: Process | None = None
    begun: bool = False
    withdrawn: bool = False
    answer_lost: bool = False
    answer_broken: bool = False


@dataclass(eq=False)
class SimulatedCell:
    """The system's side of one actor."""

    system: SimulatedSystem
    name: str
    role: str
    inline: bool = False
    actor: Any = None
    ended: bool = False
    running: Task | None = None
    handling: Envelope | None = None
    mailbox: deque[Envelope] = field(default_factory=deque)
    watchers: list[Ref] = field(default_factory=list)
    #: The cell that the running handler waits for, to find circles.
    asking: SimulatedCell | None = None

    def __post_init__(self) -> None:
        self.ref = Ref(self.name, self)  # type: ignore[arg-type]
        self.world = self.system.world
        self.process = self.system.process

    # What a Ref does.

    def tell(self, method: str, args: tuple[Any, ...]) -> None:
        self.world.effect()
        self.world.network.send(self, Envelope(method, args))

    def request(self, method: str, args: tuple[Any, ...]) -> SimulatedFuture:
        self.world.effect()
        future = SimulatedFuture(self.world, self)
        self.world.network.send(self, Envelope(method, args, future))
        return future

    def ask(self, method: str, args: tuple[Any, ...], timeout: float | None) -> Any:
        self.world.effect()
        if self.world.running_cell() is self:
            raise WouldDeadlock(f"actor {self.name!r} asked itself {method!r}")
        if self.world.network.at_once(self):
            return self._perform_at_once(method, args)
        future = SimulatedFuture(self.world, self)
        envelope = Envelope(method, args, future)
        self.world.network.send(self, envelope)
        try:
            return future.result(timeout)
        except TimeoutError:
            if future.done():
                raise
            here = self.process is self.world.running_process()
            if here and self.inline and envelope.begun:
                return future.result()
            envelope.withdrawn = here
            raise AskTimeout(
                f"actor {self.name!r} did not answer {method!r} in {timeout} s"
            ) from None

    def stop(self) -> None:
        self.world.network.send(self, Envelope(None))

    def understands(self, method: str) -> bool:
        return callable(getattr(self.actor, method, None))

    def add_watcher(self, watcher: Ref) -> None:
        if self.ended:
            self.world.network.notify(watcher, self, None)
        else:
            self.watchers.append(watcher)

    # What the network and the world do.

    def enqueue(self, envelope: Envelope) -> None:
        """A message has arrived."""
        if self.ended:
            self._refuse(envelope)
            return
        self.mailbox.append(envelope)
        if self.running is None:
            self._run_next()

    def vanish(self) -> None:
        """Its process was killed."""
        if self.ended:
            return
        self.ended = True
        if self.running is not None:
            self.running.abandoned = True
        if self.handling is not None:
            self._refuse(self.handling)
        self._refuse_all()
        self._notify(ActorDied(self.name))

    def _run_next(self) -> None:
        envelope = self.mailbox.popleft()
        self.running = self.world.time.start(
            self.process, lambda: self._perform(envelope), actor=self
        )

    def _perform(self, envelope: Envelope) -> None:
        self.handling = envelope
        try:
            if envelope.method is None:
                self.end(None)
            elif not envelope.withdrawn and not self.ended:
                envelope.begun = True
                self._handle(envelope, envelope.method)
        finally:
            self.running = self.handling = None
        if self.mailbox and not self.ended:
            self._run_next()

    def _perform_at_once(self, method: str, args: tuple[Any, ...]) -> Any:
        """Handles a message in the middle of the task that asks, as inline actors do."""
        task = self.world.running_task()
        assert task is not None
        envelope = Envelope(method, args)
        self.world.trace(self.name, envelope)
        before, task.actor = task.actor, self
        self.running, self.handling = task, envelope
        try:
            fault = self.world.handling(self, method)
            value = getattr(self.actor, method)(*args)
            self.world.handled(self, fault)
            return value
        finally:
            self.running = self.handling = None
            task.actor = before
            if self.mailbox and not self.ended:
                self._run_next()

    def _handle(self, envelope: Envelope, method: str) -> None:
        self.world.trace(self.name, envelope)
        fault = self.world.handling(self, method)
        told = envelope.future is None
        try:
            if told and fault is not None and fault.kind == "die before":
                raise ActorKilled(method)
            value = getattr(self.actor, method)(*envelope.args)
            self.world.handled(self, fault)
            if told and fault is not None and fault.kind == "die after":
                raise ActorKilled(method)
        except Exception as error:
            self.world.trace(f"{self.name}.{method} raised {error!r}")
            if envelope.future is not None:
                self.world.network.answer(self, envelope, error=error)
            else:
                self.world.died(self, method, error)
                self.end(error)
        else:
            if envelope.future is not None:
                self.world.network.answer(self, envelope, value=value)

    def end(self, reason: BaseException | None) -> None:
        if self.ended:
            return
        self.ended = True
        self.process.cells.pop(self.name, None)
        on_stop = getattr(self.actor, "on_stop", None)
        if on_stop is not None:
            try:
                on_stop()
            except Exception as error:
                self.world.trace(f"{self.name}.on_stop raised {error!r}")
        self._refuse_all()
        self._notify(reason)

    def _refuse_all(self) -> None:
        while self.mailbox:
            self._refuse(self.mailbox.popleft())

    def _refuse(self, envelope: Envelope) -> None:
        if envelope.future is not None:
            self.world.network.answer(self, envelope, error=ActorDied(self.name))

    def _notify(self, reason: BaseException | None) -> None:
        watchers, self.watchers = self.watchers, []
        for watcher in watchers:
            self.world.network.notify(watcher, self, reason)


class SimulatedScheduled:
    """A delayed message that can still be called back."""

    def __init__(self, timer: Timer) -> None:
        self._timer = timer

    def cancel(self) -> bool:
        return self._timer.cancel()

    @property
    def pending(self) -> bool:
        return self._timer.pending


class SimulatedSystem:
    """The actors of one simulated process; see server.actors.runtime.ActorSystem.

    Args:
        world: The run.
        process: Where its actors live.
        shared_names: The actors that are found from every process, by name; None if
            no other process can be asked.
    """

    def __init__(
        self, world: World, process: Process, shared_names: dict[str, SimulatedCell] | None = None
    ) -> None:
        self.world = world
        self.process = process
        self.shared_names = {} if shared_names is None else shared_names
        self._numbers = itertools.count(1)

    @property
    def names(self) -> list[str]:
        return list(self.process.cells)

    def now(self) -> float:
        return self.process.monotonic()

    def spawn(
        self,
        cls: Callable[..., Any],
        *,
        name: str | None = None,
        dispatch: str = "thread",
        **kwargs: Any,
    ) -> Ref:
        role = getattr(cls, "__name__", "actor")
        if name is None:
            name = f"{role}-{next(self._numbers)}"
        self.world.effect()
        system = self.world.placement(self, role, name, kwargs)
        if not system.process.alive:
            raise SystemDown(f"cannot spawn {name!r}")
        # Whoever has a process of its own is found from every other.
        names = system.process.cells if system is self else self.shared_names
        if name in names and not names[name].ended:
            raise ValueError(f"an actor named {name!r} is alive; stop it or take another name")
        cell = SimulatedCell(system, name, role, inline=dispatch == "inline")
        system.process.cells[name] = names[name] = cell
        try:
            cell.actor = system.construct(cls, cell, kwargs)
        except BaseException:
            cell.ended = True
            del system.process.cells[name]
            raise
        return cell.ref

    def spawn_apart(self, cls: Callable[..., Any], *, detached: bool, **arguments: Any) -> Ref:
        """As `spawn`: who lives apart, and who ends with whom, is the deployment's affair."""
        assert detached
        return self.spawn(cls, **arguments)

    def construct(self, cls: Callable[..., Any], cell: SimulatedCell, kwargs: Any) -> object:
        if not (isinstance(cls, type) and issubclass(cls, Actor)):
            return cls(**kwargs)
        actor = cls.__new__(cls)
        actor.ref = cell.ref
        actor.system = self  # type: ignore[assignment]
        actor.__init__(**kwargs)  # type: ignore[misc]
        return actor

    def find(self, name: str) -> Ref | None:
        cell = self.process.cells.get(name) or self.shared_names.get(name)
        return cell.ref if cell is not None and not cell.ended else None

    def find_all(self, prefix: str) -> list[Ref]:
        """See `RaySystem.find_all`."""
        cells = self.shared_names.values()
        return [cell.ref for cell in cells if cell.name.startswith(prefix) and not cell.ended]

    def stop(self, ref: Ref) -> None:
        self.world.effect()
        ref.cell.stop()

    def watch(self, watcher: Ref, ref: Ref) -> None:
        if not watcher.cell.understands("on_death"):
            raise TypeError(f"{watcher.name!r} cannot watch: it has no method on_death")
        ref.cell.add_watcher(watcher)

    def schedule(self, delay_s: float, ref: Ref, method: str, *args: Any) -> SimulatedScheduled:
        def deliver() -> None:
            ref.cell.enqueue(Envelope(method, args))  # type: ignore[attr-defined]

        return SimulatedScheduled(self.world.time.after(delay_s, self.process, deliver))

    def shutdown(self, timeout_s: float = 0.0) -> bool:  # noqa: ARG002 nothing outlives it
        self.process.kill()
        return True
