"""Populations, plans, tasks, models and session counts are kept as they were given."""

from collections import Counter
from dataclasses import replace

import pytest
from sqlalchemy.exc import IntegrityError

from server.storage.errors import (
    AlreadyExists,
    NotFound,
    UnknownModel,
    UnknownPlan,
    UnknownPopulation,
    UnknownTask,
)
from server.storage.registry import Registry
from server.storage.session_shapes import Traffic
from tests.server.storage.conftest import VARIANT, Tasks, create_tasks
from tests.server.storage.racing import race_threads


def test_a_population_keeps_its_salt_to_itself(registry: Registry) -> None:
    made = registry.populations.create(
        name="keyboard/next-word", holdout_fraction=0.1, holdout_salt=b"\x00s"
    )
    assert registry.populations.get("keyboard/next-word") == made
    assert (made.holdout_salt, made.created_at) == (b"\x00s", 1000.0)
    assert list(registry.populations.list()) == [made]
    assert "x00s" not in repr(made)


def test_a_population_is_created_once(registry: Registry, tasks: Tasks) -> None:
    del tasks
    with pytest.raises(AlreadyExists, match="digits/demo"):
        registry.populations.create(name="digits/demo", holdout_fraction=0.5, holdout_salt=b"x")
    assert registry.populations.get("digits/demo").holdout_fraction == 0.15


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")])
def test_a_holdout_fraction_is_a_fraction(registry: Registry, fraction: float) -> None:
    with pytest.raises(ValueError, match="fraction"):
        registry.populations.create(name="a", holdout_fraction=fraction, holdout_salt=b"x")


def test_a_plan_is_added_once_and_stays(registry: Registry) -> None:
    variants = [VARIANT, replace(VARIANT, name="legacy", runtimes=("tflite-runtime 2.7.0",))]
    first = registry.plans.add(
        digest="d", variants=variants, manifest={"name": "a"}, schedule={"rounds": 3}
    )
    assert list(first.variants) == variants
    again = registry.plans.add(digest="d", variants=[VARIANT], manifest={}, schedule={})
    assert again == first
    assert list(registry.plans.list()) == [first]


def test_a_task_is_kept_as_it_was_created(registry: Registry, tasks: Tasks) -> None:
    training = registry.tasks.get(tasks.training)
    assert training.task_id.startswith("digits-dense-")
    assert (training.name, training.computation) == ("Digits, dense", "training")
    assert (training.rounds, training.cohort) == (20, {"goal_count": 3})
    assert training.status == "active"
    evaluation = registry.tasks.get(tasks.evaluation)
    assert (evaluation.evaluates, evaluation.every_rounds) == (tasks.training, 5)
    assert {task.task_id for task in registry.tasks.list()} == {tasks.training, tasks.evaluation}
    assert len(registry.tasks.list("digits/demo")) == 2
    assert list(registry.tasks.list("other")) == []


def test_a_training_task_begins_with_the_initial_model(registry: Registry, tasks: Tasks) -> None:
    head = registry.models.head(tasks.training)
    assert (head.round, head.round_id) == (0, None)
    assert (head.state_sha256, head.checkpoint_sha256) == ("state 0", "checkpoint 0")
    assert list(registry.models.list(tasks.training)) == [head]


def test_a_task_needs_what_it_refers_to(registry: Registry, tasks: Tasks) -> None:
    values = {"name": "a", "cohort": {}, "computation": "evaluation", "every_rounds": 1}
    base = {"population": "digits/demo", "plan_digest": "plan", "evaluates": tasks.training}
    for change, error in (
        ({"population": "other"}, UnknownPopulation),
        ({"plan_digest": "other"}, UnknownPlan),
        ({"evaluates": "other"}, UnknownTask),
        ({"evaluates": tasks.evaluation}, UnknownTask),
    ):
        with pytest.raises(error):
            registry.tasks.create(**{**values, **base, **change})
    assert len(registry.tasks.list()) == 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"computation": "training"}, "number of rounds"),
        ({"computation": "training", "rounds": 1}, "initial state"),
        ({"computation": "evaluation"}, "training task"),
        ({"computation": "evaluation", "evaluates": "a"}, "every_rounds"),
        (
            {"computation": "evaluation", "evaluates": "a", "every_rounds": 1, "rounds": 1},
            "no rounds",
        ),
    ],
)
def test_an_incomplete_task_is_refused(
    registry: Registry, values: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        registry.tasks.create(population="p", name="a", plan_digest="d", cohort={}, **values)


def test_a_status_changes_only_from_what_it_is(registry: Registry, tasks: Tasks) -> None:
    change = registry.tasks.set_status
    assert change(tasks.training, "active", "paused")
    assert not change(tasks.training, "active", "completed")
    assert change(tasks.training, "paused", "active")
    assert change(tasks.training, "active", "completed")
    assert registry.tasks.get(tasks.training).status == "completed"
    with pytest.raises(ValueError, match="cannot become"):
        change(tasks.training, "completed", "active")
    with pytest.raises(UnknownTask):
        change("nothing", "active", "paused")


def test_of_racing_status_changes_one_happens(registry: Registry, tasks: Tasks) -> None:
    changed = race_threads(
        8, lambda _: registry.tasks.set_status(tasks.training, "active", "completed")
    )
    assert sum(changed) == 1


def test_what_is_unknown_is_named(registry: Registry, tasks: Tasks) -> None:
    for look, error in (
        (lambda: registry.populations.get("nobody"), UnknownPopulation),
        (lambda: registry.plans.get("nobody"), UnknownPlan),
        (lambda: registry.tasks.get("nobody"), UnknownTask),
        (lambda: registry.models.head("nobody"), UnknownModel),
        (lambda: registry.models.head(tasks.evaluation), UnknownModel),
        (lambda: registry.models.get(tasks.training, 1), UnknownModel),
    ):
        with pytest.raises(error) as caught:
            look()
        assert isinstance(caught.value, NotFound)
        assert any(name in str(caught.value) for name in ("nobody", *vars(tasks).values()))


def test_session_shapes_and_bytes_add_up_over_threads(registry: Registry, tasks: Tasks) -> None:
    del tasks
    shapes = Counter({"-v[]+^": 3, "-v[!": 1})
    race_threads(8, lambda _: registry.session_shapes.add_shapes("digits/demo", shapes, 2**40, 10))
    registry.session_shapes.add_shapes("digits/demo", {"-": 1}, 0, 0)
    assert registry.session_shapes.shapes("digits/demo") == [("-v[]+^", 24), ("-v[!", 8), ("-", 1)]
    assert registry.session_shapes.traffic("digits/demo") == Traffic(
        bytes_up=8 * 2**40, bytes_down=80
    )
    assert registry.session_shapes.traffic("other") == Traffic(bytes_up=0, bytes_down=0)
    with pytest.raises(IntegrityError):
        registry.session_shapes.add_shapes("other", {"-": 1}, 0, 0)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("inf"), float("nan")])
def test_a_tasks_weight_is_a_positive_number(
    registry: Registry, tasks: Tasks, weight: float
) -> None:
    with pytest.raises(ValueError, match="pause it"):
        registry.tasks.set_weight(tasks.training, weight)
    assert registry.tasks.get(tasks.training).weight == 1.0


def test_a_tasks_weight_can_be_changed(registry: Registry, tasks: Tasks) -> None:
    registry.tasks.set_weight(tasks.training, 2.5)
    assert registry.tasks.get(tasks.training).weight == 2.5
    assert registry.tasks.get(tasks.evaluation).weight == 1.0
    with pytest.raises(UnknownTask, match="nothing"):
        registry.tasks.set_weight("nothing", 1.0)


def test_a_population_has_quotas_of_its_own(registry: Registry, tasks: Tasks) -> None:
    del tasks
    made = registry.populations.set_quotas("digits/demo", max_sessions=100, max_upload_bytes=None)
    assert (made.max_sessions, made.max_upload_bytes) == (100, None)
    assert registry.populations.get("digits/demo") == made
    with pytest.raises(ValueError, match="max_upload_bytes must be at least 1"):
        registry.populations.set_quotas("digits/demo", max_sessions=None, max_upload_bytes=0)
    with pytest.raises(UnknownPopulation, match="other"):
        registry.populations.set_quotas("other", max_sessions=1, max_upload_bytes=1)


def test_a_token_operates_one_population(registry: Registry, tasks: Tasks) -> None:
    del tasks
    first, second = "1" * 64, "2" * 64
    populations = registry.populations
    populations.create(name="other", holdout_fraction=0.1, holdout_salt=b"s")
    populations.set_token("digits/demo", first)
    assert populations.population_of_token(first) == "digits/demo"
    with pytest.raises(AlreadyExists, match="another population"):
        populations.set_token("other", first)
    populations.set_token("digits/demo", second)
    assert populations.population_of_token(first) is None
    populations.set_token("other", first)
    populations.set_token("digits/demo", None)
    assert populations.population_of_token(second) is None
    assert populations.population_of_token(first) == "other"
    for token in ("secret", "A" * 64):
        with pytest.raises(ValueError, match="SHA-256"):
            populations.set_token("other", token)
    with pytest.raises(UnknownPopulation):
        populations.set_token("nobody", second)


def test_all_populations_are_found_at_once_with_the_tasks_that_go_on(registry: Registry) -> None:
    registry.populations.create(name="empty", holdout_fraction=0.5, holdout_salt=b"other salt")
    demo = create_tasks(registry)
    more = create_tasks(registry, "a/second")
    registry.tasks.set_status(demo.training, "active", "paused")
    registry.tasks.set_status(more.training, "active", "completed")
    registry.tasks.set_status(more.evaluation, "active", "cancelled")
    found = registry.tasks.open_of_populations()
    assert [population for population, _ in found] == list(registry.populations.list())
    assert {
        population.name: [(task.computation, task.status) for task in tasks]
        for population, tasks in found
    } == {
        "a/second": [],
        "digits/demo": [("training", "paused"), ("evaluation", "active")],
        "empty": [],
    }
