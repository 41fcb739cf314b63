"""When each device checks in next: a calendar queue over all of them.

Brown 1988, *Calendar queues: a fast O(1) priority queue implementation for the
simulation event set problem*, CACM 31:1220-1227. The times themselves are one array;
once a page (some minutes) the devices due on it are picked out and sorted by step.
"""

import numpy as np
from numpy.typing import NDArray

from server.simulation.availability import Devices, Times

#: The time of a device that is not due: it waits in a pool or takes part in a round.
NEVER = np.iinfo(np.int32).max


class Calendar:
    """The check-ins to come.

    Args:
        due: When each device is due, in milliseconds; changed in place.
        step_ms: The clock's step.
        steps: Steps on a page.
    """

    def __init__(self, due: Times, *, step_ms: int, steps: int) -> None:
        self.due = due
        self._step_ms = step_ms
        self._steps = steps
        self._begin = self._end = 0
        self._devices = np.empty(0, np.int32)
        self._bounds = np.zeros(steps + 1, np.int64)
        self._inserted: list[list[Devices]] = []

    @property
    def page_ms(self) -> int:
        return self._step_ms * self._steps

    def turn_to(self, begin: int) -> None:
        """Begins the page at that time; nothing earlier is due any more."""
        self._begin, self._end = begin, begin + self.page_ms
        devices = np.flatnonzero(self.due < self._end).astype(np.int32)
        steps = ((self.due[devices] - begin) // self._step_ms).astype(np.uint16)
        self._devices = devices[np.argsort(steps, kind="stable")]
        self._bounds[1:] = np.cumsum(np.bincount(steps, minlength=self._steps))
        self._inserted = [[] for _ in range(self._steps)]

    def take(self, step: int) -> Devices:
        """The devices that check in during a step of this page; due again when told so."""
        devices = self._devices[self._bounds[step] : self._bounds[step + 1]]
        if self._inserted[step]:
            devices = np.concatenate([devices, *self._inserted[step]])
        return devices

    def schedule(self, devices: Devices, at: Times, step: int) -> None:
        """Sets when devices check in next; during the present step means in the next one."""
        earliest = self._begin + (step + 1) * self._step_ms
        at = np.maximum(at, earliest)
        self.due[devices] = at
        soon = at < self._end
        if soon.any():
            devices, at = devices[soon], at[soon]
            steps = (at - self._begin) // self._step_ms
            order = np.argsort(steps, kind="stable")
            chosen, starts = np.unique(steps[order], return_index=True)
            for place, group in zip(chosen, np.split(devices[order], starts[1:]), strict=True):
                self._inserted[place].append(group)


def seconds_of(times: Times, begin_ms: int, seconds: int) -> NDArray[np.int64]:
    """How many of the times fall into each second after a beginning."""
    return np.bincount((times - begin_ms) // 1000, minlength=seconds)
