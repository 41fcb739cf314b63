"""Whose clock the rows' times are of.

Servers on several machines, whose clocks may differ, share a PostgreSQL: there
the database's clock is everybody's. A SQLite file has servers of one machine.
"""

import time
from collections.abc import Callable

from sqlalchemy import ColumnElement, Double, Engine, bindparam, literal_column

#: Seconds since the epoch, as a number or as SQL for the database to evaluate.
Clock = Callable[[], float | ColumnElement[float]]


def lease_clock(engine: Engine) -> Clock:
    """What leases expire by: the time at which a statement gets to its row."""
    return _of(engine, "clock_timestamp()")


def record_clock(engine: Engine) -> Clock:
    """What records are dated by: on PostgreSQL one time in all of a transaction."""
    return _of(engine, "transaction_timestamp()")


def in_statements(clock: Clock) -> ColumnElement[float]:
    """The clock as a part of statements that are made once: read whenever one is executed."""
    now = clock()
    if isinstance(now, ColumnElement):
        return now
    return bindparam("now", callable_=clock, type_=Double)


def _of(engine: Engine, function: str) -> Clock:
    if engine.dialect.name != "postgresql":
        return time.time
    now: ColumnElement[float] = literal_column(
        f"CAST(EXTRACT(EPOCH FROM {function}) AS DOUBLE PRECISION)", Double
    )
    return lambda: now
