"""The engine of a SQLite file: for a server on one machine."""

import os
import sqlite3
import threading
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import sqlalchemy
from sqlalchemy import URL, Connection, Engine, event

from server.storage.errors import UnusableDatabase

#: Seconds a transaction waits for another one's write before it fails. A write
#: takes under a millisecond; only a stopped process holds one longer.
BUSY_TIMEOUT_S = 30.0

#: Connections kept open, and how many more threads may have one for a moment.
POOL_SIZE = 8
POOL_OVERFLOW = 56

#: The execution option of a transaction that may write.
WRITES = "nightshift_write"

#: One lock per engine: its writers' queue.
_turns: WeakKeyDictionary[Engine, threading.Lock] = WeakKeyDictionary()


def sqlite_engine(url: URL, **settings: Any) -> Engine:
    """The engine of a file, which is made, for its owner only, if it does not exist.

    Args:
        url: Of a file, not of a database in memory.
        settings: More arguments of `sqlalchemy.create_engine`.

    Raises:
        UnusableDatabase: the file cannot be opened, or is of another kind.
    """
    path = Path(str(url.database))
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        _enable_wal(path)
    except (OSError, sqlite3.Error) as error:
        raise UnusableDatabase(f"cannot open the database {path}: {error}") from error
    engine = sqlalchemy.create_engine(
        url,
        connect_args={"timeout": BUSY_TIMEOUT_S},
        pool_size=POOL_SIZE,
        max_overflow=POOL_OVERFLOW,
        pool_timeout=BUSY_TIMEOUT_S,
        **settings,
    )
    _turns[engine] = threading.Lock()
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin)
    return engine


def writers_turn(engine: Engine) -> AbstractContextManager[object]:
    """Held by one thread of this process at a time, while it writes.

    SQLite's waiters poll with growing pauses and no order; the threads of this
    process, which are most of them, queue for a lock instead. Nothing for an
    engine of another database.
    """
    return _turns.get(engine) or nullcontext()


def _enable_wal(path: Path) -> None:
    with_wal = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    try:
        with_wal.execute("PRAGMA journal_mode=WAL")
    finally:
        with_wal.close()


def _configure(connection: Any, _record: object) -> None:
    # The driver would begin transactions by itself, and only at the first write.
    connection.isolation_level = None
    # FULL: a commit that was announced survives a power cut. Devices act on it,
    # and a privacy budget once charged must stay charged. It costs one fsync.
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")


def _begin(connection: Connection) -> None:
    if connection.get_execution_options().get(WRITES, False):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        # It waits for nobody, so it cannot fail as the database's statements do; the
        # driver itself takes a tenth of the time.
        driver: Any = connection.connection.driver_connection
        driver.execute("BEGIN")
