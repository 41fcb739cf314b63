"""The rounds that end, each told once to whoever watches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Engine, and_, func, or_, select

from server.storage.database import read
from server.storage.schema import rounds, tasks

#: Rounds are numbered before their transaction commits, so that one may appear after
#: others with higher numbers; never so many.
_LATE = 64


@dataclass(frozen=True, kw_only=True)
class FinishedRound:
    """A round that is committed or abandoned, with what statistics want of it.

    Attributes:
        reason: Why it was abandoned; None if it was not.
        statistics: Of the `Round`; empty if its coordinator or its master was lost.
    """

    task_id: str
    computation: str
    outcome: Literal["committed", "abandoned"]
    reason: str | None
    statistics: Mapping[str, Any]


class FinishedRounds:
    """The rounds of one database that end from now on. For one thread at a time.

    Each question is one statement, whose cost grows with the rounds that are open
    or new, not with the history.

    Args:
        engine: From `open_database`.

    Raises:
        DatabaseUnavailable: the database does not answer.
    """

    def __init__(self, *, engine: Engine) -> None:
        self._engine = engine
        with read(engine) as connection:
            newest = connection.scalar(select(func.max(rounds.c.sequence))) or 0
            self._after = newest - _LATE
            states = connection.execute(
                select(rounds.c.sequence, rounds.c.outcome).where(
                    or_(rounds.c.outcome == "open", rounds.c.sequence > self._after)
                )
            ).all()
        self._open = {row.sequence for row in states if row.outcome == "open"}
        self._told = {row.sequence for row in states} - self._open

    @property
    def open(self) -> int:
        """Rounds that were open at the last question."""
        return len(self._open)

    def take(self) -> Sequence[FinishedRound]:
        """Those that have ended since the last question, in the order of their opening.

        Raises:
            DatabaseUnavailable: as for the constructor; none is lost.
        """
        number = rounds.c.sequence
        with read(self._engine) as connection:
            rows = connection.execute(
                select(
                    number,
                    rounds.c.task_id,
                    tasks.c.computation,
                    rounds.c.outcome,
                    rounds.c.reason,
                    rounds.c.statistics,
                )
                .join(tasks, tasks.c.task_id == rounds.c.task_id)
                .where(
                    or_(
                        number.in_(self._open),
                        and_(number > self._after, number.not_in(self._told)),
                    )
                )
                .order_by(number)
            ).all()
        self._open = {row.sequence for row in rows if row.outcome == "open"}
        self._told |= {row.sequence for row in rows} - self._open
        self._after = max([self._after, *(row.sequence - _LATE for row in rows)])
        self._told = {each for each in self._told if each > self._after}
        return [
            FinishedRound(
                task_id=row.task_id,
                computation=row.computation,
                outcome=row.outcome,
                reason=row.reason,
                statistics=row.statistics,
            )
            for row in rows
            if row.outcome != "open"
        ]
