"""The database opens with the right schema, however it is opened."""

import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, create_engine, insert, select, text
from sqlalchemy.exc import IntegrityError

from server.storage.database import open_database, read, write
from server.storage.errors import UnusableDatabase
from server.storage.registry import Registry
from server.storage.schema import leases, metadata, models
from tests.server.storage.racing import race_processes


def test_migrations_lead_to_the_declared_schema(engine: Engine) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_opening_again_keeps_what_is_stored(url: str) -> None:
    first = open_database(url)
    Registry(engine=first).leases.acquire("a", "me", 60)
    first.dispose()
    second = open_database(url)
    with read(second) as connection:
        assert connection.scalar(select(leases.c.owner)) == "me"
    second.dispose()


def test_8_processes_may_open_a_new_database_at_once(url: str) -> None:
    def open_and_count(_: int) -> int:
        with read(open_database(url)) as connection:
            return len(connection.execute(text("SELECT * FROM alembic_version")).all())

    assert race_processes(8, open_and_count) == [1] * 8


def test_commits_to_sqlite_are_durable(sqlite_url: str) -> None:
    engine = open_database(sqlite_url)
    with engine.connect() as connection:
        pragmas = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        ]
    engine.dispose()
    assert pragmas == ["wal", 2, 1, 30_000]


def test_foreign_keys_hold(engine: Engine) -> None:
    with pytest.raises(IntegrityError), write(engine) as connection:
        connection.execute(
            insert(models).values(
                task_id="none",
                round=0,
                state_sha256="",
                checkpoint_sha256="",
                metrics={},
                created_at=0,
            )
        )


def test_a_write_that_fails_leaves_nothing_and_blocks_nobody(engine: Engine) -> None:
    row = {"name": "a", "owner": "me", "epoch": 1, "expires": 0.0}
    with pytest.raises(IntegrityError), write(engine) as connection:
        connection.execute(insert(leases), [row, row])
    with write(engine) as connection:
        assert connection.execute(select(leases)).all() == []


def test_a_reader_does_not_wait_for_a_writer(engine: Engine) -> None:
    seen: list[int] = []

    def look() -> None:
        with read(engine) as connection:
            seen.append(len(connection.execute(select(leases)).all()))

    with write(engine) as connection:
        connection.execute(insert(leases).values(name="a", owner="me", epoch=1, expires=0.0))
        reader = threading.Thread(target=look)
        reader.start()
        reader.join(10)
        assert seen == [0]


def test_only_the_owner_can_read_the_file(sqlite_url: str) -> None:
    open_database(sqlite_url).dispose()
    assert Path(sqlite_url.removeprefix("sqlite:///")).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://host/nightshift"])
def test_another_kind_of_database_is_refused(url: str) -> None:
    with pytest.raises(UnusableDatabase, match=r"sqlite:////absolute.*or postgresql"):
        open_database(url)


def test_a_missing_directory_and_a_foreign_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(UnusableDatabase, match="nowhere"):
        open_database(f"sqlite:///{tmp_path}/nowhere/a.db")
    (tmp_path / "letter.txt").write_text("Dear Sir or Madam, " * 100)
    with pytest.raises(UnusableDatabase, match=r"letter\.txt"):
        open_database(f"sqlite:///{tmp_path}/letter.txt")


def test_a_database_of_a_newer_version_is_refused(url: str) -> None:
    open_database(url).dispose()
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(UnusableDatabase, match="9999"):
        open_database(url)
