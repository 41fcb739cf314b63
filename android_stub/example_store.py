"""The app's on-device examples: collections in one SQLite file.

An example is one record of fixed-shape tensors; a collection's first `add`
fixes their names, dtypes and shapes. Each example is one row, so retention
can drop the oldest and a query can take the newest without rewriting others.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from device_plan.plan_pb2 import ExampleSelector

_SCHEMA = """
CREATE TABLE IF NOT EXISTS collections (
    name TEXT PRIMARY KEY,
    record TEXT NOT NULL,
    max_count INTEGER,
    max_age_s REAL
);
CREATE TABLE IF NOT EXISTS examples (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    collection TEXT NOT NULL REFERENCES collections (name),
    tag TEXT NOT NULL,
    added_at REAL NOT NULL,
    record BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS examples_by_collection ON examples (collection, id);
"""


class WrongExamples(ValueError):
    """Arrays that do not fit their collection; the message says which and how."""


class NotEnoughExamples(Exception):
    """The selector finds fewer examples than it demands."""

    def __init__(self, *, found: int, needed: int) -> None:
        super().__init__(f"{found} examples match, the plan needs {needed}")
        self.found = found
        self.needed = needed


@dataclass(frozen=True, kw_only=True)
class Retention:
    """How long examples stay; None means without limit."""

    max_count: int | None = None
    max_age_s: float | None = None

    def __post_init__(self) -> None:
        if self.max_count is not None and self.max_count < 1:
            raise ValueError(f"max_count must be at least 1, not {self.max_count}")
        if self.max_age_s is not None and not self.max_age_s > 0:
            raise ValueError(f"max_age_s must be positive, not {self.max_age_s}")


class ExampleStore:
    """Examples of one app on one device.

    The store keeps no connection open: a process with thousands of virtual
    devices must not hold thousands of files.

    Args:
        path: The SQLite file, made if missing, readable by its owner only.
        durable: False skips fsync. A killed process still loses nothing, but a
            power cut may; virtual devices can import their examples again.
    """

    __slots__ = ("_durable", "_path")

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        self._path = path
        self._durable = durable

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        new = not self._path.exists()
        if new:
            self._path.touch(mode=0o600)
        with closing(sqlite3.connect(self._path, timeout=10.0, isolation_level=None)) as database:
            database.execute(f"PRAGMA synchronous = {'FULL' if self._durable else 'OFF'}")
            # An empty file may also be one whose creator was killed.
            if new or not database.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
                database.executescript("BEGIN;" + _SCHEMA + "COMMIT;")
            yield database

    def add(
        self,
        collection: str,
        arrays: Mapping[str, np.ndarray],
        *,
        now: float,
        tag: str = "",
        retention: Retention | None = None,
    ) -> int:
        """Adds examples, all of them or none, and drops what retention no longer allows.

        Args:
            collection: Made by its first examples.
            arrays: One array per tensor; the first dimension counts the examples.
            now: Seconds; kept as the examples' age.
            tag: What a selector's criteria is compared with.
            retention: Replaces the collection's retention if given.

        Returns:
            The number of examples added.

        Raises:
            WrongExamples: no arrays, unequal lengths, or not the collection's tensors.
        """
        record = _record_of(collection, arrays)
        lengths = {len(array) for array in arrays.values()}
        if len(lengths) != 1:
            raise WrongExamples(
                f"collection {collection!r}: the arrays have different numbers of examples: "
                + ", ".join(f"{name} {len(array)}" for name, array in sorted(arrays.items()))
            )
        rows = np.empty(lengths.pop(), dtype=record)
        for name, array in arrays.items():
            rows[name] = array
        with self._open() as database:
            database.execute("BEGIN IMMEDIATE")
            try:
                self._declare(database, collection, record, retention)
                database.executemany(
                    "INSERT INTO examples (collection, tag, added_at, record) VALUES (?, ?, ?, ?)",
                    ((collection, tag, now, row.tobytes()) for row in rows),
                )
                _expire(database, collection, now)
                database.execute("COMMIT")
            except BaseException:
                database.execute("ROLLBACK")
                raise
        return len(rows)

    def _declare(
        self,
        database: sqlite3.Connection,
        collection: str,
        record: np.dtype,
        retention: Retention | None,
    ) -> None:
        known = database.execute(
            "SELECT record FROM collections WHERE name = ?", (collection,)
        ).fetchone()
        if known is None:
            database.execute(
                "INSERT INTO collections (name, record) VALUES (?, ?)",
                (collection, json.dumps(_describe(record))),
            )
        elif _understand(known[0]) != record:
            raise WrongExamples(
                f"collection {collection!r} holds {known[0]}, not {json.dumps(_describe(record))}"
            )
        if retention is not None:
            database.execute(
                "UPDATE collections SET max_count = ?, max_age_s = ? WHERE name = ?",
                (retention.max_count, retention.max_age_s, collection),
            )

    def count(self, collection: str, *, tag: str = "") -> int:
        """The examples stored under the tag ("" counts all); 0 for an unknown collection."""
        with self._open() as database:
            return _count(database, collection, tag)

    def query(self, selector: ExampleSelector, *, now: float) -> dict[str, np.ndarray]:
        """The selected examples in the order they were added, as one array per tensor.

        Of more than `max_examples` the newest are taken; `max_examples` 0 takes
        all. Expired examples are never returned, and are dropped.

        Raises:
            NotEnoughExamples: fewer than `min_examples` (at least one) match.
        """
        needed = max(1, selector.min_examples)
        with self._open() as database:
            described = database.execute(
                "SELECT record FROM collections WHERE name = ?", (selector.collection,)
            ).fetchone()
            if described is None:
                raise NotEnoughExamples(found=0, needed=needed)
            _expire(database, selector.collection, now)
            newest_first = database.execute(
                "SELECT record FROM examples WHERE collection = ? AND (? = '' OR tag = ?)"
                " ORDER BY id DESC LIMIT ?",
                (
                    selector.collection,
                    selector.criteria,
                    selector.criteria,
                    selector.max_examples or -1,
                ),
            ).fetchall()
        if len(newest_first) < needed:
            raise NotEnoughExamples(found=len(newest_first), needed=needed)
        data = b"".join(row[0] for row in reversed(newest_first))
        rows: np.ndarray = np.ndarray(
            len(newest_first), dtype=_understand(described[0]), buffer=data
        )
        return {name: np.ascontiguousarray(rows[name]) for name in rows.dtype.names or ()}


def _record_of(collection: str, arrays: Mapping[str, np.ndarray]) -> np.dtype:
    if not arrays:
        raise WrongExamples(f"collection {collection!r}: there is no array to add")
    for name, array in arrays.items():
        if array.ndim == 0:
            raise WrongExamples(f"array {name!r} has no first dimension to count examples by")
        if array.dtype.kind not in "biuf":
            raise WrongExamples(
                f"array {name!r} is {array.dtype}: examples are numbers or booleans"
            )
    return np.dtype(
        [
            (name, array.dtype.newbyteorder("<"), array.shape[1:])
            for name, array in sorted(arrays.items())
        ]
    )


def _describe(record: np.dtype) -> list[list]:
    fields: Mapping[str, Any] = record.fields or {}
    return [
        [name, fields[name][0].base.str, list(fields[name][0].shape)] for name in record.names or ()
    ]


def _understand(description: str) -> np.dtype:
    return np.dtype([(name, dtype, tuple(shape)) for name, dtype, shape in json.loads(description)])


def _count(database: sqlite3.Connection, collection: str, tag: str) -> int:
    (count,) = database.execute(
        "SELECT count(*) FROM examples WHERE collection = ? AND (? = '' OR tag = ?)",
        (collection, tag, tag),
    ).fetchone()
    return int(count)


def _expire(database: sqlite3.Connection, collection: str, now: float) -> None:
    max_count, max_age_s = database.execute(
        "SELECT max_count, max_age_s FROM collections WHERE name = ?", (collection,)
    ).fetchone()
    if max_age_s is not None:
        database.execute(
            "DELETE FROM examples WHERE collection = ? AND added_at < ?",
            (collection, now - max_age_s),
        )
    if max_count is not None:
        database.execute(
            "DELETE FROM examples WHERE collection = ? AND id <= coalesce((SELECT id FROM examples"
            " WHERE collection = ? ORDER BY id DESC LIMIT 1 OFFSET ?), 0)",
            (collection, collection, max_count),
        )
