"""A lease has one holder at a time, and everyone can tell who came later."""

import pytest
from sqlalchemy import Engine

from server.storage.database import open_database, write
from server.storage.leases import Fenced, Lease, Leases, LeaseState, check_fence
from tests.server.storage.conftest import ManualClock
from tests.server.storage.racing import race_processes, race_threads


@pytest.fixture
def leases(engine: Engine, clock: ManualClock) -> Leases:
    return Leases(engine=engine, clock=clock)


def is_held(engine: Engine, lease: Lease) -> bool:
    try:
        with write(engine) as connection:
            check_fence(connection, lease)
    except Fenced:
        return False
    return True


def test_a_held_lease_is_refused_to_others(leases: Leases) -> None:
    assert leases.acquire("a", "first", 10) == Lease("a", "first", 1)
    assert leases.acquire("a", "second", 10) is None


def test_names_are_independent(leases: Leases) -> None:
    assert leases.acquire("a", "first", 10)
    assert leases.acquire("b", "second", 10) == Lease("b", "second", 1)


def test_an_expired_lease_is_taken_over_with_a_higher_epoch(
    leases: Leases, clock: ManualClock, engine: Engine
) -> None:
    stale = leases.acquire("a", "first", 10)
    assert stale
    clock.now += 10
    assert leases.acquire("a", "second", 10) == Lease("a", "second", 2)
    assert not leases.renew(stale, 10)
    assert not is_held(engine, stale)


def test_renewal_keeps_the_epoch_and_defers_the_expiry(leases: Leases, clock: ManualClock) -> None:
    lease = leases.acquire("a", "first", 10)
    assert lease
    for _ in range(3):
        clock.now += 9
        assert leases.renew(lease, 10)
        assert leases.acquire("a", "second", 10) is None


def test_an_expired_lease_without_a_successor_can_be_renewed(
    leases: Leases, clock: ManualClock, engine: Engine
) -> None:
    lease = leases.acquire("a", "first", 10)
    assert lease
    clock.now += 100
    assert is_held(engine, lease)
    assert leases.renew(lease, 10)
    assert leases.acquire("a", "second", 10) is None


def test_acquiring_again_fences_the_same_owners_earlier_acquisition(
    leases: Leases, engine: Engine
) -> None:
    earlier = leases.acquire("a", "me", 10)
    later = leases.acquire("a", "me", 10)
    assert earlier
    assert later == Lease("a", "me", 2)
    assert not is_held(engine, earlier)
    assert is_held(engine, later)


def test_a_released_lease_is_free_at_once_and_keeps_its_epoch(
    leases: Leases, engine: Engine
) -> None:
    lease = leases.acquire("a", "first", 1000)
    assert lease
    leases.release(lease)
    assert not is_held(engine, lease)
    assert not leases.renew(lease, 10)
    assert leases.acquire("a", "second", 10) == Lease("a", "second", 2)


def test_releasing_a_lost_lease_does_not_disturb_its_holder(
    leases: Leases, clock: ManualClock, engine: Engine
) -> None:
    stale = leases.acquire("a", "first", 10)
    clock.now += 10
    lease = leases.acquire("a", "second", 10)
    assert stale
    assert lease
    leases.release(stale)
    assert is_held(engine, lease)


@pytest.mark.parametrize(("owner", "ttl_s"), [("", 10.0), ("me", 0.0), ("me", float("nan"))])
def test_a_lease_needs_an_owner_and_a_time(leases: Leases, owner: str, ttl_s: float) -> None:
    with pytest.raises(ValueError, match="a lease"):
        leases.acquire("a", owner, ttl_s)


def test_leases_expire_by_the_databases_own_clock_where_it_has_one(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_database(postgresql_url)
    leases = Leases(engine=engine)
    lease = leases.acquire("a", "first", 60)
    assert lease
    monkeypatch.setattr("time.time", lambda: 1e10)
    elsewhere = Leases(engine=engine)
    assert elsewhere.acquire("a", "second", 60) is None
    assert leases.renew(lease, 1e-9)
    assert elsewhere.acquire("a", "second", 60) == Lease("a", "second", 2)
    engine.dispose()


def test_everyone_can_see_who_holds_a_lease(leases: Leases, clock: ManualClock) -> None:
    assert leases.holder("a") is None
    lease = leases.acquire("a", "me", 10)
    assert lease
    assert leases.holder("a") == LeaseState("me", 1, expired=False)
    clock.now += 10
    assert leases.holder("a") == LeaseState("me", 1, expired=True)
    assert leases.renew(lease, 10)
    assert leases.holder("a") == LeaseState("me", 1, expired=False)
    leases.release(lease)
    assert leases.holder("a") == LeaseState("", 1, expired=True)
    leases.acquire("a", "you", 10)
    assert leases.holder("a") == LeaseState("you", 2, expired=False)


def test_of_20_racing_threads_one_gets_the_lease(leases: Leases, clock: ManualClock) -> None:
    for epoch in range(1, 6):
        won = race_threads(20, lambda i: leases.acquire("a", f"owner {i}", 10))
        assert [lease.epoch for lease in won if lease] == [epoch]
        clock.now += 10


def test_of_8_racing_processes_one_gets_the_lease(url: str) -> None:
    open_database(url).dispose()
    won = race_processes(
        8, lambda i: Leases(engine=open_database(url)).acquire("a", f"process {i}", 60)
    )
    assert [lease.epoch for lease in won if lease] == [1]


def test_of_8_racing_processes_one_takes_an_expired_lease_over(url: str) -> None:
    engine = open_database(url)
    Leases(engine=engine, clock=lambda: 0.0).acquire("a", "dead", 60)
    engine.dispose()
    won = race_processes(
        8, lambda i: Leases(engine=open_database(url)).acquire("a", f"process {i}", 60)
    )
    assert [lease.epoch for lease in won if lease] == [2]


def test_a_lease_from_before_the_clock_was_set_back_keeps_nobody_waiting(
    leases: Leases, clock: ManualClock, engine: Engine
) -> None:
    stale = leases.acquire("a", "first", 10)
    assert stale
    clock.now -= 3600
    assert leases.acquire("a", "second", 10) == Lease("a", "second", 2)
    assert not is_held(engine, stale)
