"""Tasks: computations that a population's devices are asked for, round after round."""

import math
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Engine, delete, insert, select, update

from server.storage.clocks import Clock, record_clock
from server.storage.database import read, write
from server.storage.errors import UnknownPlan, UnknownPopulation, UnknownTask
from server.storage.populations import Population
from server.storage.schema import (
    model_heads,
    models,
    participations,
    plans,
    populations,
    tasks,
)

Computation = Literal["training", "evaluation"]
Status = Literal["active", "paused", "completed", "cancelled"]

#: What a task may become. Completed and cancelled are final.
TRANSITIONS: Mapping[str, frozenset[str]] = {
    "active": frozenset({"paused", "completed", "cancelled"}),
    "paused": frozenset({"active", "cancelled"}),
    "completed": frozenset(),
    "cancelled": frozenset(),
}


@dataclass(frozen=True, kw_only=True)
class Task:
    """One computation for one population.

    Attributes:
        task_id: Unique, and fit for a URL's path.
        name: The author's name for it.
        plan_digest: The plan it executes.
        cohort: The CohortPolicy, as JSON.
        rounds: Committed rounds after which a training task is completed.
        evaluates: The training task whose models an evaluation task measures.
        every_rounds: It does so whenever that many rounds were committed.
        created_at: Seconds since the epoch.
        weight: Its share of the population's devices, relative to the other tasks'.
    """

    task_id: str
    population: str
    name: str
    computation: Computation
    plan_digest: str
    cohort: Mapping[str, Any]
    rounds: int | None
    evaluates: str | None
    every_rounds: int | None
    status: Status
    created_at: float
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class OpenTask:
    """What selectors must know of a task that is active or paused."""

    computation: Computation
    plan_digest: str
    status: Status


class Tasks:
    """The tasks of one database."""

    def __init__(self, *, engine: Engine, clock: Clock | None = None) -> None:
        self._engine = engine
        self._clock = clock or record_clock(engine)

    def create(
        self,
        *,
        population: str,
        name: str,
        computation: Computation,
        plan_digest: str,
        cohort: Mapping[str, Any],
        rounds: int | None = None,
        evaluates: str | None = None,
        every_rounds: int | None = None,
        weight: float = 1.0,
        initial_state_sha256: str | None = None,
        initial_checkpoint_sha256: str | None = None,
    ) -> str:
        """Add an active task and return its id.

        A training task needs `rounds` and the initial model, which becomes its
        model of round 0 and its head; an evaluation task needs `evaluates` and
        `every_rounds`.

        Raises:
            UnknownPopulation, UnknownPlan, UnknownTask: what the task refers to
                does not exist.
            ValueError: a value is missing, or does not belong to the computation.
        """
        _check_weight(weight)
        task_id = f"{_slug(name)}-{secrets.token_hex(4)}"
        now = self._clock()
        if computation == "training":
            if not rounds or rounds < 1:
                raise ValueError("a training task needs a positive number of rounds")
            if not initial_state_sha256 or not initial_checkpoint_sha256:
                raise ValueError("a training task needs an initial state and checkpoint")
            if evaluates or every_rounds:
                raise ValueError("a training task does not evaluate another task")
        else:
            if not evaluates:
                raise ValueError("an evaluation task needs the training task that it evaluates")
            if not every_rounds or every_rounds < 1:
                raise ValueError("an evaluation task needs a positive every_rounds")
            if rounds or initial_state_sha256 or initial_checkpoint_sha256:
                raise ValueError("an evaluation task has no rounds or model of its own")
        with write(self._engine) as connection:
            if not connection.scalar(
                select(populations.c.name).where(populations.c.name == population)
            ):
                raise UnknownPopulation(f"there is no population {population!r}")
            if not connection.scalar(select(plans.c.digest).where(plans.c.digest == plan_digest)):
                raise UnknownPlan(f"there is no plan with the digest {plan_digest!r}")
            if evaluates and not connection.scalar(
                select(tasks.c.task_id).where(
                    tasks.c.task_id == evaluates,
                    tasks.c.population == population,
                    tasks.c.computation == "training",
                )
            ):
                raise UnknownTask(
                    f"the population {population!r} has no training task {evaluates!r}"
                )
            connection.execute(
                insert(tasks).values(
                    task_id=task_id,
                    population=population,
                    name=name,
                    computation=computation,
                    plan_digest=plan_digest,
                    cohort=dict(cohort),
                    rounds=rounds,
                    evaluates=evaluates,
                    every_rounds=every_rounds,
                    status="active",
                    created_at=now,
                    weight=weight,
                )
            )
            if computation == "training":
                connection.execute(
                    insert(models).values(
                        task_id=task_id,
                        round=0,
                        state_sha256=initial_state_sha256,
                        checkpoint_sha256=initial_checkpoint_sha256,
                        metrics={},
                        created_at=now,
                    )
                )
                connection.execute(insert(model_heads).values(task_id=task_id, round=0))
        return task_id

    def get(self, task_id: str) -> Task:
        """Raises UnknownTask."""
        with read(self._engine) as connection:
            row = connection.execute(select(tasks).where(tasks.c.task_id == task_id)).one_or_none()
        if row is None:
            raise UnknownTask(f"there is no task {task_id!r}")
        return Task(**row._mapping)

    def list(self, population: str | None = None) -> Sequence[Task]:
        """The tasks, of one population or of all, the oldest first."""
        query = select(tasks).order_by(tasks.c.created_at, tasks.c.task_id)
        if population is not None:
            query = query.where(tasks.c.population == population)
        with read(self._engine) as connection:
            rows = connection.execute(query).all()
        return [Task(**row._mapping) for row in rows]

    def open_of_populations(self) -> Sequence[tuple[Population, Sequence[OpenTask]]]:
        """All populations, each with its active and paused tasks, the oldest first.

        One statement, because every server asks each second.
        """
        query = (
            select(populations, tasks.c.computation, tasks.c.plan_digest, tasks.c.status)
            .outerjoin(
                tasks,
                (tasks.c.population == populations.c.name)
                & tasks.c.status.in_(("active", "paused")),
            )
            .order_by(populations.c.name, tasks.c.created_at, tasks.c.task_id)
        )
        with read(self._engine) as connection:
            rows = connection.execute(query).all()
        found: dict[Population, list[OpenTask]] = {}
        for row in rows:
            values = {column.name: row._mapping[column] for column in populations.c}
            open_tasks = found.setdefault(Population(**values), [])
            if row.status is not None:
                open_tasks.append(
                    OpenTask(
                        computation=row.computation, plan_digest=row.plan_digest, status=row.status
                    )
                )
        return [(population, tuple(open_tasks)) for population, open_tasks in found.items()]

    def set_status(self, task_id: str, from_: Status, to: Status) -> bool:
        """Change the status if it is `from_`; False if it is another one by now.

        What devices took part in a task is forgotten when the task ends.

        Raises:
            UnknownTask: there is no such task.
            ValueError: a task can never go from the one to the other.
        """
        if to not in TRANSITIONS[from_]:
            raise ValueError(f"a task that is {from_} cannot become {to}")
        with write(self._engine) as connection:
            changed = connection.execute(
                update(tasks)
                .where(tasks.c.task_id == task_id, tasks.c.status == from_)
                .values(status=to)
            )
            if changed.rowcount == 1 and not TRANSITIONS[to]:
                connection.execute(
                    delete(participations).where(participations.c.task_id == task_id)
                )
        if changed.rowcount == 1:
            return True
        self.get(task_id)
        return False

    def set_weight(self, task_id: str, weight: float) -> None:
        """Raises UnknownTask, or ValueError unless the weight is a positive number."""
        _check_weight(weight)
        with write(self._engine) as connection:
            changed = connection.execute(
                update(tasks).where(tasks.c.task_id == task_id).values(weight=weight)
            )
        if changed.rowcount != 1:
            raise UnknownTask(f"there is no task {task_id!r}")


def _check_weight(weight: float) -> None:
    if not 0 < weight < math.inf:
        raise ValueError(f"a task's weight must be a positive number, not {weight}: pause it")


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "task"
