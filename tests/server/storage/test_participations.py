"""Participations count committed rounds, once each, and name nobody."""

from collections.abc import Sequence

import pytest
from sqlalchemy import Engine, select

from server.storage.database import read
from server.storage.leases import Fenced, Lease
from server.storage.participations import Participation
from server.storage.registry import Registry
from server.storage.schema import participations
from tests.server.storage.conftest import ManualClock, Tasks
from tests.server.storage.racing import race_threads


@pytest.fixture
def lease(registry: Registry) -> Lease:
    lease = registry.leases.acquire("coordinator", "me", 1000)
    assert lease
    return lease


def commit(
    registry: Registry, lease: Lease, task_id: str, base: int, devices: Sequence[bytes]
) -> bool:
    round_id = registry.rounds.open(lease, task_id, base + 1, base)
    return registry.rounds.commit_training(lease, round_id, "s", "c", {}, {}, devices)


def test_participations_count_committed_rounds_and_remember_the_last(
    registry: Registry, tasks: Tasks, lease: Lease, clock: ManualClock
) -> None:
    assert commit(registry, lease, tasks.training, 0, [b"a", b"b", b"b"])
    clock.now += 60
    assert commit(registry, lease, tasks.training, 1, [b"b", b"c"])
    assert registry.participations.of(tasks.training, [b"a", b"b", b"c", b"d"]) == {
        b"a": Participation(1, 1000.0),
        b"b": Participation(2, 1060.0),
        b"c": Participation(1, 1060.0),
    }
    assert registry.participations.of(tasks.training, []) == {}


def test_tasks_count_apart_and_evaluations_too(
    registry: Registry, tasks: Tasks, lease: Lease
) -> None:
    round_id = registry.rounds.open(lease, tasks.evaluation, 1, 0)
    assert registry.rounds.commit_evaluation(lease, round_id, {}, {}, [b"a"])
    assert registry.participations.of(tasks.training, [b"a"]) == {}
    assert registry.participations.of(tasks.evaluation, [b"a"])[b"a"].count == 1


def test_a_commit_that_fails_counts_nobody(registry: Registry, tasks: Tasks, lease: Lease) -> None:
    round_id = registry.rounds.open(lease, tasks.training, 1, 0)
    registry.rounds.abandon(lease, round_id, "why", {})
    assert not registry.rounds.commit_training(lease, round_id, "s", "c", {}, {}, [b"a"])
    stale = registry.rounds.open(lease, tasks.training, 1, 0)
    registry.leases.acquire("coordinator", "me", 1000)
    with pytest.raises(Fenced):
        registry.rounds.commit_training(lease, stale, "s", "c", {}, {}, [b"a"])
    assert registry.participations.of(tasks.training, [b"a"]) == {}


def test_a_repeated_commit_counts_once(registry: Registry, tasks: Tasks, lease: Lease) -> None:
    round_id = registry.rounds.open(lease, tasks.training, 1, 0)
    race_threads(
        8,
        lambda _: registry.rounds.commit_training(lease, round_id, "s", "c", {}, {}, [b"a", b"b"]),
    )
    found = registry.participations.of(tasks.training, [b"a", b"b"])
    assert [p.count for p in found.values()] == [1, 1]


def test_rounds_that_commit_at_once_with_the_same_devices_all_count(
    registry: Registry, tasks: Tasks, lease: Lease
) -> None:
    devices = [bytes([i]) for i in range(50)]
    rounds = [registry.rounds.open(lease, tasks.evaluation, 1, 0) for _ in range(8)]

    def commit_one(index: int) -> bool:
        order = devices[index:] + devices[:index]
        return registry.rounds.commit_evaluation(lease, rounds[index], {}, {}, order)

    assert all(race_threads(8, commit_one))
    found = registry.participations.of(tasks.evaluation, devices)
    assert {p.count for p in found.values()} == {8}
    assert len(found) == 50


def test_more_devices_are_asked_for_than_a_query_takes_parameters(
    registry: Registry, tasks: Tasks, lease: Lease
) -> None:
    devices = [i.to_bytes(4, "big") for i in range(70_000)]
    assert commit(registry, lease, tasks.training, 0, [devices[0], devices[-1]])
    assert set(registry.participations.of(tasks.training, devices)) == {devices[0], devices[-1]}


def test_no_id_of_a_device_is_stored_and_tasks_cannot_be_joined(
    registry: Registry, tasks: Tasks, lease: Lease, engine: Engine
) -> None:
    device = b"0123456789abcdef"
    assert commit(registry, lease, tasks.training, 0, [device])
    round_id = registry.rounds.open(lease, tasks.evaluation, 1, 1)
    assert registry.rounds.commit_evaluation(lease, round_id, {}, {}, [device])
    with read(engine) as connection:
        stored = connection.scalars(select(participations.c.pseudonym)).all()
    assert len({device, *stored}) == 3


@pytest.mark.parametrize("status", ["completed", "cancelled"])
def test_participations_are_forgotten_with_their_task(
    registry: Registry, tasks: Tasks, lease: Lease, status: str, engine: Engine
) -> None:
    assert commit(registry, lease, tasks.training, 0, [b"a"])
    late = registry.rounds.open(lease, tasks.training, 2, 1)
    assert registry.tasks.set_status(tasks.training, "active", "paused")
    assert registry.participations.of(tasks.training, [b"a"])
    assert registry.tasks.set_status(tasks.training, "paused", "active")
    assert registry.tasks.set_status(tasks.training, "active", status)
    assert registry.rounds.commit_training(lease, late, "s", "c", {}, {}, [b"b"])
    with read(engine) as connection:
        assert connection.execute(select(participations)).all() == []
    registry.participations.forget(tasks.evaluation)
