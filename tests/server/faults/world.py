"""A run: processes, their actors, the network between them, and what strikes them."""

from __future__ import annotations

import logging
import random
import secrets
import time as real_time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

from greenlet import GreenletExit

from tests.server.faults.fault import Fault, Injector
from tests.server.faults.network import Network
from tests.server.faults.process import Process
from tests.server.faults.virtual_time import Task, VirtualTime

if TYPE_CHECKING:
    from tests.server.faults.simulated_system import (
        Envelope,
        SimulatedCell,
        SimulatedSystem,
    )

#: Who starts processes again: told of every process that was killed.
Supervisor = Callable[[Process], None]

#: Where a new actor lives: given who spawns it, its role, its name and its arguments,
#: which it may change.
Placement = Callable[["SimulatedSystem", str, str, dict[str, Any]], "SimulatedSystem"]


class Violation(AssertionError):
    """An invariant does not hold.

    Args:
        invariant: Its name, the same for every violation of it.
        detail: What was seen.
    """

    def __init__(self, invariant: str, detail: str) -> None:
        super().__init__(f"{invariant}: {detail}")
        self.invariant = invariant


@contextmanager
def chance_from(rng: random.Random) -> Iterator[None]:
    """What the server's code draws from the operating system comes from `rng`."""
    with (
        mock.patch.object(secrets, "token_hex", lambda n=32: rng.randbytes(n).hex()),
        mock.patch.object(secrets, "token_bytes", lambda n=32: rng.randbytes(n)),
        mock.patch.object(secrets, "randbits", rng.getrandbits),
    ):
        yield


class World:
    """Everything of one run that is not the server's own code.

    Args:
        seed: Decides everything that the fault schedule leaves open.
        faults: The schedule.
        strict: See `Network`.
        log: Takes the lines of a trace; None if nobody wants one.

    Attributes:
        violations: What has been seen that must not be, in order.
    """

    def __init__(
        self,
        *,
        seed: int,
        faults: Sequence[Fault] = (),
        strict: bool = True,
        log: Callable[[str], None] | None = None,
    ) -> None:
        self.rng = random.Random(f"world {seed}")
        self.time = VirtualTime()
        self.injector = Injector(faults, self._struck)
        self.network = Network(self, random.Random(f"network {seed}"), strict=strict)
        self.violations: list[Violation] = []
        self.deaths: list[str] = []
        self.supervisor: Supervisor = _nobody
        self.placement: Placement = lambda system, *_: system
        self._processes: list[Process] = []
        self._chance = random.Random(f"chance {seed}")
        self._log = log

    @contextmanager
    def running(self) -> Iterator[None]:
        """All chance and every clock that the server's code finds are the run's."""
        with (
            chance_from(self._chance),
            mock.patch.object(real_time, "monotonic", self._monotonic),
            mock.patch.object(real_time, "time", self._wall),
            mock.patch.object(real_time, "sleep", self.time.sleep),
        ):
            handler = _Lines(self)
            if self._log is not None:
                logging.disable(logging.NOTSET)
                logging.getLogger("server").addHandler(handler)
            try:
                yield
            finally:
                logging.getLogger("server").removeHandler(handler)
                self.time.end()

    def process(self, name: str, *, machine: str | None = None, skew_s: float = 0.0) -> Process:
        """A new process, on a machine of its own or another's; the machines' monotonic
        clocks have nothing in common."""
        process = Process(
            name,
            self.time,
            machine=machine or name,
            monotonic_offset_s=self.rng.uniform(1.0, 1e6),
            wall_offset_s=skew_s,
            killed=self._killed,
        )
        self._processes = [each for each in self._processes if each.alive]
        self._processes.append(process)
        return process

    def kill(self, process: Process) -> None:
        if process.alive:
            self.trace(f"KILLED {process.name}")
            process.kill()

    def _killed(self, process: Process) -> None:
        self.supervisor(process)

    def _struck(self, fault: Fault) -> None:
        self.trace(f"FAULT {fault}")
        self.time.notice()

    # Who runs now.

    def running_task(self) -> Task | None:
        return self.time.current

    def running_process(self) -> Process | None:
        task = self.time.current
        return task.owner if task is not None else None  # type: ignore[return-value]

    def running_cell(self) -> SimulatedCell | None:
        task = self.time.current
        return task.actor if task is not None else None  # type: ignore[return-value]

    # What strikes them.

    def effect(self) -> None:
        """The running task is about to do something that others can see."""
        if self.time.over:
            raise GreenletExit
        task = self.time.current
        if task is None:
            return
        if task.doom is not None:
            task.doom()
        process = self.running_process()
        if process is not None and not process.alive:
            self.time.park()

    def strike(self, fault: Fault | None, moment: str) -> None:
        """Carries out a fault that kills, freezes or slows the running process, if now.

        Args:
            moment: "before" or "after".
        """
        if fault is None:
            return
        process = self.running_process()
        assert process is not None
        match fault.kind.partition(" ")[0], fault.kind.partition(" ")[2]:
            case "kill", when if when == moment:
                self.kill(process)
                self.time.park()
            case "kill", "during" if moment == "before":
                self._doom(process, int(fault.amount))
            case "slow", when if when == moment:
                self.time.sleep(fault.amount)
            case "freeze", _ if moment == "before":
                frozen = [process]
                if fault.kind == "freeze machine":
                    frozen = [each for each in self._processes if each.machine == process.machine]
                for each in frozen:
                    each.freeze(fault.amount)
                self.time.sleep(0.0)
            case "jump", _ if moment == "before":
                process.wall_offset_s += fault.amount

    def _doom(self, process: Process, effects: int) -> None:
        task = self.time.current
        assert task is not None
        left = effects

        def doom() -> None:
            nonlocal left
            left -= 1
            if left <= 0:
                task.doom = None
                self.kill(process)
                self.time.park()

        task.doom = doom

    def handling(self, cell: SimulatedCell, method: str) -> Fault | None:
        """An actor begins to handle a message."""
        fault = self.injector.at(f"handle {cell.role}.{method}")
        self.strike(fault, "before")
        return fault

    def handled(self, cell: SimulatedCell, fault: Fault | None) -> None:  # noqa: ARG002
        """It has handled it."""
        task = self.time.current
        if task is not None:
            task.doom = None
        self.strike(fault, "after")

    def died(self, cell: SimulatedCell, method: str, error: BaseException) -> None:
        """An actor dies of a message."""
        self.deaths.append(f"{cell.role}.{method}: {error!r}")

    def check_for_circle(self, caller: SimulatedCell) -> None:
        """Actors that wait for each other in a circle wait until their time is out."""
        seen, cell = [caller.role], caller.asking
        while cell is not None and cell is not caller:
            seen.append(cell.role)
            cell = cell.asking if cell.running is not None else None
        if cell is caller:
            self.violated("no actors wait for each other", " -> ".join([*seen, caller.role]))

    def violated(self, invariant: str, detail: str) -> None:
        self.trace(f"VIOLATION {invariant}: {detail}")
        self.violations.append(Violation(invariant, detail))
        self.time.notice()

    @property
    def traced(self) -> bool:
        """Whether anybody wants the lines of a trace: they cost more than most steps."""
        return self._log is not None

    def trace(self, line: str, envelope: Envelope | None = None) -> None:
        if self._log is None:
            return
        process: Any = self.running_process()
        name = process.name if process is not None else "-"
        if envelope is not None:
            arguments = ", ".join(shortened(argument) for argument in envelope.args)
            line = f"{line}.{envelope.method}({arguments})"
        self._log(f"{self.time.now:10.4f} {name:14} {line}")

    def _monotonic(self) -> float:
        process = self.running_process()
        return process.monotonic() if process is not None else self.time.now

    def _wall(self) -> float:
        process = self.running_process()
        return process.wall() if process is not None else self.time.now


def _nobody(_process: Process) -> None:
    """Starts nothing again."""


class _Lines(logging.Handler):
    """Puts what the server logs into the trace."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.WARNING)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        said: object = record.msg if isinstance(record.msg, dict) else record.getMessage()
        if isinstance(said, dict):
            # The real time is no part of a run.
            said = {name: value for name, value in said.items() if name != "at"}
        self._world.trace(f"log {said}")
        if record.exc_info:
            for line in "".join(traceback.format_exception(*record.exc_info)).splitlines()[-6:]:
                self._world.trace(f"log   {line}")


def shortened(value: object) -> str:
    """A value for a line of a trace."""
    text = repr(value)
    return text if len(text) <= 90 else f"{text[:87]}..."
