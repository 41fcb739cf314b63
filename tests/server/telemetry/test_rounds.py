"""Rounds and leases are shown to Prometheus as the registry has them."""

import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from server.storage.database import open_database
from server.storage.errors import DatabaseUnavailable
from server.storage.leases import Lease
from server.storage.registry import Registry
from server.telemetry.check_ins import OTHERS
from server.telemetry.rounds import MAX_TASKS, RoundMetrics
from server.telemetry.telemetry import Telemetry
from tests.server.storage.conftest import ManualClock, create_tasks
from tests.server.telemetry.scraped import samples, value

STATISTICS: Mapping[str, object] = {
    "selected": 13,
    "accepted": 10,
    "unfinished": 1,
    "dropped": 2,
    "target": 13,
    "ended": {"aborted": 1, "rejected": 1},
    "seconds": {"selecting": 4.0, "reporting": 8.0},
    "closed_by": "goal_reached",
    "abandoned_for": None,
}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def registry(tmp_path: Path, clock: ManualClock) -> Iterator[Registry]:
    engine = open_database(f"sqlite:///{tmp_path}/nightshift.db")
    yield Registry(engine=engine, clock=clock)
    engine.dispose()


def acquired(registry: Registry, population: str = "digits/demo", owner: str = "me") -> Lease:
    lease = registry.leases.acquire(f"coordinator/{population}", owner, 10)
    assert lease
    return lease


def test_rounds_are_counted_by_outcome_and_reason_with_their_devices_and_phases(
    registry: Registry,
) -> None:
    task, lease, telemetry = create_tasks(registry).training, acquired(registry), Telemetry()
    metrics = RoundMetrics(registry, telemetry.metrics)
    first, second, _ = (registry.rounds.open(lease, task, number, 0) for number in (1, 2, 3))
    registry.rounds.commit_training(lease, first, "state", "checkpoint", {}, STATISTICS)
    registry.rounds.abandon(lease, second, "too_few_devices", {})
    for _ in range(3):
        metrics.read()
    name = "nightshift_rounds_total"
    assert value(telemetry, name, task=task, outcome="committed", reason="") == 1
    assert value(telemetry, name, task=task, outcome="abandoned", reason="too_few_devices") == 1
    assert value(telemetry, "nightshift_rounds_open") == 1
    for fate, count in (("selected", 13), ("accepted", 10), ("aborted", 1), ("dropped", 2)):
        assert value(telemetry, "nightshift_round_devices_total", task=task, fate=fate) == count
    assert value(telemetry, "nightshift_round_target_devices", task=task) == 13
    assert value(telemetry, "nightshift_round_drop_out_ratio", task=task) == pytest.approx(2 / 13)
    phase = {"computation": "training", "phase": "reporting"}
    assert value(telemetry, "nightshift_round_phase_seconds_sum", **phase) == 8
    assert value(telemetry, "nightshift_round_phase_seconds_count", **phase) == 1


def test_leases_are_shown_whoever_holds_them(registry: Registry, clock: ManualClock) -> None:
    telemetry = Telemetry()
    metrics = RoundMetrics(registry, telemetry.metrics)
    acquired(registry, "p")
    acquired(registry, "q")
    clock.now += 10
    registry.leases.release(acquired(registry, "r"))
    acquired(registry, "q", owner="you")
    metrics.read()
    for population, epoch, held in (("p", 1, 0), ("q", 2, 1), ("r", 1, 0)):
        assert value(telemetry, "nightshift_lease_epoch", population=population) == epoch
        assert value(telemetry, "nightshift_lease_held", population=population) == held


def test_without_a_database_no_lease_is_called_held_and_no_round_is_missed(
    registry: Registry, tmp_path: Path
) -> None:
    task, lease, telemetry = create_tasks(registry).training, acquired(registry), Telemetry()
    metrics = RoundMetrics(registry, telemetry.metrics)
    metrics.read()
    assert value(telemetry, "nightshift_database_up") == 1
    assert value(telemetry, "nightshift_lease_held", population="digits/demo") == 1
    registry.rounds.abandon(lease, registry.rounds.open(lease, task, 1, 0), "cancelled", {})
    with sqlite3.connect(tmp_path / "nightshift.db") as database:
        database.execute("ALTER TABLE leases RENAME TO away")
        database.execute("ALTER TABLE rounds RENAME TO not_there")
    with pytest.raises(DatabaseUnavailable):
        metrics.read()
    assert value(telemetry, "nightshift_database_up") == 0
    assert value(telemetry, "nightshift_lease_held", population="digits/demo") == 0
    assert value(telemetry, "nightshift_lease_epoch", population="digits/demo") == 1
    with sqlite3.connect(tmp_path / "nightshift.db") as database:
        database.execute("ALTER TABLE away RENAME TO leases")
        database.execute("ALTER TABLE not_there RENAME TO rounds")
    metrics.read()
    cancelled = {"task": task, "outcome": "abandoned", "reason": "cancelled"}
    assert value(telemetry, "nightshift_rounds_total", **cancelled) == 1
    assert value(telemetry, "nightshift_lease_held", population="digits/demo") == 1


def test_tasks_beyond_the_bound_are_counted_together(registry: Registry) -> None:
    first, lease, telemetry = create_tasks(registry).training, acquired(registry), Telemetry()
    plan = registry.tasks.get(first).plan_digest
    metrics = RoundMetrics(registry, telemetry.metrics)
    for number in range(MAX_TASKS + 20):
        task = registry.tasks.create(
            population="digits/demo",
            name=f"task {number}",
            computation="evaluation",
            plan_digest=plan,
            cohort={},
            evaluates=first,
            every_rounds=1,
        )
        registry.rounds.abandon(lease, registry.rounds.open(lease, task, 1, 0), "cancelled", {})
    metrics.read()
    name, labels = "nightshift_rounds_total", {"outcome": "abandoned", "reason": "cancelled"}
    assert len(samples(telemetry)[name]) == MAX_TASKS + 1
    assert value(telemetry, name, task=OTHERS, **labels) == 20
