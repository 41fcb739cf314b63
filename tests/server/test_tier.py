"""The embedded tier looks after its own actors."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server.actors.cells import ActorDied
from server.configuration import ServerConfiguration
from server.tier import EmbeddedTier

POPULATION = "keyboard/next-word"


@pytest.fixture
def tier(tmp_path: Path) -> Iterator[EmbeddedTier]:
    tier = EmbeddedTier(ServerConfiguration(data_dir=tmp_path, lease_ttl_s=0.5))
    tier.registry.populations.create(
        name=POPULATION, holdout_fraction=0.1, holdout_salt=b"salt of sixteen!"
    )
    tier.start()
    yield tier
    tier.close()


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20.0
    while not holds():
        assert time.monotonic() < deadline, "not within 20 s"
        time.sleep(0.02)


def coordinated(tier: EmbeddedTier) -> bool:
    try:
        return bool(tier.coordinators[POPULATION].ask("holds_lease"))
    except ActorDied:
        return False


def test_a_coordinator_that_dies_is_replaced_and_its_successor_gets_the_lease(
    tier: EmbeddedTier,
) -> None:
    eventually(lambda: coordinated(tier))
    first = tier.coordinators[POPULATION]
    first.tell("round_ended", "a message without its other arguments")
    eventually(lambda: tier.coordinators[POPULATION] is not first)
    assert not first.alive
    eventually(lambda: coordinated(tier))


def test_a_tier_can_be_closed_while_a_coordinator_is_dead(tier: EmbeddedTier) -> None:
    tier.coordinators[POPULATION].tell("round_ended", "a message without its other arguments")
    eventually(lambda: not tier.coordinators[POPULATION].alive)
