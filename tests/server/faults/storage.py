"""The real registry on a real database, and blobs, that fail when the schedule says so."""

from __future__ import annotations

import random
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import Engine

from server.storage.blobs import BlobNotFound, BlobStore
from server.storage.database import open_database
from server.storage.errors import DatabaseUnavailable
from server.storage.registry import Registry
from tests.server.faults.fault import Fault
from tests.server.faults.process import Process
from tests.server.faults.world import World, chance_from

#: Seconds that an operation takes at most when nothing slows it.
OPERATION_S = 0.004


class Database:
    """One SQLite file that is set back to a prepared content for each run.

    Args:
        prepare: Fills the registry that every run begins with.

    Attributes:
        found: See `Known`.
    """

    def __init__(self, prepare: Callable[[Registry], None]) -> None:
        memory = Path("/dev/shm")
        self._directory = tempfile.TemporaryDirectory(
            prefix="nightshift-faults-", dir=memory if memory.is_dir() else None
        )
        self.engine = open_database(f"sqlite:///{self._directory.name}/registry.db")
        sqlalchemy.event.listen(self.engine, "connect", _without_sync)
        self.engine.dispose()
        with chance_from(random.Random(0)):
            prepare(Registry(engine=self.engine, clock=lambda: 0.0))
        self.found: dict[tuple[Any, ...], Any] = {}
        self._prepared = sqlite3.connect(":memory:")
        self._copy(to=self._prepared)

    def reset(self) -> None:
        """Back to the prepared content."""
        with closing(self.engine.raw_connection()) as connection:
            self._prepared.backup(connection.driver_connection)

    def _copy(self, *, to: sqlite3.Connection) -> None:
        with closing(self.engine.raw_connection()) as connection:
            connection.driver_connection.backup(to)


def _without_sync(connection: Any, _record: object) -> None:
    # What a power cut would take is not what is tested here.
    connection.execute("PRAGMA synchronous=OFF")


class StorageFailed(DatabaseUnavailable):
    """The database or the blob store did not answer, or lost its connection."""


class Operations:
    """What a process does with its stores: each takes its time, and may fail.

    Args:
        world: The run.
        process: Whose operations they are.
        committed: Told the name, the arguments and the result of each operation on
            the registry that has taken effect.
        waits: Whether they take time. Those of code that holds a lock of a real
            thread must not: nothing else could run until it is released.
    """

    def __init__(
        self,
        world: World,
        process: Process,
        committed: Callable[[Process, str, tuple[Any, ...], Any], None],
        *,
        waits: bool = True,
    ) -> None:
        self._waits = waits
        self.world = world
        self.process = process
        self._committed = committed
        self._rng = random.Random(world.rng.random())

    def perform(self, name: str, operation: Callable[[], Any], args: tuple[Any, ...] = ()) -> Any:
        """Carries an operation out.

        Raises:
            StorageFailed: by the schedule's wish, before it took effect or after.
        """
        world = self.world
        if world.running_task() is None:
            return operation()
        world.effect()
        fault = self._fault(name)
        if self._waits:
            world.time.sleep(self._rng.uniform(0.0, OPERATION_S))
            world.strike(fault, "before")
        if fault is not None and fault.kind == "fail before":
            raise StorageFailed(name)
        result = self._carry_out(name, operation, args)
        if fault is not None and fault.kind == "repeat":
            # A library that had no answer sent it again: the answer is to the second.
            result = self._carry_out(name, operation, args)
        if self._waits:
            world.strike(fault, "after")
        if fault is not None and fault.kind == "fail after":
            raise StorageFailed(name)
        return result

    def _carry_out(self, name: str, operation: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        result = operation()
        if self.world.traced:
            self.world.trace(f"store {name}{_arguments(args)} -> {result!r:.60}")
        self._committed(self.process, name, args, result)
        return result

    def _fault(self, name: str) -> Fault | None:
        cell = self.world.running_cell()
        return self.world.injector.at(f"store {cell.role if cell else 'process'} {name}")


class Known:
    """What reads have found since what they depend on was written last, by anybody.

    All processes of a run read the same things over and over, and every run begins
    with the same database.

    Args:
        prepared: What reads find before anything was written; of all runs that begin so.
    """

    def __init__(self, prepared: dict[tuple[Any, ...], Any]) -> None:
        self._prepared = prepared
        self._found: dict[tuple[Any, ...], Any] = {}
        self._written: set[str] = set()

    def read(self, name: str, args: tuple[Any, ...], real: Callable[..., Any]) -> Any:
        """What is known, or what the real read finds now."""
        key = (name, args)
        unwritten = not name.startswith(tuple(self._written))
        known = self._prepared if unwritten else self._found
        found = known.get(key, _UNKNOWN)
        if found is _UNKNOWN:
            found = known[key] = real(*args)
        return found

    def forget(self, *changed: str) -> None:
        """Something was written: what reads of names that begin so have found."""
        if changed:
            self._written.update(changed)
            for stale in [key for key in self._found if key[0].startswith(changed)]:
                del self._found[stale]


class FaultyRegistry:
    """A process's registry; every method of its parts is an operation.

    Args:
        engine: Of the run's database.
        operations: Of the process.
        known: Of the run.
    """

    def __init__(self, engine: Engine, operations: Operations, known: Known) -> None:
        self._registry = Registry(engine=engine, clock=operations.process.wall)
        self._operations = operations
        self._known = known
        self._parts: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        part = self._parts.get(name)
        if part is None:
            real = getattr(self._registry, name)
            part = real if callable(real) else _Part(name, real, self)
            self._parts[name] = part
        return part


class _Part:
    def __init__(self, name: str, real: object, registry: FaultyRegistry) -> None:
        self._name = name
        self._real = real
        self._registry = registry

    def __getattr__(self, method: str) -> Any:
        real = getattr(self._real, method)
        name = f"{self._name}.{method}"
        operations, known = self._registry._operations, self._registry._known
        changes = _CHANGES.get(name, _CHANGES.get(self._name, ("",)))

        def read(*args: Any) -> Any:
            return operations.perform(name, lambda: known.read(name, args, real), args)

        def call(*args: Any, **kwargs: Any) -> Any:
            def act() -> Any:
                known.forget(*changes)
                return real(*args, **kwargs)

            return operations.perform(name, act, args)

        self.__dict__[method] = read if method in _READS else call
        return self.__dict__[method]


#: Methods that find the same until something is written, whatever the time.
_READS = frozenset({"get", "head", "last_committed", "list", "open_of_populations"})

#: What changes by a write, or by any of a part: what reads begin with; everything for
#: those not here.
_CHANGES: Mapping[str, tuple[str, ...]] = {
    "leases": (),
    "rounds": ("rounds.", "models.", "participations."),
    # Of rounds that are open, and stay so.
    "rounds.open": ("rounds.get", "rounds.list"),
    "rounds.release": ("rounds.get", "rounds.list"),
    # No writes, but not the same at every time.
    "leases.holder": (),
    "rounds.history": (),
    "participations.of": (),
    "tasks": ("tasks.", "participations."),
}

_UNKNOWN = object()


class FaultyBlobs(BlobStore):
    """Blobs in memory, shared by all processes of a run.

    Args:
        objects: What is stored.
        operations: Of the process.
    """

    def __init__(self, objects: dict[str, bytes], operations: Operations) -> None:
        self._objects = objects
        self._operations = operations

    def get(self, key: str) -> bytes:
        def get() -> bytes:
            try:
                return self._objects[key]
            except KeyError:
                raise BlobNotFound(f"no object {key!r}") from None

        return self._operations.perform("blobs.get", get)

    def put_new(self, key: str, data: bytes) -> bool:
        def put() -> bool:
            return self._objects.setdefault(key, data) is data

        return self._operations.perform("blobs.put_new", put)

    def size(self, key: str) -> int:
        return len(self.get(key))

    def list(self, prefix: str = "") -> Iterator[str]:
        yield from sorted(key for key in self._objects if key.startswith(prefix))

    def delete(self, key: str) -> None:
        del self._objects[key]


def _arguments(args: tuple[Any, ...]) -> str:
    return f"({', '.join(f'{argument!r:.40}' for argument in args)})"
