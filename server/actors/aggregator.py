"""The ephemeral sum of a part of one round's updates."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from device_plan.checkpoint import Layout
from server.aggregation.accumulator import Accumulator


@dataclass(frozen=True)
class PartialSum:
    """What an aggregator has when its round closes.

    Attributes:
        accumulator: The sum; its count is the number of updates in it.
        sessions: The sessions whose updates are in it.
    """

    accumulator: Accumulator
    sessions: frozenset[str]


class Aggregator:
    """Adds updates until it is closed. Lives and dies with its round, in memory only.

    An update is in the sum if and only if `add` returned True, and then exactly
    once, however often it is sent.
    """

    def __init__(self, *, layout: Layout) -> None:
        self._accumulator: Accumulator | None = Accumulator(layout=layout)
        self._sessions: set[str] = set()

    def add(self, session_id: str, views: tuple[np.ndarray, ...]) -> bool:
        """True if the update is in the sum; False if the round has closed."""
        if self._accumulator is None:
            return False
        if session_id not in self._sessions:
            self._accumulator.add(views)
            self._sessions.add(session_id)
        return True

    def close(self) -> PartialSum:
        """The sum; nothing enters it any more.

        Raises:
            RuntimeError: it was closed before.
        """
        if self._accumulator is None:
            raise RuntimeError("this aggregator's sum has been taken")
        accumulator, self._accumulator = self._accumulator, None
        return PartialSum(accumulator, frozenset(self._sessions))


def merged(parts: Sequence[PartialSum]) -> PartialSum | None:
    """One sum of all parts; the first part becomes it. None if there are none."""
    if not parts:
        return None
    total = parts[0].accumulator
    for part in parts[1:]:
        total.merge(part.accumulator)
    return PartialSum(total, frozenset().union(*(part.sessions for part in parts)))
