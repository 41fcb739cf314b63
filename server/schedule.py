"""What a plan's author wishes for running it, checked before anything is deployed."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from device_plan.archive import PlanArchive
from device_plan.checkpoint import Layout, MalformedCheckpoint, WrongTensors, decode
from device_plan.cohort import CohortPolicy
from server.aggregation.accumulator import Accumulator
from server.aggregation.admission import Admission

#: A population's name is part of a URL's path.
_POPULATION = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._/-]{0,127}")

#: Rounds that a task may have.
MAX_ROUNDS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class EvaluationSchedule:
    """Attributes:
    every_rounds: Committed rounds from one evaluation to the next.
    cohort: For each of them.
    """

    every_rounds: int
    cohort: CohortPolicy


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """What is to be run, where, and how often.

    Attributes:
        name: The task's.
        population: Whose devices.
        rounds: Training rounds to commit.
        cohort: For each of them.
        evaluation: None if nothing is evaluated.
    """

    name: str
    population: str
    rounds: int
    cohort: CohortPolicy
    evaluation: EvaluationSchedule | None

    @classmethod
    def of(
        cls, plan: PlanArchive, *, rounds: int | None = None, goal_count: int | None = None
    ) -> "Schedule":
        """The schedule of a plan that can be run.

        Args:
            plan: From the author.
            rounds: Instead of what the author wished.
            goal_count: Likewise, of a training round.

        Raises:
            ValueError: a wish is missing or impossible, or the plan's parts do
                not fit together; the message says which.
        """
        wishes = plan.schedule
        cohort = CohortPolicy.from_json(_object(wishes, "cohort"))
        if goal_count is not None:
            cohort = replace(cohort, goal_count=goal_count)
        evaluation = None
        if wishes.get("evaluation") is not None:
            wished = _object(wishes, "evaluation")
            evaluation = EvaluationSchedule(
                every_rounds=_count(wished, "every_rounds"),
                cohort=CohortPolicy.from_json(_object(wished, "cohort")),
            )
        population = _text(wishes, "population")
        if not _POPULATION.fullmatch(population):
            raise ValueError(
                "population must be 1 to 128 of the characters A-Z a-z 0-9 . _ / -, and not "
                f"begin with . or /, not {population!r}"
            )
        checked = cls(
            name=_text(wishes, "name"),
            population=population,
            rounds=_count(wishes if rounds is None else {"rounds": rounds}, "rounds"),
            cohort=cohort,
            evaluation=evaluation,
        )
        _check_parts(plan, evaluates=evaluation is not None)
        return checked


def _check_parts(plan: PlanArchive, *, evaluates: bool) -> None:
    """What every round would fail on is better refused at once."""
    for training in (True, False) if evaluates else (True,):
        computation = "training" if training else "evaluation"
        part = plan.server_part("training" if training else "evaluation")
        try:
            layout = Admission(manifest=plan.manifest, training=training).layout
            Accumulator(layout=layout)
        except (TypeError, ValueError) as error:
            raise ValueError(f"the {computation}'s upload: {error}") from error
        sums = {spec.name: (spec.dtype, tuple(spec.shape)) for spec in part.sums}
        if sums != {n: (d.name, shape) for n, (d, shape) in layout.specs.items()}:
            raise ValueError(f"the {computation} sums other tensors than its devices upload")
    for name, data, specs in (
        ("checkpoint", plan.initial_checkpoint, plan.manifest.checkpoint),
        ("state", plan.initial_state, plan.server_part("training").state),
    ):
        try:
            Layout(specs).check(decode(data))
        except (MalformedCheckpoint, WrongTensors) as error:
            raise ValueError(f"the initial {name}: {error}") from error


def _object(wishes: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = wishes.get(name)
    if not isinstance(value, dict):
        raise ValueError(f"the schedule's {name} must be an object, not {value!r}")
    return value


def _text(wishes: Mapping[str, Any], name: str) -> str:
    value = wishes.get(name)
    if not isinstance(value, str) or not value or len(value) > 256:
        raise ValueError(f"the schedule's {name} must be a text, not {value!r}")
    return value


def _count(wishes: Mapping[str, Any], name: str) -> int:
    value = wishes.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_ROUNDS:
        raise ValueError(f"{name} must be a whole number from 1 to {MAX_ROUNDS}, not {value!r}")
    return value
