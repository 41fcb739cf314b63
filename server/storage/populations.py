"""Populations: learning problems shared by many devices."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Engine, insert, select
from sqlalchemy.exc import IntegrityError

from server.storage.database import read, write
from server.storage.errors import AlreadyExists, UnknownPopulation
from server.storage.schema import populations


@dataclass(frozen=True, kw_only=True)
class Population:
    """A learning problem.

    Attributes:
        name: e.g. "keyboard/next-word".
        holdout_fraction: The share of devices that evaluate and never train, 0 to 1.
        holdout_salt: Decides which devices those are.
        created_at: Seconds since the epoch.
    """

    name: str
    holdout_fraction: float
    holdout_salt: bytes = field(repr=False)
    created_at: float


class Populations:
    """The populations of one database."""

    def __init__(self, *, engine: Engine, clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._clock = clock

    def create(self, *, name: str, holdout_fraction: float, holdout_salt: bytes) -> Population:
        """Raises AlreadyExists, or ValueError for an empty or out-of-range value."""
        if not name or not holdout_salt:
            raise ValueError("a population needs a name and a hold-out salt")
        if not 0.0 <= holdout_fraction <= 1.0:
            raise ValueError(f"the hold-out fraction must be from 0 to 1, not {holdout_fraction}")
        values = {
            "name": name,
            "holdout_fraction": holdout_fraction,
            "holdout_salt": holdout_salt,
            "created_at": self._clock(),
        }
        try:
            with write(self._engine) as connection:
                connection.execute(insert(populations).values(values))
        except IntegrityError:
            raise AlreadyExists(f"there is a population {name!r} already") from None
        return self.get(name)

    def get(self, name: str) -> Population:
        """Raises UnknownPopulation."""
        with read(self._engine) as connection:
            row = connection.execute(
                select(populations).where(populations.c.name == name)
            ).one_or_none()
        if row is None:
            raise UnknownPopulation(f"there is no population {name!r}")
        return Population(**row._mapping)

    def list(self) -> Sequence[Population]:
        """All of them, by name."""
        with read(self._engine) as connection:
            rows = connection.execute(select(populations).order_by(populations.c.name)).all()
        return [Population(**row._mapping) for row in rows]
