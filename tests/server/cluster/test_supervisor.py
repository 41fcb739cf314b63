"""What a supervisor starts, and what it ends."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from server.actors.cells import Ref
from server.actors.runtime import Actor, ActorSystem
from server.cluster.supervisor import COORDINATOR, LOOK_S, Supervisor, owner_of
from server.storage.database import open_database
from server.storage.leases import Lease, Leases
from tests.server.storage.conftest import ManualClock

POPULATION = "digits/demo"
TTL_S = 6.0


class OneProcess(ActorSystem):
    """The surface of a cluster's system, in this process and under the test's clock."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self._clock = clock

    def now(self) -> float:
        return self._clock()

    def find_all(self, prefix: str) -> list[Ref]:
        names = [name for name in self.names if name.startswith(prefix)]
        return [ref for name in names if (ref := self.find(name)) is not None]


class Standby(Actor):
    """A coordinator that takes the lease when it is told to."""

    def __init__(self, *, owner: str, leases: Leases) -> None:
        self._owner = owner
        self._leases = leases
        self._lease: Lease | None = None

    def begin(self) -> None:
        """A coordinator would try by itself from now on."""

    def take(self) -> bool:
        self._lease = self._leases.acquire(COORDINATOR + POPULATION, self._owner, TTL_S)
        return self._lease is not None

    def renew(self) -> bool:
        return self._lease is not None and self._leases.renew(self._lease, TTL_S)


class Watched:
    """A supervisor, and the coordinators that it starts."""

    def __init__(self, directory: Path) -> None:
        self.clock = ManualClock()
        self.system = OneProcess(self.clock)
        self.leases = Leases(
            engine=open_database(f"sqlite:///{directory}/nightshift.db"), clock=self.clock
        )
        self._supervisor = self.system.spawn(
            Supervisor,
            dispatch="inline",
            populations=lambda: [POPULATION],
            leases=self.leases,
            lease_ttl_s=TTL_S,
            start_coordinator=self._start,
            start_model_update=lambda name: self.system.spawn(Actor, name=name, dispatch="inline"),
        )

    def _start(self, population: str, name: str) -> Ref:
        assert population == POPULATION
        return self.system.spawn(
            Standby,
            name=name,
            dispatch="inline",
            owner=owner_of(name, "unique"),
            leases=self.leases,
        )

    def look(self, after_s: float = LOOK_S) -> None:
        self.clock.now += after_s
        self._supervisor.ask("look")

    def start_a_successor(self) -> None:
        """The first coordinator does not renew its lease in time, and a second one is started."""
        self.look()
        assert self.ask("1.0", "take")
        self.look()
        self.look(TTL_S)
        self.look(TTL_S)
        assert self.coordinators == ["1.0", "2.0"]

    @property
    def coordinators(self) -> list[str]:
        return [name.split("/")[-1] for name in self.system.names if COORDINATOR in name]

    def ask(self, number: str, method: str) -> Any:
        ref = self.system.find(f"{COORDINATOR}{POPULATION}/{number}")
        assert ref is not None
        return ref.ask(method)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    watched = Watched(tmp_path)
    yield watched
    assert watched.system.shutdown()


def test_a_population_without_a_coordinator_gets_one(watched: Watched) -> None:
    watched.look()
    assert watched.coordinators == ["1.0"]
    assert watched.ask("1.0", "take")
    watched.look()
    assert watched.coordinators == ["1.0"]


def test_a_coordinator_whose_lease_has_expired_is_followed_and_then_ended(
    watched: Watched,
) -> None:
    watched.start_a_successor()
    assert watched.ask("2.0", "take")
    watched.look()
    assert watched.coordinators == ["2.0"]


def test_the_successor_of_a_coordinator_that_was_only_late_is_ended(watched: Watched) -> None:
    watched.start_a_successor()
    assert watched.ask("1.0", "take") or watched.ask("1.0", "renew")
    watched.look()
    assert watched.coordinators == ["1.0"]
