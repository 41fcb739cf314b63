"""Rounds end once, and only by the hand of the lease's holder."""

import os
import signal
import subprocess
import sys

import pytest
from sqlalchemy import Engine, text

from server.storage.database import open_database
from server.storage.errors import UnknownModel, UnknownRound, UnknownTask
from server.storage.leases import Fenced, Lease
from server.storage.registry import Registry
from server.storage.rounds import COORDINATOR_LOST
from tests.server.storage.conftest import LEASE, ManualClock, Tasks, create_tasks
from tests.server.storage.racing import race_processes, race_threads


def take_over(registry: Registry, clock: ManualClock) -> Lease:
    clock.now += 10
    lease = registry.leases.acquire(LEASE, "successor", 10)
    assert lease
    return lease


def commit(registry: Registry, lease: Lease, round_id: str) -> bool:
    return registry.rounds.commit_training(
        lease, round_id, "state", "checkpoint", {"loss": 0.5}, {"accepted": 3}
    )


def test_a_training_commit_moves_the_head_and_records_everything(
    registry: Registry, tasks: Tasks, lease: Lease, clock: ManualClock
) -> None:
    round_id = registry.rounds.open(lease, tasks.training, 1, 0)
    clock.now += 5
    assert commit(registry, lease, round_id)
    head = registry.models.head(tasks.training)
    assert (head.round, head.round_id, head.created_at) == (1, round_id, 1005.0)
    assert (head.state_sha256, head.checkpoint_sha256) == ("state", "checkpoint")
    assert head.metrics == {"loss": 0.5}
    record = registry.rounds.get(round_id)
    assert (record.outcome, record.number, record.base_model_round) == ("committed", 1, 0)
    assert (record.statistics, record.metrics) == ({"accepted": 3}, {"loss": 0.5})
    assert (record.opened_at, record.ended_at) == (1000.0, 1005.0)
    assert [(e.event, e.at, e.lease_owner) for e in registry.rounds.history(round_id)] == [
        ("opened", 1000.0, "me"),
        ("committed", 1005.0, "me"),
    ]


def test_an_evaluation_commit_moves_no_head(registry: Registry, tasks: Tasks, lease: Lease) -> None:
    assert registry.rounds.last_committed(tasks.evaluation) is None
    round_id = registry.rounds.open(lease, tasks.evaluation, 1, 0)
    assert registry.rounds.commit_evaluation(lease, round_id, {"accuracy": 0.9}, {})
    assert registry.models.head(tasks.training).round == 0
    last = registry.rounds.last_committed(tasks.evaluation)
    assert last
    assert (last.round_id, last.base_model_round) == (round_id, 0)
    assert last.metrics == {"accuracy": 0.9}


def test_a_round_is_committed_at_most_once(registry: Registry, tasks: Tasks, lease: Lease) -> None:
    round_id = registry.rounds.open(lease, tasks.training, 1, 0)
    assert sum(race_threads(8, lambda _: commit(registry, lease, round_id))) == 1
    assert not registry.rounds.abandon(lease, round_id, "late", {})
    assert len(registry.models.list(tasks.training)) == 2
    assert len(registry.rounds.history(round_id)) == 2
    evaluation = registry.rounds.open(lease, tasks.evaluation, 1, 1)
    assert registry.rounds.commit_evaluation(lease, evaluation, {}, {})
    assert not registry.rounds.commit_evaluation(lease, evaluation, {"accuracy": 1.0}, {})
    assert registry.rounds.get(evaluation).metrics == {}


def test_of_two_rounds_with_the_same_base_one_commits(
    registry: Registry, tasks: Tasks, lease: Lease
) -> None:
    first, second = (registry.rounds.open(lease, tasks.training, 1, 0) for _ in range(2))
    assert first != second
    assert commit(registry, lease, second)
    assert not commit(registry, lease, first)
    assert registry.rounds.get(first).outcome == "open"
    assert registry.rounds.abandon(lease, first, "head moved", {"accepted": 3})
    assert registry.models.head(tasks.training).round_id == second


def test_an_abandoned_round_changes_no_model(
    registry: Registry, tasks: Tasks, lease: Lease
) -> None:
    round_id = registry.rounds.open(lease, tasks.training, 1, 0)
    assert registry.rounds.abandon(lease, round_id, "too_few_updates", {"accepted": 1})
    assert not commit(registry, lease, round_id)
    assert not registry.rounds.abandon(lease, round_id, "again", {})
    assert registry.models.head(tasks.training).round == 0
    record = registry.rounds.get(round_id)
    assert (record.outcome, record.reason) == ("abandoned", "too_few_updates")
    assert record.statistics == {"accepted": 1}


def test_a_stale_holder_can_write_nothing(
    registry: Registry, tasks: Tasks, lease: Lease, clock: ManualClock
) -> None:
    training = registry.rounds.open(lease, tasks.training, 1, 0)
    evaluation = registry.rounds.open(lease, tasks.evaluation, 1, 0)
    successor = take_over(registry, clock)
    assert not registry.leases.renew(lease, 10)
    for write in (
        lambda: registry.rounds.open(lease, tasks.training, 2, 0),
        lambda: registry.rounds.release(lease, training, 2, 0),
        lambda: commit(registry, lease, training),
        lambda: registry.rounds.commit_evaluation(lease, evaluation, {}, {}),
        lambda: registry.rounds.abandon(lease, training, "", {}),
        lambda: registry.rounds.abandon_unfinished(lease, "digits/demo"),
    ):
        with pytest.raises(Fenced, match="me lost the lease"):
            write()
    assert registry.models.head(tasks.training).round == 0
    assert [r.outcome for r in registry.rounds.list(tasks.training)] == ["open"]
    assert len(registry.rounds.history(training)) == 1
    assert registry.rounds.open(successor, tasks.training, 2, 0)


def test_a_successor_abandons_what_was_left_open_and_cannot_commit_it(
    registry: Registry, tasks: Tasks, lease: Lease, clock: ManualClock
) -> None:
    committed = registry.rounds.open(lease, tasks.training, 1, 0)
    assert commit(registry, lease, committed)
    left = registry.rounds.open(lease, tasks.training, 2, 1)
    also_left = registry.rounds.open(lease, tasks.evaluation, 1, 1)
    successor = take_over(registry, clock)
    own = registry.rounds.open(successor, tasks.training, 2, 1)
    assert not commit(registry, successor, left)
    assert list(registry.rounds.abandon_unfinished(successor, "digits/demo")) == [left, also_left]
    assert list(registry.rounds.abandon_unfinished(successor, "digits/demo")) == []
    record = registry.rounds.get(left)
    assert (record.outcome, record.reason) == ("abandoned", COORDINATOR_LOST)
    assert [(e.event, e.lease_epoch) for e in registry.rounds.history(left)] == [
        ("opened", 1),
        ("abandoned", 2),
    ]
    assert commit(registry, successor, own)


def test_only_the_own_populations_rounds_are_abandoned(
    registry: Registry, tasks: Tasks, lease: Lease
) -> None:
    other = create_tasks(registry, "other/population")
    other_lease = registry.leases.acquire("coordinator/other/population", "me", 10)
    assert other_lease
    theirs = registry.rounds.open(other_lease, other.training, 1, 0)
    ours = registry.rounds.open(lease, tasks.training, 1, 0)
    again = registry.leases.acquire(LEASE, "me", 10)
    assert again
    assert list(registry.rounds.abandon_unfinished(again, "digits/demo")) == [ours]
    assert registry.rounds.get(theirs).outcome == "open"


def test_a_commit_with_a_metric_that_is_not_a_number_changes_nothing(
    registry: Registry, tasks: Tasks, lease: Lease
) -> None:
    round_id = registry.rounds.open(lease, tasks.training, 1, 0)
    with pytest.raises(ValueError, match="metrics cannot be kept as JSON"):
        registry.rounds.commit_training(lease, round_id, "s", "c", {"loss": float("nan")}, {})
    assert registry.rounds.get(round_id).outcome == "open"
    assert commit(registry, lease, round_id)


def test_what_does_not_exist_or_fit_is_refused(
    registry: Registry, tasks: Tasks, lease: Lease
) -> None:
    with pytest.raises(UnknownTask):
        registry.rounds.open(lease, "nothing", 1, 0)
    for task_id in (tasks.training, tasks.evaluation):
        with pytest.raises(UnknownModel):
            registry.rounds.open(lease, task_id, 1, 1)
    for use in (registry.rounds.get, lambda r: registry.rounds.abandon(lease, r, "", {})):
        with pytest.raises(UnknownRound, match="nothing"):
            use("nothing")
    evaluation = registry.rounds.open(lease, tasks.evaluation, 1, 0)
    with pytest.raises(ValueError, match="evaluation"):
        commit(registry, lease, evaluation)
    training = registry.rounds.open(lease, tasks.training, 1, 0)
    with pytest.raises(ValueError, match="training"):
        registry.rounds.commit_evaluation(lease, training, {}, {})


def test_a_round_opened_ahead_waits_for_its_model(
    registry: Registry, tasks: Tasks, lease: Lease, clock: ManualClock
) -> None:
    first = registry.rounds.open(lease, tasks.training, 1, 0)
    ahead = registry.rounds.open(lease, tasks.training, 2, None)
    assert registry.rounds.get(ahead).base_model_round is None
    assert not commit(registry, lease, ahead)
    with pytest.raises(UnknownModel):
        registry.rounds.release(lease, ahead, 2, 1)
    assert commit(registry, lease, first)
    clock.now += 5
    assert registry.rounds.release(lease, ahead, 3, 1)
    record = registry.rounds.get(ahead)
    assert (record.base_model_round, record.number, record.outcome) == (1, 3, "open")
    assert [(e.event, e.at, e.detail) for e in registry.rounds.history(ahead)] == [
        ("opened", 1000.0, {"number": 2, "base_model_round": None}),
        ("released", 1005.0, {"number": 3, "base_model_round": 1}),
    ]
    assert commit(registry, lease, ahead)
    assert registry.models.head(tasks.training).round == 2


def test_a_round_is_released_once_and_only_by_its_own_coordinator(
    registry: Registry, tasks: Tasks, lease: Lease, clock: ManualClock
) -> None:
    ahead, ended, left = (registry.rounds.open(lease, tasks.training, 1, None) for _ in range(3))
    won = race_threads(8, lambda i: registry.rounds.release(lease, ahead, i, 0))
    assert sum(won) == 1
    assert registry.rounds.get(ahead).number == won.index(True)
    assert len(registry.rounds.history(ahead)) == 2
    assert registry.rounds.abandon(lease, ended, "task_paused", {})
    assert not registry.rounds.release(lease, ended, 1, 0)
    with pytest.raises(UnknownRound, match="nothing"):
        registry.rounds.release(lease, "nothing", 1, 0)
    successor = take_over(registry, clock)
    assert not registry.rounds.release(successor, left, 1, 0)
    with pytest.raises(Fenced):
        registry.rounds.release(lease, left, 1, 0)


def test_an_evaluation_is_not_opened_ahead_of_its_model(
    registry: Registry, tasks: Tasks, lease: Lease
) -> None:
    with pytest.raises(ValueError, match="needs the model"):
        registry.rounds.open(lease, tasks.evaluation, 1, None)


def test_of_racing_processes_that_all_think_they_coordinate_one_commits(url: str) -> None:
    engine = open_database(url)
    registry = Registry(engine=engine, clock=lambda: 0.0)
    tasks = create_tasks(registry)
    stale = [registry.leases.acquire(LEASE, "me", 10) for _ in range(10)]
    round_ids = [registry.rounds.open(lease, tasks.training, 1, 0) for lease in stale[-1:] if lease]
    engine.dispose()

    def try_to_commit(index: int) -> bool:
        lease = stale[index]
        assert lease
        try:
            return commit(Registry(engine=open_database(url)), lease, round_ids[0])
        except Fenced:
            return False

    assert race_processes(10, try_to_commit) == [False] * 9 + [True]


def test_a_coordinator_killed_at_any_moment_leaves_a_consistent_registry(
    url: str, engine: Engine, registry: Registry, tasks: Tasks
) -> None:
    program = (
        "import sys\n"
        "from server.storage.database import open_database\n"
        "from server.storage.registry import Registry\n"
        "r = Registry(engine=open_database(sys.argv[1]))\n"
        "lease = r.leases.acquire(sys.argv[3], 'killed', 1e9)\n"
        "while True:\n"
        "    base = r.models.head(sys.argv[2]).round\n"
        "    id = r.rounds.open(lease, sys.argv[2], base + 1, base)\n"
        "    assert r.rounds.commit_training(lease, id, 's', 'c', {}, {})\n"
        "    print(base + 1, flush=True)\n"
    )
    coordinator = subprocess.Popen(
        [sys.executable, "-c", program, url, tasks.training, LEASE], stdout=subprocess.PIPE
    )
    assert coordinator.stdout is not None
    with coordinator.stdout as announced:
        announced.readline()
        announced.readline()
        os.kill(coordinator.pid, signal.SIGKILL)
        coordinator.wait()
        last = int((announced.read().split() or [b"2"])[-1])
    head = registry.models.head(tasks.training).round
    assert head in (last, last + 1)
    assert [m.round for m in registry.models.list(tasks.training)] == list(range(head + 1))
    rounds = registry.rounds.list(tasks.training)
    committed = [r for r in rounds if r.outcome == "committed"]
    assert [r.base_model_round for r in committed] == list(range(head))
    assert len(rounds) - len(committed) <= 1
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            assert connection.execute(text("PRAGMA integrity_check")).scalar() == "ok"
