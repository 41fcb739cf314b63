"""Rounds: opened, then committed or abandoned, once, by the holder of the lease.

Every write is one transaction that begins with the fence. A round belongs to
the acquisition of the lease under which it was opened: a successor can abandon
it, and only abandon it, because its sums died with the predecessor.
"""

import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    CursorResult,
    Engine,
    Insert,
    Update,
    bindparam,
    insert,
    or_,
    select,
    update,
)

from server.storage import participations
from server.storage.clocks import Clock, record_clock
from server.storage.database import write
from server.storage.errors import UnknownModel, UnknownRound, UnknownTask
from server.storage.leases import Lease, check_fence
from server.storage.round_records import Outcome, RoundRecords
from server.storage.schema import model_heads, models, round_events, rounds, tasks

#: Why `abandon_unfinished` abandons a round.
COORDINATOR_LOST = "coordinator_lost"

# Made once: making one takes as long as having SQLite carry it out.
_TASK = select(tasks.c.computation, tasks.c.evaluates).where(
    tasks.c.task_id == bindparam("task_id")
)
_MODEL = select(models.c.round).where(
    models.c.task_id == bindparam("task_id"), models.c.round == bindparam("round")
)
_TASK_OF_ROUND = (
    select(rounds.c.task_id, tasks.c.computation)
    .join(tasks, tasks.c.task_id == rounds.c.task_id)
    .where(rounds.c.round_id == bindparam("round_id"))
)
_BASE = select(rounds.c.base_model_round).where(rounds.c.round_id == bindparam("round_id"))
_MOVE_HEAD = (
    update(model_heads)
    .where(model_heads.c.task_id == bindparam("of_task"), model_heads.c.round == bindparam("base"))
    .values(round=model_heads.c.round + 1)
)
_OPEN, _ADD_MODEL, _APPEND = insert(rounds), insert(models), insert(round_events)
_ABANDON = update(rounds).where(
    rounds.c.round_id == bindparam("of_round"), rounds.c.outcome == "open"
)
_LEFT_OPEN = (
    select(rounds.c.round_id)
    .join(tasks, tasks.c.task_id == rounds.c.task_id)
    .where(
        tasks.c.population == bindparam("population"),
        rounds.c.outcome == "open",
        or_(
            rounds.c.lease_name != bindparam("name"),
            rounds.c.lease_epoch != bindparam("epoch"),
        ),
    )
    .order_by(rounds.c.sequence)
)


class _HeadMoved(Exception):
    """Rolls back a commit whose base is not the head any more."""


class Rounds(RoundRecords):
    """The rounds of one database.

    Every method that takes a lease raises Fenced, and has written nothing, if
    the lease was lost.
    """

    def __init__(self, *, engine: Engine, clock: Clock | None = None) -> None:
        super().__init__(engine=engine)
        self._clock = clock or record_clock(engine)

    def open(self, lease: Lease, task_id: str, number: int, base_model_round: int | None) -> str:
        """Open a round and return its id, which no other attempt ever gets.

        Args:
            lease: The population's coordinator lease.
            task_id: The task.
            number: The task's own count.
            base_model_round: The model its devices get: the task's own for a
                training task, that of the task it evaluates for an evaluation.
                None opens a training round ahead of its model, for `release`.

        Raises:
            Fenced: the lease was lost.
            UnknownTask, UnknownModel: there is no such task or base model.
            ValueError: an evaluation without a model.
        """
        round_id = f"{task_id}.r{number}.e{lease.epoch}.{secrets.token_hex(4)}"
        now = self._clock()
        with write(self._engine) as connection:
            check_fence(connection, lease)
            if base_model_round is not None:
                _check_model(connection, task_id, base_model_round)
            elif _computation(connection, task_id) != "training":
                raise ValueError("an evaluation round needs the model that it evaluates")
            opened = {
                "round_id": round_id,
                "task_id": task_id,
                "number": number,
                "base_model_round": base_model_round,
                "lease_name": lease.name,
                "lease_epoch": lease.epoch,
                "outcome": "open",
                "metrics": {},
                "statistics": {},
            }
            _execute_at(connection, _OPEN, rounds.c.opened_at, now, opened)
            detail = {"number": number, "base_model_round": base_model_round}
            _append(connection, lease, round_id, "opened", detail, now)
        return round_id

    def release(self, lease: Lease, round_id: str, number: int, base_model_round: int) -> bool:
        """Give a round that was opened ahead of its model that model, once.

        Args:
            lease: The population's coordinator lease.
            round_id: From `open`.
            number: The task's own count by now: the round before may have been abandoned.
            base_model_round: The model its devices get.

        Returns:
            False if the round has a model already, has ended, or was opened under
            an earlier epoch.

        Raises:
            Fenced: the lease was lost.
            UnknownRound, UnknownModel: there is no such round or base model.
        """
        now = self._clock()
        with write(self._engine) as connection:
            check_fence(connection, lease)
            task_id = _task(connection, round_id)
            _check_model(connection, task_id, base_model_round)
            released = connection.execute(
                update(rounds)
                .where(*_is_open_under(lease, round_id), rounds.c.base_model_round.is_(None))
                .values(number=number, base_model_round=base_model_round)
            )
            if released.rowcount != 1:
                return False
            detail = {"number": number, "base_model_round": base_model_round}
            _append(connection, lease, round_id, "released", detail, now)
        return True

    def commit_training(
        self,
        lease: Lease,
        round_id: str,
        state_sha256: str,
        checkpoint_sha256: str,
        metrics: Mapping[str, Any],
        statistics: Mapping[str, Any],
        participants: Iterable[bytes] = (),
    ) -> bool:
        """Make the round's result the task's newest model, or change nothing.

        The head moves from the round's base model r to r + 1, the model, the
        outcome, the history and the participations are written, all in one
        transaction. The blobs must be durable before.

        Args:
            lease: The population's coordinator lease.
            round_id: From `open`.
            state_sha256: Blob of the TFF server state.
            checkpoint_sha256: Blob of what devices download.
            metrics: Of the training, as JSON.
            statistics: Devices and seconds per phase, as JSON.
            participants: Ids of the devices whose part in this round counts
                towards a bound. Give none if the policy has no bound.

        Returns:
            False if the round has ended already, was opened under an earlier
            epoch, was not released, or its base is no longer the head.

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
                task_id = _task(connection, round_id, "training")
                if not _end(
                    connection, lease, round_id, "committed", now, metrics=metrics, stats=statistics
                ):
                    return False
                base = _move_head(connection, round_id, task_id)
                model = {
                    "task_id": task_id,
                    "round": base + 1,
                    "round_id": round_id,
                    "state_sha256": state_sha256,
                    "checkpoint_sha256": checkpoint_sha256,
                    "metrics": dict(metrics),
                }
                _execute_at(connection, _ADD_MODEL, models.c.created_at, now, model)
                detail = {"model_round": base + 1, "checkpoint_sha256": checkpoint_sha256}
                _append(connection, lease, round_id, "committed", detail, now)
                participations.record(connection, task_id, participants, now)
        except _HeadMoved:
            return False
        return True

    def commit_evaluation(
        self,
        lease: Lease,
        round_id: str,
        metrics: Mapping[str, Any],
        statistics: Mapping[str, Any],
        participants: Iterable[bytes] = (),
    ) -> bool:
        """Record an evaluation's metrics; no model changes.

        Returns and raises as `commit_training` does.
        """
        _check_json(metrics, statistics)
        now = self._clock()
        with write(self._engine) as connection:
            check_fence(connection, lease)
            task_id = _task(connection, round_id, "evaluation")
            if not _end(
                connection, lease, round_id, "committed", now, metrics=metrics, stats=statistics
            ):
                return False
            _append(connection, lease, round_id, "committed", {}, now)
            participations.record(connection, task_id, participants, now)
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
            _task(connection, round_id)
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
                _LEFT_OPEN,
                {"population": population, "name": lease.name, "epoch": lease.epoch},
            ).all()
            for round_id in left_open:
                _end(connection, lease, round_id, "abandoned", now, reason=COORDINATOR_LOST)
                _append(connection, lease, round_id, "abandoned", {"reason": COORDINATOR_LOST}, now)
        return left_open


def _computation(connection: Connection, task_id: str) -> str:
    computation = connection.scalar(_TASK, {"task_id": task_id})
    if computation is None:
        raise UnknownTask(f"there is no task {task_id!r}")
    return str(computation)


def _check_model(connection: Connection, task_id: str, round_: int) -> None:
    task = connection.execute(_TASK, {"task_id": task_id}).one_or_none()
    if task is None:
        raise UnknownTask(f"there is no task {task_id!r}")
    model_task = task.evaluates or task_id
    model = {"task_id": model_task, "round": round_}
    if not connection.execute(_MODEL, model).one_or_none():
        raise UnknownModel(f"task {model_task!r} has no model of round {round_}")


def _task(connection: Connection, round_id: str, computation: str | None = None) -> str:
    found = connection.execute(_TASK_OF_ROUND, {"round_id": round_id}).one_or_none()
    if found is None:
        raise UnknownRound(f"there is no round {round_id!r}")
    if computation is not None and found.computation != computation:
        raise ValueError(f"round {round_id!r} is of the {found.computation} kind")
    return str(found.task_id)


def _is_open_under(lease: Lease, round_id: str) -> tuple[ColumnElement[bool], ...]:
    return (
        rounds.c.round_id == round_id,
        rounds.c.outcome == "open",
        rounds.c.lease_name == lease.name,
        rounds.c.lease_epoch == lease.epoch,
    )


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
    now: float | ColumnElement[float],
    *,
    reason: str | None = None,
    metrics: Mapping[str, Any] | None = None,
    stats: Mapping[str, Any] | None = None,
) -> bool:
    ending: dict[str, Any] = {"of_round": round_id}
    statement = _ABANDON
    if outcome == "committed":
        statement, ending = update(rounds).where(*_is_open_under(lease, round_id)), {}
    ending |= {
        "outcome": outcome,
        "reason": reason,
        "metrics": dict(metrics or {}),
        "statistics": dict(stats or {}),
    }
    return _execute_at(connection, statement, rounds.c.ended_at, now, ending).rowcount == 1


def _move_head(connection: Connection, round_id: str, task_id: str) -> int:
    # Once the round is committed nobody changes its base.
    base = connection.scalar(_BASE, {"round_id": round_id})
    moved = connection.execute(_MOVE_HEAD, {"of_task": task_id, "base": base})
    # Without a base it is not the head either: the round was not released.
    if base is None or moved.rowcount != 1:
        raise _HeadMoved
    return int(base)


def _execute_at(
    connection: Connection,
    statement: Insert | Update,
    column: Column[float],
    now: float | ColumnElement[float],
    values: dict[str, Any],
) -> CursorResult[Any]:
    """Executes a statement with values of columns, and the time for one of them."""
    if isinstance(now, ColumnElement):
        return connection.execute(statement.values({column: now}), values)
    return connection.execute(statement, {**values, column.name: now})


def _append(
    connection: Connection,
    lease: Lease,
    round_id: str,
    event: str,
    detail: Mapping[str, Any],
    now: float | ColumnElement[float],
) -> None:
    line = {
        "round_id": round_id,
        "event": event,
        "lease_owner": lease.owner,
        "lease_epoch": lease.epoch,
        "detail": dict(detail),
    }
    _execute_at(connection, _APPEND, round_events.c.at, now, line)
