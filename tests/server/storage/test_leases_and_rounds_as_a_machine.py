"""Any sequence of lease and round operations gives what a model in memory says."""

from dataclasses import dataclass
from itertools import count

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Engine

from server.storage.leases import Fenced, Lease
from server.storage.registry import Registry
from tests.server.storage.conftest import ManualClock, create_tasks

CLOCK = ManualClock()
NUMBERS = count()
TTL_S = 10.0


@dataclass
class Expected:
    """A round in the model."""

    task_id: str
    base: int | None
    epoch: int
    outcome: str = "open"
    events: int = 1


class LeasesAndRounds(RuleBasedStateMachine):
    leases = Bundle("leases")
    rounds = Bundle("rounds")

    def __init__(self, registry: Registry) -> None:
        super().__init__()
        self.registry = registry
        self.population = f"population/{next(NUMBERS)}"
        self.tasks = create_tasks(self.registry, self.population)
        self.holder: Lease | None = None
        self.epoch = 0
        self.expires = 0.0
        self.head = 0
        self.expected: dict[str, Expected] = {}

    @rule(target=leases, owner=st.sampled_from("ABC"))
    def acquire(self, owner: str) -> object:
        lease = self.registry.leases.acquire(self.population, owner, TTL_S)
        free = self.holder is None or self.expires <= CLOCK.now or self.holder.owner == owner
        assert (lease is not None) == free
        if lease is None:
            return multiple()
        self.epoch += 1
        self.expires = CLOCK.now + TTL_S
        self.holder = Lease(self.population, owner, self.epoch)
        assert lease == self.holder
        return lease

    @rule(lease=leases)
    def renew(self, lease: Lease) -> None:
        held = lease == self.holder
        assert self.registry.leases.renew(lease, TTL_S) == held
        if held:
            self.expires = CLOCK.now + TTL_S

    @rule(lease=leases)
    def release(self, lease: Lease) -> None:
        self.registry.leases.release(lease)
        if lease == self.holder:
            self.holder = None

    @rule(seconds=st.sampled_from([1.0, 9.0, 10.0]))
    def wait(self, seconds: float) -> None:
        CLOCK.now += seconds

    @rule(target=rounds, lease=leases, behind=st.integers(0, 1), evaluation=st.booleans())
    def open(self, lease: Lease, behind: int, evaluation: bool) -> object:
        base = max(0, self.head - behind)
        task_id = self.tasks.evaluation if evaluation else self.tasks.training
        if lease != self.holder:
            with pytest.raises(Fenced):
                self.registry.rounds.open(lease, task_id, base + 1, base)
            return multiple()
        round_id = self.registry.rounds.open(lease, task_id, base + 1, base)
        assert round_id not in self.expected
        self.expected[round_id] = Expected(task_id, base, lease.epoch)
        return round_id

    @rule(target=rounds, lease=leases)
    def open_ahead(self, lease: Lease) -> object:
        task_id = self.tasks.training
        if lease != self.holder:
            with pytest.raises(Fenced):
                self.registry.rounds.open(lease, task_id, 1, None)
            return multiple()
        round_id = self.registry.rounds.open(lease, task_id, 1, None)
        assert round_id not in self.expected
        self.expected[round_id] = Expected(task_id, None, lease.epoch)
        return round_id

    @rule(lease=leases, round_id=rounds)
    def release_round(self, lease: Lease, round_id: str) -> None:
        expected = self.expected[round_id]
        if lease != self.holder:
            with pytest.raises(Fenced):
                self.registry.rounds.release(lease, round_id, 1, self.head)
            return
        waits = (expected.outcome, expected.base) == ("open", None)
        fits = waits and expected.epoch == lease.epoch
        assert self.registry.rounds.release(lease, round_id, self.head + 1, self.head) == fits
        if fits:
            expected.base = self.head
            expected.events += 1

    @rule(lease=leases, round_id=rounds)
    def commit(self, lease: Lease, round_id: str) -> None:
        expected = self.expected[round_id]
        trains = expected.task_id == self.tasks.training
        rounds = self.registry.rounds

        def run() -> bool:
            if trains:
                return rounds.commit_training(lease, round_id, "s", round_id, {}, {})
            return rounds.commit_evaluation(lease, round_id, {}, {})

        if lease != self.holder:
            with pytest.raises(Fenced):
                run()
            return
        fits = expected.outcome == "open" and expected.epoch == lease.epoch
        if trains:
            fits = fits and expected.base == self.head
        assert run() == fits
        if fits:
            expected.outcome = "committed"
            expected.events += 1
            self.head += trains

    @rule(lease=leases, round_id=rounds)
    def abandon(self, lease: Lease, round_id: str) -> None:
        expected = self.expected[round_id]
        if lease != self.holder:
            with pytest.raises(Fenced):
                self.registry.rounds.abandon(lease, round_id, "why", {})
            return
        was_open = expected.outcome == "open"
        assert self.registry.rounds.abandon(lease, round_id, "why", {}) == was_open
        if was_open:
            expected.outcome = "abandoned"
            expected.events += 1

    @rule(lease=leases)
    def abandon_unfinished(self, lease: Lease) -> None:
        if lease != self.holder:
            with pytest.raises(Fenced):
                self.registry.rounds.abandon_unfinished(lease, self.population)
            return
        left = [
            round_id
            for round_id, expected in self.expected.items()
            if expected.outcome == "open" and expected.epoch != lease.epoch
        ]
        assert list(self.registry.rounds.abandon_unfinished(lease, self.population)) == left
        for round_id in left:
            self.expected[round_id].outcome = "abandoned"
            self.expected[round_id].events += 1

    @invariant()
    def the_registry_says_what_the_model_says(self) -> None:
        stored = {
            record.round_id: record
            for task_id in vars(self.tasks).values()
            for record in self.registry.rounds.list(task_id)
        }
        assert {r: (s.outcome, s.base_model_round) for r, s in stored.items()} == {
            r: (e.outcome, e.base) for r, e in self.expected.items()
        }
        models = self.registry.models.list(self.tasks.training)
        assert [model.round for model in models] == list(range(self.head + 1))
        assert self.registry.models.head(self.tasks.training) == models[-1]
        for model in models[1:]:
            assert model.round_id == model.checkpoint_sha256
            assert stored[model.round_id].base_model_round == model.round - 1
        for round_id, expected in self.expected.items():
            history = self.registry.rounds.history(round_id)
            assert len(history) == expected.events
            assert history[0].event == "opened"


def test_leases_and_rounds_do_what_their_model_does(engine: Engine) -> None:
    # One database for all examples: each has a population and a lease of its own.
    registry = Registry(engine=engine, clock=CLOCK)
    examples = settings.default.max_examples
    # A statement takes ten times as long there.
    if engine.dialect.name == "postgresql":
        examples //= 10
    run_state_machine_as_test(
        lambda: LeasesAndRounds(registry),
        settings=settings(stateful_step_count=30, max_examples=examples),
    )
