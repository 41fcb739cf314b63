"""A selector's acceptance of devices for one population: reservoir sampling.

First come, first served would prefer fast phones on fast networks, and bias the
model towards their owners. Instead every device that checks in during a round's
selection window has the same chance (Bonawitz et al. 2019, §2.2): a uniform
sample without replacement of a stream of unknown length, by Algorithm R
(Vitter 1985, *Random sampling with a reservoir*, ACM TOMS 11:37-57): the first
``capacity`` sessions are kept; the t-th after them is kept with probability
``capacity / t``, in the place of one drawn uniformly from those kept.

A device that leaves while it waits makes room for the next one that comes. This
prefers a full round to perfect fairness: that one device is certain to be kept,
because those rejected before it, who deserve the place as much, are gone. In a
pool that was never full nobody has been rejected, and it stays perfectly fair.

A pool may be stratified (`device_plan.cohort.Strata`): every stratum has a
reservoir of its own, of the whole capacity, so that whatever share of the cohort
it gets in the end, also that of strata which stay empty, is a uniform sample of
its devices. With several selectors each has a pool of its own; how a cohort is
taken from all of them is in `server.protocol.allocation`.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from device_plan.cohort import Strata


@dataclass(frozen=True, slots=True)
class Offer:
    """What became of a session that was offered.

    Attributes:
        accepted: It waits in the pool; else it is rejected.
        evicted: A session that waited until now, and is rejected in its favour.
    """

    accepted: bool
    evicted: str | None = None


_REJECTED = Offer(accepted=False)
_ACCEPTED = Offer(accepted=True)


@dataclass(slots=True)
class _Reservoir:
    capacity: int
    seen: int = 0
    sessions: list[str] = field(default_factory=list)
    places: dict[str, int] = field(default_factory=dict)

    def remove(self, session_id: str) -> None:
        place = self.places.pop(session_id)
        self.seen -= 1
        last = self.sessions.pop()
        if last != session_id:
            self.sessions[place] = last
            self.places[last] = place


@dataclass(frozen=True, slots=True)
class PoolReport:
    """A pool, by stratum; without strata there is one, named "".

    Attributes:
        waiting: Sessions in it.
        seen: Sessions that asked to be in it, less those that have left it or were taken:
            what waits is a sample of so many.
    """

    waiting: Mapping[str, int]
    seen: Mapping[str, int]


@dataclass(slots=True)
class _Pool:
    capacity: int
    strata: Strata | None
    reservoirs: dict[str, _Reservoir]
    #: The stratum of each session that waits.
    stratum_of: dict[str, str] = field(default_factory=dict)

    def remove(self, session_id: str) -> None:
        self.reservoirs[self.stratum_of.pop(session_id)].remove(session_id)


class Quota:
    """The pools of one population's open rounds at one selector.

    Every session offered to a round ends in exactly one way: rejected at once,
    evicted by a later one, withdrawn, taken, or rejected at the end. All
    methods take constant time, except those that take or end.

    Args:
        rng: The source of chance.
    """

    def __init__(self, *, rng: random.Random) -> None:
        self._rng = rng
        self._pools: dict[str, _Pool] = {}

    @property
    def rounds(self) -> tuple[str, ...]:
        """The rounds that are open here, oldest first."""
        return tuple(self._pools)

    def open(self, round_id: str, capacity: int, strata: Strata | None = None) -> None:
        """Begins a round's pool. Harmless when repeated while it is open.

        Args:
            capacity: Sessions of each stratum that may wait at once.
            strata: Into which the pool is divided; None: one for all.

        Raises:
            ValueError: the capacity is below one.
        """
        if capacity < 1:
            raise ValueError(f"round {round_id!r} needs a capacity of at least 1, not {capacity}")
        names = [""] if strata is None else strata.all_shares
        reservoirs = {name: _Reservoir(capacity) for name in names}
        self._pools.setdefault(round_id, _Pool(capacity, strata, reservoirs))

    def offer(
        self, round_id: str, session_id: str, attributes: Mapping[str, str] | None = None
    ) -> Offer:
        """A session asks to be in the round's pool.

        A session that waits there already is accepted again. One that was
        rejected counts as new, so that nothing need be remembered of it. For a
        round that is not open, the session is rejected.

        Args:
            attributes: What its device says of itself.
        """
        pool = self._pools.get(round_id)
        if pool is None:
            return _REJECTED
        if session_id in pool.stratum_of:
            return _ACCEPTED
        stratum = "" if pool.strata is None else pool.strata.of(attributes or {})
        reservoir = pool.reservoirs[stratum]
        reservoir.seen += 1
        sessions = reservoir.sessions
        if len(sessions) < reservoir.capacity:
            reservoir.places[session_id] = len(sessions)
            sessions.append(session_id)
            pool.stratum_of[session_id] = stratum
            return _ACCEPTED
        place = int(self._rng.random() * reservoir.seen)
        if place >= reservoir.capacity:
            return _REJECTED
        evicted = sessions[place]
        del reservoir.places[evicted]
        del pool.stratum_of[evicted]
        sessions[place] = session_id
        reservoir.places[session_id] = place
        pool.stratum_of[session_id] = stratum
        return Offer(accepted=True, evicted=evicted)

    def withdraw(self, round_id: str, session_id: str) -> bool:
        """A device stops waiting. Returns whether it was in the pool."""
        pool = self._pools.get(round_id)
        if pool is None or session_id not in pool.stratum_of:
            return False
        pool.remove(session_id)
        return True

    def waiting(self, round_id: str) -> int:
        """Sessions in the round's pool; none if it is not open."""
        pool = self._pools.get(round_id)
        return 0 if pool is None else len(pool.stratum_of)

    def report(self, round_id: str) -> PoolReport | None:
        """The round's pool by stratum; None if it is not open."""
        pool = self._pools.get(round_id)
        if pool is None:
            return None
        return PoolReport(
            waiting={name: len(each.sessions) for name, each in pool.reservoirs.items()},
            seen={name: each.seen for name, each in pool.reservoirs.items()},
        )

    def take(self, round_id: str, counts: Mapping[str, int]) -> tuple[str, ...]:
        """A uniform sample of so many sessions of each stratum, or of all it has.

        They wait no longer; the pool stays open. A round that is not open has none.
        """
        pool = self._pools.get(round_id)
        if pool is None:
            return ()
        taken: list[str] = []
        for stratum, count in counts.items():
            reservoir = pool.reservoirs.get(stratum)
            if reservoir is None:
                continue
            sample = self._rng.sample(
                reservoir.sessions, min(max(0, count), len(reservoir.sessions))
            )
            for session_id in sample:
                pool.remove(session_id)
            taken += sample
        return tuple(taken)

    def close(self, round_id: str) -> tuple[str, ...]:
        """Ends the round's pool: the sessions that still wait in it, rejected now."""
        pool = self._pools.pop(round_id, None)
        return () if pool is None else tuple(pool.stratum_of)
