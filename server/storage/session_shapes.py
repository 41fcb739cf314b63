"""How a population's sessions went, as counts: the paper's session shapes, and bytes moved."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Engine, select

from server.storage import schema
from server.storage.database import read, upsert, write


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Bytes that a population's devices have sent and received, as they report it."""

    bytes_up: int
    bytes_down: int


class SessionShapes:
    """Counters of one database. Nothing in them refers to a single device.

    Many reports are added in one call, because each call is a durable commit.
    """

    def __init__(self, *, engine: Engine) -> None:
        self._engine = engine

    def add_shapes(
        self, population: str, shapes: Mapping[str, int], bytes_up: int, bytes_down: int
    ) -> None:
        """Add sessions by shape (Bonawitz et al. 2019, table 1) and their bytes.

        Raises:
            sqlalchemy.exc.IntegrityError: there is no such population.
        """
        counts = schema.session_shapes
        traffic = schema.traffic
        with write(self._engine) as connection:
            # One order for all writers: on PostgreSQL two of them cannot then deadlock.
            for shape, count in sorted(shapes.items()):
                connection.execute(
                    upsert(connection, counts)
                    .values(population=population, shape=shape, count=count)
                    .on_conflict_do_update(
                        index_elements=[counts.c.population, counts.c.shape],
                        set_={"count": counts.c.count + count},
                    )
                )
            connection.execute(
                upsert(connection, traffic)
                .values(population=population, bytes_up=bytes_up, bytes_down=bytes_down)
                .on_conflict_do_update(
                    index_elements=[traffic.c.population],
                    set_={
                        "bytes_up": traffic.c.bytes_up + bytes_up,
                        "bytes_down": traffic.c.bytes_down + bytes_down,
                    },
                )
            )

    def shapes(self, population: str) -> Sequence[tuple[str, int]]:
        """Shapes and how many sessions had them, the most frequent first."""
        counts = schema.session_shapes
        with read(self._engine) as connection:
            rows = connection.execute(
                select(counts.c.shape, counts.c.count)
                .where(counts.c.population == population)
                .order_by(counts.c.count.desc(), counts.c.shape)
            ).all()
        return [(row.shape, row[1]) for row in rows]

    def traffic(self, population: str) -> Traffic:
        """Bytes so far; zeros for a population without sessions."""
        table = schema.traffic
        with read(self._engine) as connection:
            row = connection.execute(
                select(table.c.bytes_up, table.c.bytes_down).where(table.c.population == population)
            ).one_or_none()
        return Traffic(bytes_up=0, bytes_down=0) if row is None else Traffic(**row._mapping)
