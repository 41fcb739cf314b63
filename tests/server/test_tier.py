"""The embedded tier looks after its own actors."""

import hashlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from device_plan.archive import DevicePart, PlanArchive, write_archive
from device_plan.plan_pb2 import PlanManifest, Runtime, ServerPart
from server.actors.cells import ActorDied
from server.configuration import ServerConfiguration
from server.selector_process import HOUSEKEEPER
from server.storage.blobs import get_content, put_content
from server.storage.plans import PlanVariant
from server.tier import EmbeddedTier

#: The digest of an archive that is in no blob.
LOST = "0" * 64

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


def test_a_housekeeper_that_dies_is_replaced_and_its_successor_misses_no_death(
    tier: EmbeddedTier,
) -> None:
    eventually(lambda: coordinated(tier))
    housekeeper, coordinator = tier.system.find(HOUSEKEEPER), tier.coordinators[POPULATION]
    assert housekeeper is not None
    housekeeper.tell("a message that it does not know")
    coordinator.tell("a message that it does not know")
    eventually(lambda: tier.coordinators[POPULATION] is not coordinator)
    eventually(lambda: coordinated(tier))
    assert not housekeeper.alive
    assert tier.system.find(HOUSEKEEPER) is not None


def test_what_a_selector_that_died_had_received_takes_no_place_any_more(
    tier: EmbeddedTier,
) -> None:
    assert tier.upload_memory.take(1000) is not None
    tier.selector.tell("a message that it does not know")
    eventually(lambda: tier.upload_memory.held == 0)
    assert tier.upload_memory.limit == tier.configuration.max_upload_bytes


def test_a_tier_can_be_closed_while_a_coordinator_is_dead(tier: EmbeddedTier) -> None:
    tier.coordinators[POPULATION].tell("round_ended", "a message without its other arguments")
    eventually(lambda: not tier.coordinators[POPULATION].alive)


def test_what_an_older_version_did_not_record_of_a_plan_is_read_from_its_archive(
    tmp_path: Path,
) -> None:
    parts = [
        DevicePart(
            manifest=PlanManifest(name="a", variant=name, runtimes=[Runtime(name=runtime)]),
            graph=name.encode(),
        )
        for name, runtime in (("modern", "litert 2.0.3"), ("legacy", "tflite-runtime 2.7.0"))
    ]
    plan = PlanArchive(
        write_archive(
            variants=parts,
            training=ServerPart(),
            evaluation=ServerPart(),
            initial_state=b"",
            initial_checkpoint=b"",
            checks={},
            schedule={},
        )
    )
    tier = EmbeddedTier(ServerConfiguration(data_dir=tmp_path))
    put_content(tier.blobs, plan.data)
    first = plan.variants[0].to_bytes()
    old = PlanVariant(
        name="modern",
        device_part_digest=hashlib.sha256(first).hexdigest(),
        size=0,
        runtimes=(),
    )
    for digest in (plan.digest, LOST):
        tier.registry.plans.add(digest=digest, variants=[old], manifest={}, schedule={})
    tier.close()
    with sqlite3.connect(tmp_path / "nightshift.db") as connection:
        connection.execute("UPDATE plan_variants SET runtimes = NULL")
    connection.close()

    tier = EmbeddedTier(ServerConfiguration(data_dir=tmp_path))
    tier.start()
    variants = tier.registry.plans.get(plan.digest).variants
    assert [(v.name, v.runtimes) for v in variants] == [
        ("modern", ("litert 2.0.3",)),
        ("legacy", ("tflite-runtime 2.7.0",)),
    ]
    for variant, part in zip(variants, plan.variants, strict=True):
        assert get_content(tier.blobs, variant.device_part_digest) == part.to_bytes()
        assert variant.size == len(part.to_bytes())
    tier.close()
