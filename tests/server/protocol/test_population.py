"""The coordinator's decisions."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_plan.cohort import CohortPolicy
from server.protocol.population import (
    CancelRound,
    CompleteTask,
    Effect,
    Event,
    Population,
    ReleaseRound,
    RoundEnded,
    RoundReporting,
    StartRound,
    TaskChanged,
    TaskRemoved,
    TaskView,
    Tick,
    WakeAt,
)

COHORT = CohortPolicy(goal_count=10)
TRAINING = TaskView(
    task_id="train", computation="training", status="active", rounds_target=5, cohort=COHORT
)
EVALUATION = TaskView(
    task_id="eval",
    computation="evaluation",
    status="active",
    rounds_target=0,
    cohort=COHORT,
    evaluates="train",
    every_rounds=2,
)


def population(*tasks: TaskView) -> Population:
    """Its tasks known at time 0, and the rounds that start named r1, r2, …"""
    decisions = Population(name="digits/demo", retry_s=1.0, max_retry_s=8.0)
    number = 0
    for task in tasks:
        for effect in decisions.handle(TaskChanged(task), 0.0):
            if isinstance(effect, StartRound):
                number += 1
                decisions.round_started(effect.task_id, f"r{number}")
    return decisions


def test_a_training_task_starts_its_first_round_from_the_initial_model() -> None:
    decisions = Population(name="digits/demo")
    effects = decisions.handle(TaskChanged(TRAINING), 0.0)
    assert effects == [StartRound("train", number=1, cohort=COHORT, base_round=0)]


def test_a_task_has_at_most_one_round() -> None:
    decisions = population(TRAINING)
    assert decisions.handle(TaskChanged(TRAINING), 1.0) == []
    assert decisions.handle(Tick(), 2.0) == []
    assert decisions.open_round("train") == "r1"


def test_the_next_round_starts_from_the_model_that_was_committed() -> None:
    decisions = population(TRAINING)
    effects = decisions.handle(RoundEnded("train", "r1", committed=True, head_round=1), 5.0)
    assert effects == [StartRound("train", number=2, cohort=COHORT, base_round=1)]


def test_a_training_task_is_complete_at_its_target() -> None:
    decisions = population(replace(TRAINING, head_round=4))
    effects = decisions.handle(RoundEnded("train", "r1", committed=True, head_round=5), 5.0)
    assert effects == [CompleteTask("train")]
    assert decisions.handle(Tick(), 6.0) == []


def test_an_abandoned_round_is_tried_again_after_a_growing_and_bounded_wait() -> None:
    decisions = population(TRAINING)
    now, waits = 0.0, []
    for number in range(6):
        name = "r1" if number == 0 else f"again-{number}"
        [wake] = decisions.handle(RoundEnded("train", name, committed=False), now)
        assert isinstance(wake, WakeAt)
        waits.append(wake.at - now)
        assert decisions.handle(Tick(), wake.at - 0.01) == [wake]
        now = wake.at
        [start] = decisions.handle(Tick(), now)
        assert start == StartRound("train", number=1, cohort=COHORT, base_round=0)
        decisions.round_started("train", f"again-{number + 1}")
    assert waits == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


def test_a_commit_forgets_earlier_abandonments() -> None:
    decisions = population(TRAINING)
    decisions.handle(RoundEnded("train", "r1", committed=False), 0.0)
    decisions.handle(Tick(), 1.0)
    decisions.round_started("train", "r2")
    decisions.handle(RoundEnded("train", "r2", committed=True, head_round=1), 2.0)
    decisions.round_started("train", "r3")
    effects = decisions.handle(RoundEnded("train", "r3", committed=False), 3.0)
    assert effects == [WakeAt(4.0)]


def test_training_and_evaluation_run_side_by_side_and_the_initial_model_is_the_baseline() -> None:
    decisions = Population(name="digits/demo")
    decisions.handle(TaskChanged(TRAINING), 0.0)
    effects = decisions.handle(TaskChanged(EVALUATION), 0.0)
    assert effects == [StartRound("eval", number=0, cohort=COHORT, base_round=0)]


def test_tasks_may_be_told_in_any_order() -> None:
    decisions = Population(name="digits/demo")
    assert decisions.handle(TaskChanged(EVALUATION), 0.0) == []
    effects = decisions.handle(TaskChanged(TRAINING), 0.0)
    assert [effect.task_id for effect in effects if isinstance(effect, StartRound)] == [
        "train",
        "eval",
    ]


def test_an_evaluation_that_fell_behind_skips_to_the_newest_that_is_due() -> None:
    decisions = population(TRAINING, EVALUATION)
    decisions.handle(TaskChanged(replace(TRAINING, head_round=3)), 1.0)
    effects = decisions.handle(RoundEnded("eval", "r2", committed=True), 2.0)
    assert effects == [StartRound("eval", number=2, cohort=COHORT, base_round=2)]


def test_no_evaluation_starts_between_the_rounds_that_are_due() -> None:
    evaluation = replace(EVALUATION, last_evaluated_round=2)
    decisions = population(replace(TRAINING, head_round=2), evaluation)
    effects = decisions.handle(RoundEnded("train", "r1", committed=True, head_round=3), 1.0)
    assert [effect.task_id for effect in effects if isinstance(effect, StartRound)] == ["train"]


def test_the_last_model_is_evaluated_even_if_it_is_not_a_multiple() -> None:
    evaluation = replace(EVALUATION, last_evaluated_round=4)
    decisions = population(replace(TRAINING, head_round=4), evaluation)
    effects = decisions.handle(RoundEnded("train", "r1", committed=True, head_round=5), 1.0)
    assert effects == [
        CompleteTask("train"),
        StartRound("eval", number=5, cohort=COHORT, base_round=5),
    ]
    decisions.round_started("eval", "last")
    assert decisions.handle(RoundEnded("eval", "last", committed=True), 2.0) == [
        CompleteTask("eval")
    ]


def test_a_paused_task_finishes_its_round_and_starts_no_other_until_resumed() -> None:
    decisions = population(TRAINING)
    paused = replace(TRAINING, status="paused")
    assert decisions.handle(TaskChanged(paused), 1.0) == []
    assert decisions.handle(RoundEnded("train", "r1", committed=True, head_round=1), 2.0) == []
    effects = decisions.handle(TaskChanged(TRAINING), 3.0)
    assert effects == [StartRound("train", number=2, cohort=COHORT, base_round=1)]


def test_a_cancelled_task_has_its_round_cancelled_once() -> None:
    decisions = population(TRAINING)
    cancelled = TaskChanged(replace(TRAINING, status="cancelled"))
    assert decisions.handle(cancelled, 1.0) == [CancelRound("train", "r1")]
    assert decisions.handle(cancelled, 1.0) == []
    assert decisions.handle(RoundEnded("train", "r1", committed=False), 2.0) == []


def test_a_round_that_is_being_opened_while_its_task_is_cancelled_is_cancelled_when_named() -> None:
    decisions = Population(name="digits/demo")
    decisions.handle(TaskChanged(TRAINING), 0.0)
    assert decisions.handle(TaskChanged(replace(TRAINING, status="cancelled")), 1.0) == []
    assert decisions.round_started("train", "r1") == [CancelRound("train", "r1")]


def test_the_evaluation_of_a_cancelled_training_is_over() -> None:
    decisions = population(TRAINING, EVALUATION)
    decisions.handle(RoundEnded("eval", "r2", committed=True), 1.0)
    effects = decisions.handle(TaskChanged(replace(TRAINING, status="cancelled")), 2.0)
    assert effects == [CancelRound("train", "r1"), CompleteTask("eval")]


def test_a_removed_task_is_forgotten_after_its_round() -> None:
    decisions = population(TRAINING)
    assert decisions.handle(TaskRemoved("train"), 1.0) == [CancelRound("train", "r1")]
    assert decisions.handle(RoundEnded("train", "r1", committed=False), 2.0) == []
    assert decisions.handle(TaskChanged(TRAINING), 3.0) == [
        StartRound("train", number=1, cohort=COHORT, base_round=0)
    ]


def test_a_round_reported_ended_twice_does_not_end_its_successor() -> None:
    decisions = population(TRAINING)
    ended = RoundEnded("train", "r1", committed=True, head_round=1)
    decisions.handle(ended, 1.0)
    assert decisions.handle(ended, 1.0) == []
    decisions.round_started("train", "r2")
    assert decisions.handle(ended, 1.0) == []
    assert decisions.open_round("train") == "r2"


def test_a_stale_view_does_not_move_the_head_back() -> None:
    decisions = population(replace(TRAINING, head_round=3))
    decisions.handle(TaskChanged(TRAINING), 1.0)
    [wake] = decisions.handle(RoundEnded("train", "r1", committed=False), 2.0)
    assert decisions.handle(Tick(), wake.at) == [
        StartRound("train", number=4, cohort=COHORT, base_round=3)
    ]


def test_an_evaluation_task_without_what_it_evaluates_is_refused() -> None:
    with pytest.raises(ValueError, match="every_rounds"):
        population(replace(EVALUATION, every_rounds=0))
    with pytest.raises(ValueError, match="positive"):
        Population(name="digits/demo", retry_s=0.0)


def ahead() -> Population:
    """Round r1 reports, and r2 selects while it waits for r1's model."""
    decisions = population(TRAINING)
    assert decisions.handle(RoundReporting("train", "r1"), 1.0) == [
        StartRound("train", number=2, cohort=COHORT, base_round=None)
    ]
    assert decisions.round_started("train", "r2") == []
    assert decisions.open_round("train") == "r1"
    assert decisions.waiting_round("train") == "r2"
    return decisions


def test_the_next_round_selects_while_one_reports_and_only_the_next() -> None:
    decisions = ahead()
    assert decisions.handle(RoundReporting("train", "r1"), 2.0) == []
    assert decisions.handle(RoundReporting("train", "r2"), 2.0) == []


def test_a_waiting_round_is_released_by_the_commit_before_it() -> None:
    decisions = ahead()
    effects = decisions.handle(RoundEnded("train", "r1", committed=True, head_round=1), 5.0)
    assert effects == [ReleaseRound("train", "r2", number=2, base_round=1)]
    assert decisions.open_round("train") == "r2"
    assert decisions.handle(RoundReporting("train", "r2"), 6.0) == [
        StartRound("train", number=3, cohort=COHORT, base_round=None)
    ]


def test_after_an_abandoned_round_the_waiting_one_starts_from_the_same_model_later() -> None:
    decisions = ahead()
    assert decisions.handle(RoundEnded("train", "r1", committed=False), 5.0) == [WakeAt(6.0)]
    assert decisions.handle(Tick(), 6.0) == [ReleaseRound("train", "r2", number=1, base_round=0)]


def test_a_waiting_round_that_ends_is_replaced_after_a_wait() -> None:
    decisions = ahead()
    assert decisions.handle(RoundEnded("train", "r2", committed=False), 5.0) == [WakeAt(6.0)]
    assert decisions.handle(Tick(), 6.0) == [
        StartRound("train", number=2, cohort=COHORT, base_round=None)
    ]


def test_no_round_waits_beyond_the_target() -> None:
    decisions = population(replace(TRAINING, head_round=4))
    assert decisions.handle(RoundReporting("train", "r1"), 1.0) == []


def test_an_author_may_wish_for_no_pipelining() -> None:
    decisions = population(replace(TRAINING, cohort=replace(COHORT, pipelined=False)))
    assert decisions.handle(RoundReporting("train", "r1"), 1.0) == []


def test_evaluations_are_not_pipelined() -> None:
    decisions = population(TRAINING, EVALUATION)
    assert decisions.handle(RoundReporting("eval", "r2"), 1.0) == []


def test_pausing_ends_the_waiting_round_and_not_the_one_that_reports() -> None:
    decisions = ahead()
    paused = replace(TRAINING, status="paused")
    assert decisions.handle(TaskChanged(paused), 2.0) == [CancelRound("train", "r2")]
    assert decisions.handle(RoundEnded("train", "r2", committed=False), 2.5) == []
    assert decisions.handle(TaskChanged(TRAINING), 3.0) == [
        StartRound("train", number=2, cohort=COHORT, base_round=None)
    ]


def test_a_waiting_round_that_was_cancelled_is_not_released_but_replaced() -> None:
    decisions = ahead()
    decisions.handle(TaskChanged(replace(TRAINING, status="paused")), 2.0)
    decisions.handle(TaskChanged(TRAINING), 2.5)
    assert decisions.handle(RoundEnded("train", "r1", committed=True, head_round=1), 3.0) == []
    assert decisions.handle(RoundEnded("train", "r2", committed=False), 3.5) == [
        StartRound("train", number=2, cohort=COHORT, base_round=1)
    ]


def test_cancelling_a_task_ends_both_of_its_rounds() -> None:
    effects = ahead().handle(TaskChanged(replace(TRAINING, status="cancelled")), 2.0)
    assert effects == [CancelRound("train", "r1"), CancelRound("train", "r2")]


def test_a_head_that_is_seen_before_its_round_s_end_is_told_costs_no_waiting_round() -> None:
    two_rounds = replace(TRAINING, rounds_target=2)
    decisions = population(two_rounds)
    decisions.handle(RoundReporting("train", "r1"), 1.0)
    decisions.round_started("train", "r2")
    assert decisions.handle(TaskChanged(replace(two_rounds, head_round=1)), 2.0) == []
    effects = decisions.handle(RoundEnded("train", "r1", committed=True, head_round=1), 3.0)
    assert effects == [ReleaseRound("train", "r2", number=2, base_round=1)]


def test_a_round_named_after_its_model_is_there_is_released_at_once() -> None:
    decisions = population(TRAINING)
    decisions.handle(RoundReporting("train", "r1"), 1.0)
    ended = RoundEnded("train", "r1", committed=True, head_round=1)
    assert decisions.handle(ended, 2.0) == []
    assert decisions.round_started("train", "r2") == [
        ReleaseRound("train", "r2", number=2, base_round=1)
    ]


class World:
    """Registry, devices and timers around a population; checks what must always hold."""

    def __init__(self, target: int, every: int) -> None:
        self.decisions = Population(name="digits/demo", retry_s=1.0)
        self.training = replace(TRAINING, rounds_target=target)
        self.evaluation = replace(EVALUATION, every_rounds=every)
        self.head = 0
        self.open: dict[str, tuple[str, int]] = {}
        self.ahead: str | None = None
        self.cancelled: set[str] = set()
        self.completed: list[str] = []
        self.evaluated: list[int] = []
        self.wakes: list[float] = []
        self.names = 0

    def send(self, event: Event, now: float) -> None:
        if isinstance(event, Tick):
            self.wakes = [at for at in self.wakes if at > now]
        for effect in self.decisions.handle(event, now):
            self.perform(effect)

    def perform(self, effect: Effect) -> None:
        match effect:
            case StartRound("train", number, _, None):
                assert self.ahead is None, "two rounds ahead"
                assert self.open["train"][1] + 2 == number <= self.training.rounds_target
                assert self.training.status == "active"
                self.names += 1
                self.ahead = f"r{self.names}"
                for following in self.decisions.round_started("train", self.ahead):
                    self.perform(following)
            case ReleaseRound(task_id, round_id, number, base_round):
                assert task_id not in self.open, "two rounds at work"
                assert round_id == self.ahead
                assert round_id not in self.cancelled
                assert base_round == self.head == number - 1 < self.training.rounds_target
                self.open[task_id] = (round_id, base_round)
                self.ahead = None
            case StartRound(task_id, number, _, int(base_round)):
                assert task_id not in self.open, "two rounds of one task"
                view = self.training if task_id == "train" else self.evaluation
                assert view.status == "active"
                if task_id == "train":
                    assert base_round == self.head == number - 1 < view.rounds_target
                else:
                    assert base_round <= self.head
                    assert base_round not in self.evaluated
                self.names += 1
                self.open[task_id] = (f"r{self.names}", base_round)
                for following in self.decisions.round_started(task_id, f"r{self.names}"):
                    self.perform(following)
            case CancelRound(task_id, round_id):
                assert round_id == self.ahead or self.open[task_id][0] == round_id
                assert round_id not in self.cancelled
                self.cancelled.add(round_id)
            case CompleteTask(task_id):
                assert task_id not in self.open
                self.completed.append(task_id)
                self.change(task_id, "completed")
            case WakeAt(at):
                self.wakes.append(at)

    def change(self, task_id: str, status) -> None:
        if task_id == "train":
            self.training = replace(self.training, status=status, head_round=self.head)
        else:
            self.evaluation = replace(self.evaluation, status=status)

    def end(self, task_id: str, committed: bool, now: float) -> None:
        if task_id not in self.open:
            return
        round_id, base_round = self.open.pop(task_id)
        if committed and task_id == "train":
            self.head += 1
        elif committed:
            self.evaluated.append(base_round)
        self.send(RoundEnded(task_id, round_id, committed, self.head), now)

    def end_ahead(self, now: float) -> None:
        """The waiting round is cancelled, or its master aggregator dies."""
        if self.ahead is not None:
            round_id, self.ahead = self.ahead, None
            self.send(RoundEnded("train", round_id, False, self.head), now)

    def report(self, task_id: str, now: float) -> None:
        if task_id in self.open:
            self.send(RoundReporting(task_id, self.open[task_id][0]), now)

    def tell(self, task_id: str, now: float) -> None:
        self.change("train", self.training.status)
        view = self.training if task_id == "train" else self.evaluation
        self.send(TaskChanged(view), now)


tasks = st.sampled_from(["train", "eval"])
actions = st.one_of(
    st.tuples(st.just("end"), tasks, st.booleans()),
    st.tuples(st.just("report"), tasks, st.none()),
    st.tuples(st.just("lose the waiting round"), tasks, st.none()),
    st.tuples(st.just("tell"), tasks, st.none()),
    st.tuples(st.just("pause"), tasks, st.none()),
    st.tuples(st.just("resume"), tasks, st.none()),
    st.tuples(st.just("tick"), tasks, st.none()),
)


@given(st.integers(1, 7), st.integers(1, 4), st.lists(st.tuples(actions, st.floats(0, 5))))
def test_whatever_happens_training_reaches_its_target_and_the_last_model_is_evaluated(
    target, every, steps
) -> None:
    world = World(target, every)
    now = 0.0
    for (action, task_id, committed), delay in steps:
        now += delay
        view = world.training if task_id == "train" else world.evaluation
        match action:
            case "end":
                world.end(task_id, committed, now)
            case "report":
                world.report(task_id, now)
            case "lose the waiting round":
                world.end_ahead(now)
            case "tick":
                world.send(Tick(), now)
            case "pause" if view.status == "active":
                world.change(task_id, "paused")
                world.tell(task_id, now)
            case "resume" if view.status == "paused":
                world.change(task_id, "active")
                world.tell(task_id, now)
            case "tell":
                world.tell(task_id, now)
    for task_id in ("train", "eval"):
        view = world.training if task_id == "train" else world.evaluation
        if view.status == "paused":
            world.change(task_id, "active")
        world.tell(task_id, now)
    for _ in range(60):
        if len(world.completed) == 2:
            break
        if world.ahead in world.cancelled:
            world.end_ahead(now)
            continue
        if world.open:
            task_id = next(iter(world.open))
            world.report(task_id, now)
            world.end(task_id, True, now)
            continue
        assert world.wakes, "nothing would ever happen again"
        now = max(now, min(world.wakes))
        world.send(Tick(), now)
    assert sorted(world.completed) == ["eval", "train"]
    assert world.head == target
    assert world.evaluated[-1] == target
    assert world.evaluated == sorted(set(world.evaluated))
    assert all(base % every == 0 for base in world.evaluated[:-1])
