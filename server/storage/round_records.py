"""What is known of rounds: their current rows, and their histories, which only grow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Engine, bindparam, select

from server.storage.database import read
from server.storage.errors import UnknownRound
from server.storage.finished_rounds import FinishedRounds
from server.storage.schema import round_events, rounds

Outcome = Literal["open", "committed", "abandoned"]

_COLUMNS = [column for column in rounds.c if column.name != "sequence"]

# Made once: making one takes as long as having SQLite carry it out.
_ONE = select(*_COLUMNS).where(rounds.c.round_id == bindparam("round_id"))
_OF_A_TASK = (
    select(*_COLUMNS).where(rounds.c.task_id == bindparam("task_id")).order_by(rounds.c.sequence)
)
_LAST_COMMITTED = (
    select(*_COLUMNS)
    .where(rounds.c.task_id == bindparam("task_id"), rounds.c.outcome == "committed")
    .order_by(rounds.c.base_model_round.desc(), rounds.c.sequence.desc())
    .limit(1)
)
_HISTORY = (
    select(*[column for column in round_events.c if column.name != "sequence"])
    .where(round_events.c.round_id == bindparam("round_id"))
    .order_by(round_events.c.sequence)
)


@dataclass(frozen=True, kw_only=True)
class RoundRecord:
    """What is known of a round.

    Attributes:
        number: The task's own count of rounds; an abandoned round's may be used again.
        base_model_round: The model that its devices start from or evaluate; None until
            a round that was opened ahead of its model is released.
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
    base_model_round: int | None
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
    event: Literal["opened", "released", "committed", "abandoned"]
    lease_owner: str
    lease_epoch: int
    detail: Mapping[str, Any]
    at: float


class RoundRecords:
    """The rounds of one database, to read."""

    def __init__(self, *, engine: Engine) -> None:
        self._engine = engine

    def get(self, round_id: str) -> RoundRecord:
        """Raises UnknownRound."""
        with read(self._engine) as connection:
            row = connection.execute(_ONE, {"round_id": round_id}).one_or_none()
        if row is None:
            raise UnknownRound(f"there is no round {round_id!r}")
        return RoundRecord(**row._mapping)

    def list(self, task_id: str) -> Sequence[RoundRecord]:
        """The task's rounds, in the order in which they were opened."""
        with read(self._engine) as connection:
            rows = connection.execute(_OF_A_TASK, {"task_id": task_id}).all()
        return [RoundRecord(**row._mapping) for row in rows]

    def last_committed(self, task_id: str) -> RoundRecord | None:
        """The task's committed round with the newest base model, if any."""
        with read(self._engine) as connection:
            row = connection.execute(_LAST_COMMITTED, {"task_id": task_id}).one_or_none()
        return None if row is None else RoundRecord(**row._mapping)

    def finished(self) -> FinishedRounds:
        """A watch over the rounds that end from now on."""
        return FinishedRounds(engine=self._engine)

    def history(self, round_id: str) -> Sequence[RoundEvent]:
        """Everything that happened to the round, in order; empty if there is none."""
        with read(self._engine) as connection:
            rows = connection.execute(_HISTORY, {"round_id": round_id}).all()
        return [RoundEvent(**row._mapping) for row in rows]
