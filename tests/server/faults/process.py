"""A process of a simulated machine: it runs, freezes, dies, and has clocks of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.server.faults.virtual_time import VirtualTime

if TYPE_CHECKING:
    from tests.server.faults.simulated_system import SimulatedCell

#: What wall clocks show when a run begins, in seconds since the epoch.
EPOCH = 1_600_000_000.0


class Process:
    """One incarnation: after a restart there is a new one of the same name.

    Args:
        name: e.g. "selector-1"; what fault schedules and traces call it.
        time: The run's clock.
        machine: Where it runs; what stops a machine stops all of its processes.
        monotonic_offset_s: What its monotonic clock shows at the start of the run;
            no two machines' clocks may be compared.
        wall_offset_s: How wrong its wall clock is.
        killed: Told when it has been killed.
    """

    def __init__(
        self,
        name: str,
        time: VirtualTime,
        *,
        machine: str,
        monotonic_offset_s: float,
        wall_offset_s: float,
        killed: Callable[[Process], None],
    ) -> None:
        self.name = name
        self.machine = machine
        self.alive = True
        self.frozen_until = 0.0
        self.wall_offset_s = wall_offset_s
        self.cells: dict[str, SimulatedCell] = {}
        self._time = time
        self._killed = killed
        self._monotonic_offset_s = monotonic_offset_s

    def monotonic(self) -> float:
        return self._time.now + self._monotonic_offset_s

    def wall(self) -> float:
        return EPOCH + self._time.now + self.wall_offset_s

    def freeze(self, seconds: float) -> None:
        """Gives it no time for a while, as SIGSTOP and SIGCONT do."""
        self.frozen_until = max(self.frozen_until, self._time.now + seconds)

    def kill(self) -> None:
        """Ends it in the middle of whatever it does, as SIGKILL does."""
        if not self.alive:
            return
        self.alive = False
        for cell in list(self.cells.values()):
            cell.vanish()
        self.cells.clear()
        self._killed(self)
