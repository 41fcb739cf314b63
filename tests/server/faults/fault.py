"""Faults: what they are, where they strike, and how a schedule of them is drawn.

A fault strikes at a *point*: something that happens in a run without faults
too, named by what it is and who does it, at its n-th occurrence. Points are
named alike in every run, so a schedule can be replayed, and go on meaning the
same when some of its faults are dropped.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

#: What can happen at each family of points (a point's first word), and how often.
KINDS: Mapping[str, Mapping[str, int]] = {
    # A message reaches an actor.
    "handle": {
        "kill before": 3,
        "kill during": 4,
        "kill after": 3,
        "die before": 2,
        "die after": 2,
        "freeze": 3,
        "freeze machine": 3,
        "jump clock": 3,
    },
    # A message is sent to another process and nobody waits for an answer.
    "tell": {"lose": 2, "duplicate": 2, "delay": 2},
    # A message is sent to another process and its answer is waited for.
    "ask": {"lose": 1, "lose answer": 2, "refuse": 1, "break": 2, "delay": 2, "duplicate": 1},
    # The database or the blob store is used.
    "store": {
        "fail before": 3,
        "fail after": 3,
        "slow before": 2,
        "slow after": 1,
        "repeat": 2,
        "kill before": 1,
        "kill after": 2,
        "freeze": 2,
        "freeze machine": 2,
    },
    # The model update is computed.
    "update": {
        "fail": 2,
        "slow before": 1,
        "kill before": 1,
        "kill after": 1,
        "freeze": 1,
        "freeze machine": 1,
    },
    # A device's request reaches a selector process.
    "http": {
        "lose": 2,
        "lose answer": 3,
        "duplicate": 3,
        "delay": 2,
        "truncate": 1,
        "kill during": 2,
        "vanish": 2,
        "freeze": 1,
    },
}

#: How often a fault is of each family.
FAMILIES: Mapping[str, int] = {
    "handle": 8,
    "tell": 3,
    "ask": 5,
    "store": 5,
    "update": 1,
    "http": 5,
}


@dataclass(frozen=True, slots=True)
class Fault:
    """Attributes:
    point: Where it strikes, e.g. "handle Coordinator.begin".
    occurrence: At which time that it happens, from 1.
    kind: One of the point's family in `KINDS`.
    amount: Seconds, or for "kill during" the effect before which it strikes.
    """

    point: str
    occurrence: int
    kind: str
    amount: float

    def __str__(self) -> str:
        return f"{self.kind} ({self.amount:g}) at {self.point} #{self.occurrence}"


class Injector:
    """Counts the points of a run, and says which fault strikes at each.

    Args:
        faults: The schedule.
        report: Told of every fault that strikes.
    """

    def __init__(self, faults: Sequence[Fault], report: Callable[[Fault], None]) -> None:
        self._faults = {(fault.point, fault.occurrence): fault for fault in faults}
        self._report = report
        self.counts: Counter[str] = Counter()
        self.struck: list[Fault] = []
        self.active = True

    def at(self, point: str) -> Fault | None:
        """The fault that strikes now, if one does."""
        if not self.active:
            return None
        self.counts[point] += 1
        fault = self._faults.get((point, self.counts[point]))
        if fault is not None:
            self.struck.append(fault)
            self._report(fault)
        return fault

    @property
    def exhausted(self) -> bool:
        """Whether every fault of the schedule has struck."""
        return len(self.struck) == len(self._faults)


def draw(rng: random.Random, points: Mapping[str, int], count: int) -> tuple[Fault, ...]:
    """A schedule of up to `count` faults.

    A point is drawn first and then its occurrence, so that what happens once a
    round is hit as often as what happens all the time.

    Args:
        points: How often each point happens in a run without faults.
    """
    by_family: dict[str, list[str]] = {}
    for point in sorted(points):
        by_family.setdefault(point.split(" ", 1)[0], []).append(point)
    families = sorted(by_family)
    weights = [FAMILIES[family] for family in families]
    faults: dict[tuple[str, int], Fault] = {}
    for family in rng.choices(families, weights, k=count):
        point = rng.choice(by_family[family])
        # Earlier faults make it happen more often than it does without any.
        occurrence = rng.randint(1, points[point] + 2)
        kind = rng.choices(list(KINDS[family]), list(KINDS[family].values()))[0]
        faults[point, occurrence] = Fault(point, occurrence, kind, _amount(rng, kind))
    return tuple(faults.values())


def single_kills(points: Mapping[str, int]) -> list[Fault]:
    """Every crash of every actor's process at every message: before, in the middle, after."""
    return [
        Fault(point, occurrence, kind, 1.0)
        for point in sorted(points)
        if point.startswith("handle ")
        for occurrence in range(1, points[point] + 1)
        for kind in ("kill before", "kill during", "kill after")
    ]


def single_freezes(points: Mapping[str, int], seconds: float) -> list[Fault]:
    """Every stop, long enough for its lease to be lost, of a coordinator's machine, with its
    master aggregators, at every message and every use of a store; then it goes on."""
    return [
        Fault(point, occurrence, "freeze machine", seconds)
        for point in sorted(points)
        if _COORDINATION.match(point)
        for occurrence in range(1, points[point] + 1)
    ]


_COORDINATION = re.compile(r"update |(handle|store) (Coordinator|MasterAggregator)\b")


def _amount(rng: random.Random, kind: str) -> float:
    match kind:
        case "kill during":
            amount = float(rng.randint(1, 4))
        case "jump clock":
            amount = rng.choice((-1, 1)) * 10.0 ** rng.uniform(0.0, 1.6)
        case _:
            # From shorter than a lease lives to longer than every timeout but the
            # model update's.
            amount = 10.0 ** rng.uniform(-1.0, 1.6)
    return round(amount, 3)
