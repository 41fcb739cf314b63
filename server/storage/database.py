"""Opening the database, and the two kinds of transaction on it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from server.storage.errors import DatabaseUnavailable, UnusableDatabase
from server.storage.sqlite import WRITES, sqlite_engine, writers_turn

_KINDS = "use sqlite:////absolute/path/nightshift.db or postgresql+psycopg://user@host/name"

#: PostgreSQL refuses NaN in JSON; SQLite would not.
_SETTINGS = {"json_serializer": partial(json.dumps, allow_nan=False)}


def open_database(url: str) -> Engine:
    """The engine of a database whose schema is up to date; many threads may share it.

    Args:
        url: `sqlite:////absolute/path/nightshift.db`. The file is made, readable
            by its owner only (it holds salts), if it does not exist; its
            directory must. Or `postgresql+psycopg://user:password@host/name`.

    Raises:
        UnusableDatabase: the database cannot be reached, is of another kind, or
            was made by a newer version.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        # Without the text of the error: the URL may hold a password.
        raise UnusableDatabase(f"that is not a database URL: {_KINDS}") from error
    kind = parsed.get_backend_name()
    if kind == "postgresql":
        return _open_postgresql(parsed)
    if kind != "sqlite" or not parsed.database or parsed.database == ":memory:":
        raise UnusableDatabase(
            f"{parsed.render_as_string()!r} is neither a SQLite file nor PostgreSQL: {_KINDS}"
        )
    engine = sqlite_engine(parsed, **_SETTINGS)
    try:
        with write(engine) as connection:
            _migrate(connection)
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

    Raises:
        DatabaseUnavailable: nothing was written, or, if the database vanished
            during the commit, everything.
    """
    with _named_errors(engine), writers_turn(engine), engine.connect() as connection:
        connection.execution_options(**{WRITES: True})
        with connection.begin():
            yield connection


@contextmanager
def read(engine: Engine) -> Iterator[Connection]:
    """A transaction that only reads; it never waits for a writer.

    Raises:
        DatabaseUnavailable: the database does not answer.
    """
    with _named_errors(engine), engine.connect() as connection:
        yield connection


def upsert(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that can say ON CONFLICT, in the connection's dialect."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


@contextmanager
def _named_errors(engine: Engine) -> Iterator[None]:
    try:
        yield
    except (DBAPIError, PoolTimeout) as error:
        if not _is_the_databases_fault(error):
            raise
        # The driver's words alone: SQLAlchemy's have the statement's parameters in them.
        words = str(error.orig if isinstance(error, DBAPIError) else error).strip()
        raise DatabaseUnavailable(
            f"the database {engine.url.render_as_string()} did not do its work: {words}"
        ) from error


def _is_the_databases_fault(error: DBAPIError | PoolTimeout) -> bool:
    if isinstance(error, OperationalError | InterfaceError | PoolTimeout):
        return True
    # Drivers give the end of a connection other classes too.
    return error.connection_invalidated


def _open_postgresql(url: URL) -> Engine:
    try:
        # Here, so that a server with SQLite does not need the driver.
        from server.storage.postgresql import lock_schema, migration_engine, postgresql_engine
    except ImportError as error:
        raise UnusableDatabase(
            "PostgreSQL needs a driver: pip install 'nightshift[postgres]'"
        ) from error
    url = url.set(drivername="postgresql+psycopg")
    engine = postgresql_engine(url, **_SETTINGS)
    try:
        if not _is_up_to_date(engine):
            migrates = migration_engine(url)
            with _named_errors(engine), migrates.begin() as connection:
                lock_schema(connection)
                _migrate(connection)
    except Exception as error:
        engine.dispose()
        if isinstance(error, DatabaseUnavailable):
            raise UnusableDatabase(f"cannot open the database: {error}") from error
        raise
    return engine


def _is_up_to_date(engine: Engine) -> bool:
    with read(engine) as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    return current == ScriptDirectory.from_config(_migrations()).get_current_head()


def _migrations() -> Config:
    config = Config()
    location = str(Path(__file__).with_name("migrations"))
    config.set_main_option("script_location", location.replace("%", "%%"))
    return config


def _migrate(connection: Connection) -> None:
    config = _migrations()
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise UnusableDatabase(
            f"the database {connection.engine.url.database} has a schema that this version of "
            f"Nightshift does not know ({error}): use the version that wrote it, or a newer one"
        ) from error
