"""The database: reachable, of the right schema, fast, and who coordinates what."""

import secrets
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, delete, insert, select, text
from sqlalchemy.engine import make_url

from server.configuration import ServerConfiguration
from server.doctor.finding import Finding, fine, skipped, warning, wrong
from server.doctor.rounds import EndedRound
from server.storage import migrations
from server.storage.schema import leases, populations, rounds

#: Seconds to connect, and to wait for a lock.
TIMEOUT_S = 5

#: Seconds by which this machine's clock may differ from the database's.
MUCH_SKEW_S = 2.0

#: Seconds of a commit.
SLOW_WRITE_S = 0.1

_WRITES = 5
_CHECK = "database"


class DatabaseExamination:
    """Looks at the database as it is: nothing is migrated, and what is written is removed.

    Args:
        configuration: Names it.
    """

    def __init__(self, configuration: ServerConfiguration) -> None:
        self._url = make_url(configuration.database_url)
        self._shown = self._url.render_as_string(hide_password=True)
        self._engine: Engine | None = None

    def findings(self) -> Iterator[Finding]:
        """Reachability, schema, clock and the latency of a commit."""
        sqlite = self._url.get_backend_name() == "sqlite"
        if sqlite and not Path(self._url.database or "").exists():
            yield skipped(_CHECK, f"{self._shown} does not exist: the first start makes it")
            return
        option = {"timeout": TIMEOUT_S} if sqlite else {"connect_timeout": TIMEOUT_S}
        try:
            engine = sqlalchemy.create_engine(self._url, connect_args=option)
            with engine.connect() as connection:
                began = time.perf_counter()
                connection.execute(text("SELECT 1"))
                took_s = time.perf_counter() - began
        except Exception as error:
            yield wrong(
                _CHECK,
                f"{self._shown} cannot be reached: {_first_line(error)}",
                "start it, or correct --database-url; from this machine, try to connect by hand",
            )
            return
        yield fine(_CHECK, f"{self._shown} answers in {took_s * 1000:.2f} ms")
        with engine.connect() as connection:
            schema = _schema(connection)
            yield schema
            if not sqlite:
                yield _skew(connection)
        if schema.status != "fine":
            return
        self._engine = engine
        yield self._write_latency(engine)

    def leases(self) -> Iterator[Finding]:
        """Who coordinates each population, and since when nobody does."""
        if self._engine is None:
            return
        with self._engine.connect() as connection:
            now = _database_now(connection)
            held = {row.name: row for row in connection.execute(select(leases))}
            names = connection.scalars(select(populations.c.name)).all()
        if not names:
            yield skipped("populations", "there are none: `nightshift task create` makes them")
        for name in names:
            row = held.get(f"coordinator/{name}")
            check = f"population {name}"
            remedy = "start a server; if one runs, its log and /readyz say why it has no lease"
            if row is None or not row.owner:
                yield warning(check, "nobody coordinates it: no round starts", remedy)
            elif row.expires < now:
                yield wrong(
                    check,
                    f"the lease of {row.owner} (epoch {row.epoch}) expired "
                    f"{now - row.expires:.1f} s ago",
                    remedy,
                )
            else:
                yield fine(
                    check,
                    f"coordinated by {row.owner}, epoch {row.epoch}, for {row.expires - now:.1f} s "
                    "more",
                )

    def ended_rounds(self, since_s: float) -> list[EndedRound] | None:
        """The rounds that ended in the last seconds; None if they cannot be read."""
        if self._engine is None:
            return None
        with self._engine.connect() as connection:
            since = time.time() - since_s
            rows = connection.execute(
                select(rounds.c.task_id, rounds.c.outcome, rounds.c.reason)
                .where(rounds.c.ended_at > since)
                .order_by(rounds.c.sequence)
            )
            return [EndedRound(row.task_id, row.outcome, row.reason) for row in rows]

    def _write_latency(self, engine: Engine) -> Finding:
        name = f"doctor/{secrets.token_hex(8)}"
        taken = []
        try:
            for _ in range(_WRITES):
                for statement in (
                    insert(leases).values(name=name, owner="", epoch=0, expires=0.0),
                    delete(leases).where(leases.c.name == name),
                ):
                    began = time.perf_counter()
                    with engine.begin() as connection:
                        connection.execute(statement)
                    taken.append(time.perf_counter() - began)
        except Exception as error:
            return wrong(
                "database writes",
                _first_line(error),
                "whatever holds the lock must let it go; or give this user the right to write",
            )
        seconds = statistics.median(taken)
        detail = f"{seconds * 1000:.2f} ms in the median of {len(taken)} commits"
        if seconds > SLOW_WRITE_S:
            return warning(
                "database writes", detail, "move the database nearer, or onto a faster disk"
            )
        return fine("database writes", detail)


def _schema(connection: Connection) -> Finding:
    check = "schema"
    config = Config()
    (location,) = migrations.__path__
    config.set_main_option("script_location", location.replace("%", "%%"))
    scripts = ScriptDirectory.from_config(config)
    known = [script.revision for script in scripts.walk_revisions()]
    newest = scripts.get_current_head()
    if not sqlalchemy.inspect(connection).has_table("alembic_version"):
        return warning(
            check,
            "the database has no tables of Nightshift",
            "an empty one gets them when a server first starts; or name the right database",
        )
    version = connection.scalar(text("SELECT version_num FROM alembic_version"))
    if version == newest:
        return fine(check, f"version {version}")
    if version in known:
        return wrong(
            check,
            f"version {version}, this program wants {newest}",
            "restart the server with this version: it migrates at its start. Make a backup before",
        )
    return wrong(
        check,
        f"version {version} is newer than this program, which knows {newest}",
        "use the version of Nightshift that wrote it, or a newer one",
    )


def _skew(connection: Connection) -> Finding:
    before = time.time()
    theirs = _database_now(connection)
    ours = (before + time.time()) / 2
    detail = f"this machine's is {ours - theirs:+.3f} s off the database's"
    if abs(ours - theirs) > MUCH_SKEW_S:
        return warning("clock", detail, "run an NTP client here and on the database's machine")
    return fine("clock", detail)


def _database_now(connection: Connection) -> float:
    if connection.dialect.name == "sqlite":
        return time.time()
    now: Any = connection.scalar(text("SELECT extract(epoch FROM clock_timestamp())"))
    return float(now)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
