"""Rounds: opened, then committed or abandoned, once, by the holder of the lease.

Every write is one transaction that begins with the fence. A round belongs to
the acquisition of the lease under which it was opened: a successor can abandon
it, and only abandon it, because its sums died with the predecessor.
"""

import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Engine, insert, or_, select, update

from server.storage.database import read, write
from server.storage.errors import UnknownModel, UnknownRound, UnknownTask
from server.storage.leases import Lease, check_fence
from server.storage.schema import model_heads, models, round_events, rounds, tasks

Outcome = Literal["open", "committed", "abandoned"]

#: Why `abandon_unfinished` abandons a round.
COORDINATOR_LOST = "coordinator_lost"


@dataclass(frozen=True, kw_only=True)
class RoundRecord:
    """What is known of a round.

    Attributes:
        number: The task's own count of rounds; an abandoned round's may be used again.
        base_model_round: The model that its devices start from or evaluate.
        lease_name: The lease under which it was opened,
        lease_epoch: and that lease's epoch.
        reason: Why it was abandoned.
        metrics: Of the training or evaluation, once it is committed.
        statistics: Devices and seconds per phase, once it has ended.
        opened_at: Seconds since the epoch.
        ended_at: Likewise; None while it is open.
    """

    round_id: str
    task_id: str
    number: int
    base_model_round: int
    lease_name: str
    lease_epoch: int
    outcome: Outcome
    reason: str | None
    metrics: Mapping[str, Any]
    statistics: Mapping[str, Any]
    opened_at: float
    ended_at: float | None


@dataclass(frozen=True, kw_only=True)
class RoundEvent:
    """One line of a round's history: who made it what, and when."""

    round_id: str
    event: Literal["opened", "committed", "abandoned"]
    lease_owner: str
    lease_epoch: int
    detail: Mapping[str, Any]
    at: float


class _HeadMoved(Exception):
    """Rolls back a commit whose base is not the head any more."""


class Rounds:
    """The rounds of one database.

    Every method that takes a lease raises Fenced, and has written nothing, if
    the lease was lost.
    """

    def __init__(self, *, engine: Engine, clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._clock = clock

    def open(self, lease: Lease, task_id: str, number: int, base_model_round: int) -> str:
        """Open a round and return its id, which no other attempt ever gets.

        Args:
            lease: The population's coordinator lease.
            task_id: The task.
            number: The task's own count.
            base_model_round: The model its devices get: the task's own for a
                training task, that of the task it evaluates for an evaluation.

        Raises:
            Fenced: the lease was lost.
            UnknownTask, UnknownModel: there is no such task or base model.
        """
        round_id = f"{task_id}.r{number}.e{lease.epoch}.{secrets.token_hex(4)}"
        now = self._clock()
        with write(self._engine) as connection:
            check_fence(connection, lease)
            task = connection.execute(
                select(tasks.c.evaluates).where(tasks.c.task_id == task_id)
            ).one_or_none()
            if task is None:
                raise UnknownTask(f"there is no task {task_id!r}")
            model_task = task.evaluates or task_id
            if not connection.execute(
                select(models.c.round).where(
                    models.c.task_id == model_task, models.c.round == base_model_round
                )
            ).one_or_none():
                raise UnknownModel(f"task {model_task!r} has no model of round {base_model_round}")
            connection.execute(
                insert(rounds).values(
                    round_id=round_id,
                    task_id=task_id,
                    number=number,
                    base_model_round=base_model_round,
                    lease_name=lease.name,
                    lease_epoch=lease.epoch,
                    outcome="open",
                    metrics={},
                    statistics={},
                    opened_at=now,
                )
            )
            detail = {"number": number, "base_model_round": base_model_round}
            _append(connection, lease, round_id, "opened", detail, now)
        return round_id

    def commit_training(
        self,
        lease: Lease,
        round_id: str,
        state_sha256: str,
        checkpoint_sha256: str,
        metrics: Mapping[str, Any],
        statistics: Mapping[str, Any],
    ) -> bool:
        """Make the round's result the task's newest model, or change nothing.

        The head moves from the round's base model r to r + 1, the model, the
        outcome and the history are written, all in one transaction. The blobs
        must be durable before.

        Returns:
            False if the round has ended already, was opened under an earlier
            epoch, or its base is no longer the head.

        Raises:
            Fenced: the lease was lost.
            UnknownRound: there is no such round.
            ValueError: the round is an evaluation, or a metric or statistic is
                not JSON (NaN and infinity are not).
        """
        _check_json(metrics, statistics)
        now = self._clock()
        try:
            with write(self._engine) as connection:
                check_fence(connection, lease)
                base = _base(connection, round_id, "training")
                if not _end(
                    connection, lease, round_id, "committed", now, metrics=metrics, stats=statistics
                ):
                    return False
                _move_head(connection, round_id, base)
                task_id = select(rounds.c.task_id).where(rounds.c.round_id == round_id)
                connection.execute(
                    insert(models).values(
                        task_id=task_id.scalar_subquery(),
                        round=base + 1,
                        round_id=round_id,
                        state_sha256=state_sha256,
                        checkpoint_sha256=checkpoint_sha256,
                        metrics=dict(metrics),
                        created_at=now,
                    )
                )
                detail = {"model_round": base + 1, "checkpoint_sha256": checkpoint_sha256}
                _append(connection, lease, round_id, "committed", detail, now)
        except _HeadMoved:
            return False
        return True

    def commit_evaluation(
        self,
        lease: Lease,
        round_id: str,
        metrics: Mapping[str, Any],
        statistics: Mapping[str, Any],
    ) -> bool:
        """Record an evaluation's metrics; no model changes.

        Returns and raises as `commit_training` does.
        """
        _check_json(metrics, statistics)
        now = self._clock()
        with write(self._engine) as connection:
            check_fence(connection, lease)
            _base(connection, round_id, "evaluation")
            if not _end(
                connection, lease, round_id, "committed", now, metrics=metrics, stats=statistics
            ):
                return False
            _append(connection, lease, round_id, "committed", {}, now)
        return True

    def abandon(
        self, lease: Lease, round_id: str, reason: str, statistics: Mapping[str, Any]
    ) -> bool:
        """End a round without a result; False if it has ended already.

        Raises:
            Fenced: the lease was lost.
            UnknownRound: there is no such round.
        """
        now = self._clock()
        with write(self._engine) as connection:
            check_fence(connection, lease)
            _base(connection, round_id)
            if not _end(
                connection, lease, round_id, "abandoned", now, reason=reason, stats=statistics
            ):
                return False
            _append(connection, lease, round_id, "abandoned", {"reason": reason}, now)
        return True

    def abandon_unfinished(self, lease: Lease, population: str) -> Sequence[str]:
        """Abandon the rounds that earlier holders of the lease left open; their ids.

        Raises:
            Fenced: the lease was lost.
        """
        now = self._clock()
        with write(self._engine) as connection:
            check_fence(connection, lease)
            left_open = connection.scalars(
                select(rounds.c.round_id)
                .join(tasks, tasks.c.task_id == rounds.c.task_id)
                .where(
                    tasks.c.population == population,
                    rounds.c.outcome == "open",
                    or_(
                        rounds.c.lease_name != lease.name,
                        rounds.c.lease_epoch != lease.epoch,
                    ),
                )
                .order_by(rounds.c.sequence)
            ).all()
            for round_id in left_open:
                _end(connection, lease, round_id, "abandoned", now, reason=COORDINATOR_LOST)
                _append(connection, lease, round_id, "abandoned", {"reason": COORDINATOR_LOST}, now)
        return left_open

    def get(self, round_id: str) -> RoundRecord:
        """Raises UnknownRound."""
        with read(self._engine) as connection:
            row = connection.execute(
                select(*_COLUMNS).where(rounds.c.round_id == round_id)
            ).one_or_none()
        if row is None:
            raise UnknownRound(f"there is no round {round_id!r}")
        return RoundRecord(**row._mapping)

    def list(self, task_id: str) -> Sequence[RoundRecord]:
        """The task's rounds, in the order in which they were opened."""
        with read(self._engine) as connection:
            rows = connection.execute(
                select(*_COLUMNS).where(rounds.c.task_id == task_id).order_by(rounds.c.sequence)
            ).all()
        return [RoundRecord(**row._mapping) for row in rows]

    def last_committed(self, task_id: str) -> RoundRecord | None:
        """The task's committed round with the newest base model, if any."""
        with read(self._engine) as connection:
            row = connection.execute(
                select(*_COLUMNS)
                .where(rounds.c.task_id == task_id, rounds.c.outcome == "committed")
                .order_by(rounds.c.base_model_round.desc(), rounds.c.sequence.desc())
                .limit(1)
            ).one_or_none()
        return None if row is None else RoundRecord(**row._mapping)

    def history(self, round_id: str) -> Sequence[RoundEvent]:
        """Everything that happened to the round, in order; empty if there is none."""
        columns = [column for column in round_events.c if column.name != "sequence"]
        with read(self._engine) as connection:
            rows = connection.execute(
                select(*columns)
                .where(round_events.c.round_id == round_id)
                .order_by(round_events.c.sequence)
            ).all()
        return [RoundEvent(**row._mapping) for row in rows]


_COLUMNS = [column for column in rounds.c if column.name != "sequence"]


def _base(connection: Connection, round_id: str, computation: str | None = None) -> int:
    found = connection.execute(
        select(rounds.c.base_model_round, tasks.c.computation)
        .join(tasks, tasks.c.task_id == rounds.c.task_id)
        .where(rounds.c.round_id == round_id)
    ).one_or_none()
    if found is None:
        raise UnknownRound(f"there is no round {round_id!r}")
    if computation is not None and found.computation != computation:
        raise ValueError(f"round {round_id!r} is of the {found.computation} kind")
    return int(found.base_model_round)


def _check_json(metrics: Mapping[str, Any], statistics: Mapping[str, Any]) -> None:
    for what, value in (("metrics", metrics), ("statistics", statistics)):
        try:
            json.dumps(dict(value), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"the round's {what} cannot be kept as JSON: {error}") from error


def _end(
    connection: Connection,
    lease: Lease,
    round_id: str,
    outcome: Outcome,
    now: float,
    *,
    reason: str | None = None,
    metrics: Mapping[str, Any] | None = None,
    stats: Mapping[str, Any] | None = None,
) -> bool:
    conditions = [rounds.c.round_id == round_id, rounds.c.outcome == "open"]
    if outcome == "committed":
        conditions += [rounds.c.lease_name == lease.name, rounds.c.lease_epoch == lease.epoch]
    ended = connection.execute(
        update(rounds)
        .where(*conditions)
        .values(
            outcome=outcome,
            reason=reason,
            metrics=dict(metrics or {}),
            statistics=dict(stats or {}),
            ended_at=now,
        )
    )
    return ended.rowcount == 1


def _move_head(connection: Connection, round_id: str, base: int) -> None:
    task_id = select(rounds.c.task_id).where(rounds.c.round_id == round_id).scalar_subquery()
    moved = connection.execute(
        update(model_heads)
        .where(model_heads.c.task_id == task_id, model_heads.c.round == base)
        .values(round=base + 1)
    )
    if moved.rowcount != 1:
        raise _HeadMoved


def _append(
    connection: Connection,
    lease: Lease,
    round_id: str,
    event: str,
    detail: Mapping[str, Any],
    now: float,
) -> None:
    connection.execute(
        insert(round_events).values(
            round_id=round_id,
            event=event,
            lease_owner=lease.owner,
            lease_epoch=lease.epoch,
            detail=dict(detail),
            at=now,
        )
    )
