"""Whose clock the rows' times are of.

Servers on several machines, whose clocks may differ, share a PostgreSQL: there
the database's clock is everybody's. A SQLite file has servers of one machine.
"""

import time
from collections.abc import Callable

from sqlalchemy import ColumnElement, Double, Engine, bindparam, literal_column

#: Seconds since the epoch, as a number or as SQL for the database to evaluate.
Clock = Callable[[], float | ColumnElement[float]]

_NOW: ColumnElement[float] = bindparam("now", type_=Double)


def lease_clock(engine: Engine) -> Clock:
    """What leases expire by: the time at which a statement gets to its row."""
    return _of(engine, "clock_timestamp()")


def record_clock(engine: Engine) -> Clock:
    """What records are dated by: on PostgreSQL one time in all of a transaction."""
    return _of(engine, "transaction_timestamp()")


def in_statements(clock: Clock) -> ColumnElement[float]:
    """The time as a part of statements that are made once; see `values`."""
    now = clock()
    return now if isinstance(now, ColumnElement) else _NOW


def values(clock: Clock) -> dict[str, float]:
    """What statements with the time in them are to be executed with, besides their own values."""
    now = clock()
    return {} if isinstance(now, ColumnElement) else {"now": now}


def _of(engine: Engine, function: str) -> Clock:
    if engine.dialect.name != "postgresql":
        return time.time
    now: ColumnElement[float] = literal_column(
        f"CAST(EXTRACT(EPOCH FROM {function}) AS DOUBLE PRECISION)", Double
    )
    return lambda: now
