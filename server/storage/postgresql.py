"""The engine of a PostgreSQL database: for servers on several machines.

Whatever becomes of the database, a call ends within a stated time. The server's
own timeouts end what waits for locks or runs for long; the client's end what
waits for a server that is silent, which TCP does not notice while the machine
that it runs on still answers.
"""

from collections.abc import Mapping
from typing import Any

import psycopg
import sqlalchemy
from sqlalchemy import URL, Connection, Engine, event

#: Seconds to get a connection to each of the URL's hosts.
CONNECT_TIMEOUT_S = 5

#: Seconds a statement waits for a row that another transaction has locked.
LOCK_TIMEOUT_S = 5

#: Seconds a statement runs, with its waits.
STATEMENT_TIMEOUT_S = 8

#: Seconds without an answer after which a connection is given up. Above the
#: server's own timeouts, so that a server that lives says what was wrong.
ANSWER_TIMEOUT_S = 10.0

#: Seconds a thread waits for one of the process's connections.
POOL_TIMEOUT_S = 5.0

#: Seconds a client may be silent in a transaction. Its locks are then released:
#: those of a process that is frozen, or whose machine has vanished.
IDLE_IN_TRANSACTION_TIMEOUT_S = 5

#: Seconds in which the steps of the schema must be done, waiting for another
#: server that does them included.
MIGRATION_TIMEOUT_S = 600.0

#: Connections kept open, and how many more threads may have one for a moment.
POOL_SIZE = 4
POOL_OVERFLOW = 28

#: Finds a peer that is gone within 12 s also while nobody waits for an answer.
_KEEPALIVE = {
    "keepalives": 1,
    "keepalives_idle": 6,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}

#: The advisory lock under which the schema is changed: "nights" in ASCII.
_SCHEMA_LOCK = 0x6E6967687473


class ImpatientConnection(psycopg.Connection[Any]):
    """A connection that is closed when the server leaves a statement unanswered."""

    answer_timeout_s = ANSWER_TIMEOUT_S

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """Raises psycopg.OperationalError when there is no answer in time."""
        limit = self.answer_timeout_s if timeout is None else timeout
        try:
            return super().wait(gen, interval, limit)
        except psycopg.errors._WaitTimeout:
            if timeout is not None:
                raise
            self.close()
            raise psycopg.OperationalError(f"no answer for {limit:g} s") from None


class _PatientConnection(ImpatientConnection):
    answer_timeout_s = MIGRATION_TIMEOUT_S


def postgresql_engine(url: URL, **settings: Any) -> Engine:
    """The engine of a database on a server; its connections are made when they are needed.

    Args:
        url: `postgresql+psycopg://user@host/name`; what libpq knows may follow
            as a query, e.g. `?sslmode=verify-full`, also a timeout of one's own.
        settings: More arguments of `sqlalchemy.create_engine`.
    """
    return _engine(
        url,
        ImpatientConnection,
        {
            "statement_timeout": STATEMENT_TIMEOUT_S,
            "lock_timeout": LOCK_TIMEOUT_S,
            "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION_TIMEOUT_S,
        },
        pool_size=POOL_SIZE,
        max_overflow=POOL_OVERFLOW,
        pool_timeout=POOL_TIMEOUT_S,
        # A connection that was cut while nobody used it is replaced unnoticed.
        pool_pre_ping=True,
        # The database may have moved behind its name.
        pool_recycle=1800,
        **settings,
    )


def migration_engine(url: URL) -> Engine:
    """An engine for the schema's steps only, which may take minutes."""
    limits = {"statement_timeout": MIGRATION_TIMEOUT_S, "lock_timeout": MIGRATION_TIMEOUT_S}
    return _engine(url, _PatientConnection, limits, poolclass=sqlalchemy.NullPool)


def lock_schema(connection: Connection) -> None:
    """Lets one server at a time change the schema, until the transaction ends."""
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_SCHEMA_LOCK})")


def _engine(
    url: URL, kind: type[ImpatientConnection], limits_s: Mapping[str, float], **settings: Any
) -> Engine:
    # A stricter isolation that the database has as its default would make
    # transactions fail that here wait for each other.
    options = ["-c default_transaction_isolation=read\\ committed"]
    options += [f"-c {name}={int(seconds * 1000)}" for name, seconds in limits_s.items()]
    own = url.query.get("options", "")
    if isinstance(own, str):
        own = (own,)
    connect_args: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "application_name": "nightshift",
        **_KEEPALIVE,
    }
    connect_args = {name: value for name, value in connect_args.items() if name not in url.query}
    # The last one counts: what the operator wrote.
    connect_args["options"] = " ".join([*options, *own])
    engine = sqlalchemy.create_engine(
        url.difference_update_query(["options"]), connect_args=connect_args, **settings
    )

    @event.listens_for(engine, "do_connect")
    def connect(
        _dialect: object, _record: object, arguments: list[Any], named: dict[str, Any]
    ) -> Any:
        return kind.connect(*arguments, **named)

    return engine
