"""Opening the database, and the two kinds of transaction on it."""

import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, Table, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url

#: Seconds a transaction waits for another one's write before it fails. A write
#: takes under a millisecond; only a stopped process holds one longer.
BUSY_TIMEOUT_S = 30.0

#: Connections kept open, and how many more threads may have one for a moment.
POOL_SIZE = 8
POOL_OVERFLOW = 56

_WRITE = "nightshift_write"

#: One lock per SQLite engine: its writers' queue.
_turns: WeakKeyDictionary[Engine, threading.Lock] = WeakKeyDictionary()


class UnusableDatabase(RuntimeError):
    """The database cannot be opened; the message says why and what to do."""


def open_database(url: str) -> Engine:
    """The engine of a database whose schema is up to date; many threads may share it.

    Args:
        url: `sqlite:////absolute/path/nightshift.db`. The file is made, readable
            by its owner only (it holds salts), if it does not exist; its
            directory must.

    Raises:
        UnusableDatabase: not a SQLite file, or made by a newer version.
    """
    parsed = make_url(url)
    path = parsed.database
    if parsed.get_backend_name() != "sqlite" or not path or path == ":memory:":
        raise UnusableDatabase(
            f"{parsed.render_as_string()!r} is not a SQLite file: "
            "use sqlite:////absolute/path/nightshift.db"
        )
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        _enable_wal(path)
    except (OSError, sqlite3.Error) as error:
        raise UnusableDatabase(f"cannot open the database {path}: {error}") from error
    engine = sqlalchemy.create_engine(
        parsed,
        connect_args={"timeout": BUSY_TIMEOUT_S},
        pool_size=POOL_SIZE,
        max_overflow=POOL_OVERFLOW,
        pool_timeout=BUSY_TIMEOUT_S,
        # PostgreSQL refuses NaN in JSON; refuse it here too.
        json_serializer=partial(json.dumps, allow_nan=False),
    )
    _turns[engine] = threading.Lock()
    event.listen(engine, "connect", _configure_connection)
    event.listen(engine, "begin", _begin)
    try:
        _migrate(engine)
    except Exception:
        engine.dispose()
        raise
    return engine


@contextmanager
def write(engine: Engine) -> Iterator[Connection]:
    """A transaction that may write: committed at the end, rolled back on an exception.

    On SQLite it holds the write lock from its beginning, so that what it reads
    stays true until it commits. On PostgreSQL (READ COMMITTED) the statements
    themselves lock the rows they depend on.
    """
    # SQLite's waiters poll with growing pauses and no order; the threads of this
    # process, which are most of them, queue for a lock instead.
    turn = _turns.get(engine) or nullcontext()
    with turn, engine.execution_options(**{_WRITE: True}).begin() as connection:
        yield connection


@contextmanager
def read(engine: Engine) -> Iterator[Connection]:
    """A transaction that only reads; on SQLite it never waits for a writer."""
    with engine.connect() as connection:
        yield connection


def upsert(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that can say ON CONFLICT, in the connection's dialect."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


def _enable_wal(path: str) -> None:
    with_wal = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    try:
        with_wal.execute("PRAGMA journal_mode=WAL")
    finally:
        with_wal.close()


def _configure_connection(connection: Any, _record: object) -> None:
    # The driver would begin transactions by itself, and only at the first write.
    connection.isolation_level = None
    # FULL: a commit that was announced survives a power cut. Devices act on it,
    # and a privacy budget once charged must stay charged. It costs one fsync.
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _migrate(engine: Engine) -> None:
    config = Config()
    location = str(Path(__file__).with_name("migrations"))
    config.set_main_option("script_location", location.replace("%", "%%"))
    with write(engine) as connection:
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise UnusableDatabase(
                f"the database {engine.url.database} has a schema that this version of "
                f"Nightshift does not know ({error}): use the version that wrote it, or a newer one"
            ) from error
