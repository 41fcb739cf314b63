"""The network between simulated processes: late, and by the schedule's wish worse."""

from __future__ import annotations

import io
import pickle
import random
from typing import TYPE_CHECKING, Any

from server.actors.runtime import ActorDied, Ref
from tests.server.faults.process import Process

if TYPE_CHECKING:
    from tests.server.faults.simulated_system import Envelope, SimulatedCell
    from tests.server.faults.world import World

#: Seconds that a message takes at most, inside a process and between two.
LOCAL_S = 0.0005
REMOTE_S = 0.01

#: Roles whose processes the cluster's engine runs.
ENGINE_ROLES = frozenset({"Coordinator", "MasterAggregator", "ModelUpdate"})

#: The share of asks that find an idle actor of the same process at once.
AT_ONCE = 0.7

#: Seconds until those who watch a process in another hear of its end, at least and at most.
DETECTION_S = (0.05, 1.0)


class Network:
    """Carries messages, answers and news of deaths.

    Messages from one sender to one actor arrive in order, also when a fault delays
    one of them; only the second copy of one that is doubled comes when it likes.

    Args:
        world: Whose network it is.
        rng: For latencies.
        strict: Whether messages to other processes are pickled, so that no two
            processes share an object.
    """

    def __init__(self, world: World, rng: random.Random, *, strict: bool) -> None:
        self._world = world
        self._rng = rng
        self._strict = strict
        self._last: dict[tuple[object, SimulatedCell], float] = {}

    def at_once(self, cell: SimulatedCell) -> bool:
        """Whether an ask of the running task goes without any delay: to an idle actor of
        the same process it does so as a rule."""
        world = self._world
        task = world.running_task()
        if task is None or task.owner is not cell.process or self._rng.random() > AT_ONCE:
            return False
        sender = world.running_cell() or task
        return (
            not cell.ended
            and cell.running is None
            and not cell.mailbox
            and self._last.get((sender, cell), 0.0) <= world.time.now
        )

    def send(self, cell: SimulatedCell, envelope: Envelope) -> None:
        """A message begins its way from the running task to an actor."""
        world = self._world
        source = world.running_process()
        if source is None or source is cell.process:
            self._deliver(cell, envelope, self._rng.uniform(0.0, LOCAL_S))
            return
        delay = self._rng.uniform(0.0002, REMOTE_S)
        if envelope.method is None:
            self._deliver(cell, envelope, delay)
            return
        if self._strict:
            envelope.args = parcel(envelope.args)
        kind = "tell" if envelope.future is None else "ask"
        fault = world.injector.at(f"{kind} {cell.role}.{envelope.method}")
        match fault.kind if fault is not None else "":
            case "lose" if not self._reliable(cell):
                return
            case "refuse" if envelope.future is not None:
                world.time.after(
                    delay,
                    source,
                    lambda: envelope.future.settle(error=ActorDied(cell.name)),  # type: ignore[union-attr]
                )
                return
            case "duplicate":
                twin = type(envelope)(envelope.method, parcel(envelope.args))
                if envelope.future is not None:
                    # Its answer is thrown away.
                    twin.future = type(envelope.future)(world, cell)
                assert fault is not None
                self._deliver(cell, twin, delay + fault.amount, ordered=False)
            case "delay":
                assert fault is not None
                delay += fault.amount
            case "lose answer" if not self._reliable(cell):
                envelope.answer_lost = True
            case "break":
                envelope.answer_broken = True
        self._deliver(cell, envelope, delay)

    def answer(
        self,
        cell: SimulatedCell,
        envelope: Envelope,
        *,
        value: Any = None,
        error: BaseException | None = None,
    ) -> None:
        """The answer to a message begins its way back."""
        future = envelope.future
        assert future is not None
        if envelope.answer_lost:
            return
        if envelope.answer_broken:
            value, error = None, ActorDied(cell.name)
        remote = envelope.source is not cell.process
        if remote and self._strict and error is None:
            value = parcel(value)
        delay = self._rng.uniform(0.0002, REMOTE_S) if remote else 0.0
        if remote and not cell.process.alive:
            delay = self._rng.uniform(*DETECTION_S)
        self._world.time.after(delay, envelope.source, lambda: future.settle(value, error))

    def notify(self, watcher: Ref, cell: SimulatedCell, reason: BaseException | None) -> None:
        """News of an actor's end begin their way to a watcher. They are never lost."""
        from tests.server.faults.simulated_system import Envelope

        target: SimulatedCell = watcher.cell  # type: ignore[assignment]
        if target.process is cell.process:
            # Inside a process they come after the messages that it had sent.
            delay = self._in_order(cell, target, self._rng.uniform(0.0, LOCAL_S))
        else:
            delay = self._rng.uniform(*DETECTION_S)
        envelope = Envelope("on_death", (cell.name, reason))
        self._world.time.after(delay, target.process, lambda: target.enqueue(envelope))

    def _deliver(
        self, cell: SimulatedCell, envelope: Envelope, delay: float, *, ordered: bool = True
    ) -> None:
        world = self._world
        envelope.source = world.running_process()
        if ordered:
            sender = world.running_cell() or world.running_task() or world
            delay = self._in_order(sender, cell, delay)
        # The network carries it, whatever becomes of its sender; a frozen or dead
        # receiver is the cell's own affair.
        world.time.after(delay, _Reachable(cell.process), lambda: cell.enqueue(envelope))

    def _reliable(self, cell: SimulatedCell) -> bool:
        """Between two processes of the cluster's engine a message arrives or its receiver
        is dead; only those from and to selector processes can get lost."""
        sender = self._world.running_cell()
        return sender is not None and {sender.role, cell.role} <= ENGINE_ROLES

    def _in_order(self, sender: object, cell: SimulatedCell, delay: float) -> float:
        """The delay of a message that may not overtake its sender's earlier ones."""
        now = self._world.time.now
        arrives = max(now + delay, self._last.get((sender, cell), 0.0))
        self._last[sender, cell] = arrives
        return arrives - now


class _Reachable:
    """The owner of a message's arrival: it waits for the frozen, and finds the dead."""

    alive = True

    def __init__(self, process: Process) -> None:
        self._process = process

    @property
    def frozen_until(self) -> float:
        return self._process.frozen_until if self._process.alive else 0.0


class _Pickler(pickle.Pickler):
    """References stay references: what they refer to is elsewhere."""

    def __init__(self, file: io.BytesIO, refs: list[Ref]) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self._refs = refs

    def persistent_id(self, obj: Any) -> int | None:
        if not isinstance(obj, Ref):
            return None
        self._refs.append(obj)
        return len(self._refs) - 1


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, refs: list[Ref]) -> None:
        super().__init__(file)
        self._refs = refs

    def persistent_load(self, pid: int) -> Ref:
        return self._refs[pid]


def parcel(value: Any) -> Any:
    """What arrives at another process of a value."""
    file = io.BytesIO()
    refs: list[Ref] = []
    _Pickler(file, refs).dump(value)
    file.seek(0)
    return _Unpickler(file, refs).load()
