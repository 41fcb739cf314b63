"""A round's selection pool: one offer at a time by `Quota`, or a batch by the same rule.

Most check-ins of a large population are rejected, and a call for each would take
most of the time. Algorithm R (Vitter 1985) asks of the t-th offer only whether a
random place among t is one of the pool's; so the places of a whole batch are
drawn at once, and only the few that fall into the pool are looked at. Then the
steps are those of `Quota.offer`, and so is the distribution of what is chosen.
"""

import random
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from server.protocol.quota import Quota
from server.simulation.availability import Devices


class Pool(Protocol):
    """One round's waiting devices."""

    @property
    def waiting(self) -> Devices:
        """Those in the pool now."""
        ...

    def offer(self, devices: Devices) -> Devices:
        """Devices check in, in this order: those rejected and those evicted in their favour."""
        ...

    def leave(self, devices: Devices) -> None:
        """Devices stop waiting."""
        ...

    def take(self, count: int) -> tuple[Devices, Devices]:
        """Ends the pool: those chosen, and the rest."""
        ...


#: Makes the pool of a round from its identifier and capacity.
PoolFactory = Callable[[str, int], Pool]


class BatchedPool:
    """Algorithm R on batches.

    Args:
        capacity: Devices that may wait at once.
        rng: The source of chance.
    """

    def __init__(self, capacity: int, rng: np.random.Generator) -> None:
        self._capacity = capacity
        self._rng = rng
        self._seen = 0
        self._members = np.empty(capacity, np.int32)
        self._size = 0

    @property
    def waiting(self) -> Devices:
        return self._members[: self._size]

    def offer(self, devices: Devices) -> Devices:
        room = self._capacity - self._size
        if room:
            entering = devices[:room]
            self._members[self._size : self._size + len(entering)] = entering
            self._size += len(entering)
            self._seen += len(entering)
            devices = devices[room:]
        if not len(devices):
            return devices
        seen = np.arange(self._seen + 1, self._seen + len(devices) + 1)
        self._seen += len(devices)
        places = (self._rng.random(len(devices)) * seen).astype(np.int64)
        hits = np.flatnonzero(places < self._capacity)
        turned_away = devices.copy()
        for hit in hits.tolist():
            place = places[hit]
            turned_away[hit] = self._members[place]
            self._members[place] = devices[hit]
        return turned_away

    def leave(self, devices: Devices) -> None:
        staying = self.waiting[~np.isin(self.waiting, devices)]
        self._size = len(staying)
        self._members[: self._size] = staying

    def take(self, count: int) -> tuple[Devices, Devices]:
        order = self._rng.permutation(self.waiting)
        self._size = 0
        return order[:count], order[count:]


class OneByOnePool:
    """The server's own `Quota`, asked for each device.

    Args:
        round_id: The round.
        capacity: Devices that may wait at once.
        quota: The population's.
    """

    def __init__(self, round_id: str, capacity: int, quota: Quota) -> None:
        self._round_id = round_id
        self._quota = quota
        self._waiting: dict[int, None] = {}
        quota.open(round_id, capacity)

    @property
    def waiting(self) -> Devices:
        return np.fromiter(self._waiting, np.int32, len(self._waiting))

    def offer(self, devices: Devices) -> Devices:
        turned_away = []
        for device in devices.tolist():
            offer = self._quota.offer(self._round_id, str(device))
            if not offer.accepted:
                turned_away.append(device)
                continue
            self._waiting[device] = None
            if offer.evicted is not None:
                evicted = int(offer.evicted)
                del self._waiting[evicted]
                turned_away.append(evicted)
        return np.array(turned_away, np.int32)

    def leave(self, devices: Devices) -> None:
        for device in devices.tolist():
            self._quota.withdraw(self._round_id, str(device))
            del self._waiting[device]

    def take(self, count: int) -> tuple[Devices, Devices]:
        chosen = self._quota.take(self._round_id, {"": count})
        rest = self._quota.close(self._round_id)
        self._waiting.clear()
        return _numbers(chosen), _numbers(rest)


def pools(*, one_by_one: bool, seed: int) -> PoolFactory:
    """How a run makes its pools."""
    if one_by_one:
        quota = Quota(rng=random.Random(f"{seed} quota"))
        return lambda round_id, capacity: OneByOnePool(round_id, capacity, quota)
    rng = np.random.default_rng([seed, 2])
    return lambda _, capacity: BatchedPool(capacity, rng)


def _numbers(sessions: tuple[str, ...]) -> NDArray[np.int32]:
    return np.array([int(session) for session in sessions], np.int32)
