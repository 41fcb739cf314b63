"""Whatever becomes of PostgreSQL, a call ends with an error that says so, and then it goes on.

That calls end is shown by these tests' ending: each would wait for ever otherwise.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from sqlalchemy import Engine, event, insert, select

from server.storage.database import open_database, read, write
from server.storage.errors import DatabaseUnavailable, UnusableDatabase
from server.storage.leases import Fenced, Lease, check_fence
from server.storage.postgresql import ImpatientConnection
from server.storage.registry import Registry
from server.storage.schema import leases
from tests.postgresql import PrivatePostgresql
from tests.server.storage.conftest import create_tasks

ROW = {"name": "row", "owner": "me", "epoch": 1, "expires": 0.0}


@pytest.fixture(scope="module")
def server() -> Iterator[PrivatePostgresql]:
    """One that the tests of this module may freeze and kill."""
    with PrivatePostgresql() as server:
        yield server


@pytest.fixture
def url(server: PrivatePostgresql, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(ImpatientConnection, "answer_timeout_s", 1.0)
    return f"{server.new_database()}&connect_timeout=2"


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = open_database(url)
    yield engine
    engine.dispose()


def names(engine: Engine) -> list[str]:
    with read(engine) as connection:
        return list(connection.scalars(select(leases.c.name)))


def test_calls_fail_while_the_database_is_frozen_and_succeed_afterwards(
    server: PrivatePostgresql, engine: Engine
) -> None:
    registry = Registry(engine=engine)
    calls: list[Callable[[], object]] = [
        lambda: registry.leases.acquire("a", "me", 10),
        lambda: registry.leases.holder("a"),
        registry.populations.list,
    ]
    registry.populations.list()
    server.freeze()
    try:
        for call in calls:
            with pytest.raises(DatabaseUnavailable, match="did not do its work"):
                call()
    finally:
        server.thaw()
    for call in calls:
        call()
    assert registry.leases.holder("a")


def test_a_transaction_that_freezes_midway_has_no_effect(
    server: PrivatePostgresql, engine: Engine
) -> None:
    def freeze_midway() -> None:
        with write(engine) as connection:
            connection.execute(insert(leases).values(ROW))
            server.freeze()
            try:
                connection.execute(select(leases))
            finally:
                server.thaw()

    with pytest.raises(DatabaseUnavailable, match="no answer for 1 s"):
        freeze_midway()
    with write(engine) as connection:
        connection.execute(insert(leases).values(ROW))
    assert names(engine) == ["row"]


def test_a_killed_database_fails_calls_until_it_is_back(
    server: PrivatePostgresql, engine: Engine
) -> None:
    registry = Registry(engine=engine)
    tasks = create_tasks(registry)
    lease = registry.leases.acquire("a", "me", 1000)
    assert lease
    round_id = registry.rounds.open(lease, tasks.training, 1, 0)

    def kill_midway() -> None:
        with write(engine) as connection:
            connection.execute(insert(leases).values(ROW))
            server.kill()
            connection.execute(select(leases))

    with pytest.raises(DatabaseUnavailable):
        kill_midway()
    with pytest.raises(DatabaseUnavailable):
        registry.rounds.commit_training(lease, round_id, "s", "c", {}, {})
    server.start()
    assert registry.leases.renew(lease, 1000)
    assert registry.rounds.commit_training(lease, round_id, "s", "c", {}, {})
    assert names(engine) == ["a"]


def test_connections_cut_while_idle_are_replaced_unnoticed(
    server: PrivatePostgresql, engine: Engine
) -> None:
    registry = Registry(engine=engine)
    assert registry.leases.acquire("a", "me", 10)
    server.kill()
    server.start()
    assert registry.leases.holder("a")


def test_a_commit_whose_answer_is_lost_can_be_tried_again(
    server: PrivatePostgresql, engine: Engine
) -> None:
    registry = Registry(engine=engine)
    tasks = create_tasks(registry)
    lease = registry.leases.acquire("a", "me", 1000)
    assert lease
    round_id = registry.rounds.open(lease, tasks.training, 1, 0)

    def commit() -> bool:
        return registry.rounds.commit_training(lease, round_id, "s", "c", {}, {}, [b"device"])

    @event.listens_for(engine, "commit", once=True)
    def lose_the_answer(_connection: object) -> None:
        server.freeze()

    try:
        with pytest.raises(DatabaseUnavailable):
            commit()
    finally:
        server.thaw()
    # The database had got the request, and did it when it woke.
    assert not commit()
    assert registry.rounds.get(round_id).outcome == "committed"
    assert registry.models.head(tasks.training).round_id == round_id
    found = registry.participations.of(tasks.training, [b"device"])
    assert found[b"device"].count == 1


def test_a_holder_that_freezes_in_a_transaction_is_fenced_all_the_same(
    url: str, engine: Engine
) -> None:
    stale = Registry(engine=engine).leases.acquire("a", "frozen", 1e-9)
    assert stale
    impatient = open_database(f"{url}&options=-c idle_in_transaction_session_timeout=300")
    successor = Registry(engine=engine)

    def write_after_a_freeze() -> None:
        with ThreadPoolExecutor(1) as elsewhere, write(impatient) as connection:
            check_fence(connection, stale)
            taken = elsewhere.submit(successor.leases.acquire, "a", "successor", 10)
            # The holder does nothing meanwhile.
            assert taken.result() == Lease("a", "successor", 2)
            connection.execute(insert(leases).values(ROW))

    with pytest.raises(DatabaseUnavailable, match="idle-in-transaction timeout"):
        write_after_a_freeze()
    with pytest.raises(Fenced), write(impatient) as connection:
        check_fence(connection, stale)
    assert names(engine) == ["a"]
    impatient.dispose()


def test_a_row_that_someone_keeps_locked_is_not_waited_for_for_ever(
    url: str, engine: Engine
) -> None:
    Registry(engine=engine).leases.acquire("a", "me", 10)
    impatient = open_database(f"{url}&options=-c lock_timeout=200")
    with psycopg.connect(url.replace("+psycopg", "")) as someone:
        someone.execute("SELECT * FROM leases FOR UPDATE")
        with pytest.raises(DatabaseUnavailable, match="lock timeout"):
            Registry(engine=impatient).leases.acquire("a", "me", 10)
    assert Registry(engine=impatient).leases.acquire("a", "me", 10)
    impatient.dispose()


def test_a_database_that_is_not_there_cannot_be_opened(server: PrivatePostgresql, url: str) -> None:
    for reason in (lambda: None, server.freeze):
        unreachable = url if reason == server.freeze else url.replace("host=/", "host=/nowhere/")
        reason()
        try:
            with pytest.raises(UnusableDatabase, match="cannot open the database") as raised:
                open_database(unreachable.replace("@/", ":secret@/"))
        finally:
            server.thaw()
        assert "secret" not in str(raised.value)
