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
because those rejected before it, who deserve the place as much, are gone.
"""

import random
from dataclasses import dataclass, field


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

    def remove(self, session_id: str) -> bool:
        place = self.places.pop(session_id, None)
        if place is None:
            return False
        last = self.sessions.pop()
        if last != session_id:
            self.sessions[place] = last
            self.places[last] = place
        return True


class Quota:
    """The pools of one population's open rounds at one selector.

    Every session offered to a round ends in exactly one way: rejected at once,
    evicted by a later one, withdrawn, selected, or rejected at the end. All
    methods take constant time, except those that end a pool.

    Args:
        rng: The source of chance.
    """

    def __init__(self, *, rng: random.Random) -> None:
        self._rng = rng
        self._reservoirs: dict[str, _Reservoir] = {}

    @property
    def rounds(self) -> tuple[str, ...]:
        """The rounds that are open here, oldest first."""
        return tuple(self._reservoirs)

    def open(self, round_id: str, capacity: int) -> None:
        """Begins a round's pool. Harmless when repeated while it is open.

        Args:
            capacity: Sessions that may wait at once.

        Raises:
            ValueError: the capacity is below one.
        """
        if capacity < 1:
            raise ValueError(f"round {round_id!r} needs a capacity of at least 1, not {capacity}")
        self._reservoirs.setdefault(round_id, _Reservoir(capacity))

    def offer(self, round_id: str, session_id: str) -> Offer:
        """A session asks to be in the round's pool.

        A session that waits there already is accepted again. One that was
        rejected counts as new, so that nothing need be remembered of it. For a
        round that is not open, the session is rejected.
        """
        reservoir = self._reservoirs.get(round_id)
        if reservoir is None:
            return _REJECTED
        if session_id in reservoir.places:
            return _ACCEPTED
        reservoir.seen += 1
        sessions = reservoir.sessions
        if len(sessions) < reservoir.capacity:
            reservoir.places[session_id] = len(sessions)
            sessions.append(session_id)
            return _ACCEPTED
        place = int(self._rng.random() * reservoir.seen)
        if place >= reservoir.capacity:
            return _REJECTED
        evicted = sessions[place]
        del reservoir.places[evicted]
        sessions[place] = session_id
        reservoir.places[session_id] = place
        return Offer(accepted=True, evicted=evicted)

    def withdraw(self, round_id: str, session_id: str) -> bool:
        """A device stops waiting. Returns whether it was in the pool."""
        reservoir = self._reservoirs.get(round_id)
        return reservoir is not None and reservoir.remove(session_id)

    def waiting(self, round_id: str) -> int:
        """Sessions in the round's pool; none if it is not open."""
        reservoir = self._reservoirs.get(round_id)
        return 0 if reservoir is None else len(reservoir.sessions)

    def take(self, round_id: str, count: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Ends the round's pool: a uniform sample of it, and the rejected rest.

        Fewer than ``count`` sessions are all selected. A round that is not open
        has neither.
        """
        reservoir = self._reservoirs.pop(round_id, None)
        if reservoir is None:
            return (), ()
        sessions = reservoir.sessions
        self._rng.shuffle(sessions)
        count = max(0, count)
        return tuple(sessions[:count]), tuple(sessions[count:])

    def close(self, round_id: str) -> tuple[str, ...]:
        """Ends the round's pool and selects nobody: the rejected sessions."""
        return self.take(round_id, 0)[1]
