"""What the database says of rounds, read past the server, with SQL of the tests' own."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.exc import OperationalError

from tests.server.live.served import DeployedTask


class Ledger:
    """A server's database in another process's hands.

    Args:
        url: Of SQLite or PostgreSQL.
    """

    def __init__(self, url: str) -> None:
        waits = {"timeout": 30.0} if url.startswith("sqlite:") else {}
        # No connection stays open: a test that reads SQLite's files loses its locks on them
        # (POSIX), and the connection would not hear of what a new server writes.
        self._engine = create_engine(url, connect_args=waits, poolclass=NullPool)

    def rows(self, query: str, **parameters: Any) -> Sequence[tuple[Any, ...]]:
        with self._engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(query), parameters)]

    def has_model(self, task_id: str, number: int) -> bool:
        query = "SELECT count(*) FROM models WHERE task_id = :task AND round = :number"
        ((count,),) = self.rows(query, task=task_id, number=number)
        return bool(count)

    def head(self, task_id: str) -> int:
        """The number of the newest model."""
        query = "SELECT max(round) FROM models WHERE task_id = :task"
        ((number,),) = self.rows(query, task=task_id)
        return int(number)

    def epoch(self, population: str) -> int:
        """Of the newest coordinator."""
        query = "SELECT epoch FROM leases WHERE name = :name"
        ((epoch,),) = self.rows(query, name=f"coordinator/{population}")
        return int(epoch)

    @contextmanager
    def closed(self) -> Iterator[None]:
        """PostgreSQL refuses every connection to the database, those that are open too."""
        name = self._engine.url.database
        elsewhere = create_engine(
            self._engine.url.set(database="template1"),
            poolclass=NullPool,
            isolation_level="AUTOCOMMIT",
        )
        cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"
        with elsewhere.connect() as connection:
            connection.exec_driver_sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            try:
                connection.execute(text(cut), {"name": name})
                yield
            finally:
                connection.exec_driver_sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else writes: SQLite's only write lock, or PostgreSQL's tables of models."""
        sqlite = self._engine.dialect.name == "sqlite"
        with self._engine.connect() as connection:
            if sqlite:
                # The driver's own BEGIN would take no lock.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                connection.execute(text("LOCK TABLE models IN EXCLUSIVE MODE"))
            yield
            connection.rollback()

    def may_write(self) -> bool:
        """Whether SQLite's write lock is free."""
        with self._engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA busy_timeout = 0")
            try:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            except OperationalError:
                return False
            finally:
                connection.exec_driver_sql("PRAGMA busy_timeout = 30000")
            connection.rollback()
        return True

    def assert_consistent(self, task: DeployedTask) -> None:
        """What must be true whenever a coordinator is there, whatever has happened to others."""
        own = {"task": task.task_id}
        # One commit a model and one model a commit, each with its place in the history.
        models = self.rows("SELECT round, round_id FROM models WHERE task_id = :task", **own)
        assert sorted(number for number, _ in models) == list(range(len(models)))
        committed = self.rows(
            "SELECT round_id, base_model_round FROM rounds "
            "WHERE task_id = :task AND outcome = 'committed'",
            **own,
        )
        assert sorted(committed) == sorted((r, number - 1) for number, r in models if number)
        events = self.rows(
            "SELECT e.round_id, e.event FROM round_events e JOIN rounds r "
            "ON r.round_id = e.round_id WHERE r.task_id = :task",
            **own,
        )
        for kind in ("opened", "released", "committed", "abandoned"):
            ids = [round_id for round_id, event in events if event == kind]
            assert len(ids) == len(set(ids)), kind
        ended = [round_id for round_id, event in events if event in ("committed", "abandoned")]
        assert len(ended) == len(set(ended))
        # Rounds of the dead have ended: one reports at most, and one waits for its model.
        open_ = [record for record in task.rounds() if record["outcome"] == "open"]
        assert len(open_) <= 2
        assert sum(record["base_model_round"] is not None for record in open_) <= 1
        for record in task.rounds():
            if record["outcome"] == "committed":
                # The plan's metric: each update of these tests counts one example.
                assert record["metrics"]["num_examples"] == record["statistics"]["accepted"]
        assert np.isfinite(task.weights(task.head)).all()
