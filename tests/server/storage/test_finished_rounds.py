"""Whoever watches rounds is told of each that ends, once."""

from sqlalchemy import insert, select

from server.storage.database import open_database
from server.storage.leases import Lease
from server.storage.registry import Registry
from server.storage.schema import rounds
from tests.server.storage.conftest import LEASE, ManualClock, Tasks, create_tasks


def test_each_round_is_told_once_when_it_has_ended(
    registry: Registry, tasks: Tasks, lease: Lease
) -> None:
    before = registry.rounds.open(lease, tasks.training, 1, 0)
    registry.rounds.abandon(lease, before, "too_few_devices", {})
    open_then = registry.rounds.open(lease, tasks.training, 1, 0)
    watch = registry.rounds.finished()
    assert watch.open == 1
    assert watch.take() == []
    registry.rounds.commit_training(lease, open_then, "s", "c", {}, {"accepted": 3})
    evaluation = registry.rounds.open(lease, tasks.evaluation, 1, 1)
    (committed,) = watch.take()
    assert (committed.task_id, committed.computation) == (tasks.training, "training")
    assert (committed.outcome, committed.reason) == ("committed", None)
    assert committed.statistics == {"accepted": 3}
    assert watch.open == 1
    registry.rounds.abandon(lease, evaluation, "cancelled", {"selected": 1})
    (abandoned,) = watch.take()
    assert (abandoned.computation, abandoned.reason) == ("evaluation", "cancelled")
    assert abandoned.statistics == {"selected": 1}
    assert watch.open == 0
    assert watch.take() == []


def test_a_round_that_was_open_for_long_is_told_like_one_that_came_and_went(
    registry: Registry, tasks: Tasks, lease: Lease, clock: ManualClock
) -> None:
    watch = registry.rounds.finished()
    long = registry.rounds.open(lease, tasks.evaluation, 1, 0)
    told = 0
    for number in range(200):
        short = registry.rounds.open(lease, tasks.training, number, 0)
        registry.rounds.abandon(lease, short, "too_few_devices", {})
        if number % 30 == 0:
            told += len(watch.take())
    told += len(watch.take())
    assert told == 200
    clock.now += 10
    successor = registry.leases.acquire(LEASE, "successor", 10)
    assert successor
    assert registry.rounds.abandon_unfinished(successor, "digits/demo") == [long]
    assert [each.reason for each in watch.take()] == ["coordinator_lost"]


def test_a_round_whose_transaction_was_slower_than_the_next_ones_is_told(
    postgresql_url: str,
) -> None:
    engine = open_database(postgresql_url)
    registry = Registry(engine=engine)
    tasks = create_tasks(registry)
    lease = registry.leases.acquire(LEASE, "me", 60)
    assert lease
    first = registry.rounds.open(lease, tasks.training, 1, 0)
    watch = registry.rounds.finished()
    columns = [column for column in rounds.c if column.name not in ("sequence", "round_id")]
    with engine.begin() as slow:
        row = slow.execute(select(*columns).where(rounds.c.round_id == first)).one()
        slow.execute(insert(rounds).values(round_id="slow", **row._mapping))
        quick = registry.rounds.open(lease, tasks.training, 2, 0)
        registry.rounds.abandon(lease, quick, "too_few_devices", {})
        assert len(watch.take()) == 1
    registry.rounds.abandon_unfinished(lease, "digits/demo")
    assert watch.take() == []
    assert watch.open == 2
    engine.dispose()
