"""Populations: learning problems shared by many devices."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import Engine, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from server.storage.clocks import Clock, record_clock
from server.storage.database import read, upsert, write
from server.storage.errors import AlreadyExists, UnknownPopulation
from server.storage.schema import operator_tokens, populations

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Population:
    """A learning problem.

    Attributes:
        name: e.g. "keyboard/next-word".
        holdout_fraction: The share of devices that evaluate and never train, 0 to 1.
        holdout_salt: Decides which devices those are.
        created_at: Seconds since the epoch.
        max_sessions: Sessions it may have at once; None for no bound of its own.
        max_upload_bytes: Bytes that its uploads may hold at once, likewise.
    """

    name: str
    holdout_fraction: float
    holdout_salt: bytes = field(repr=False)
    created_at: float
    max_sessions: int | None = None
    max_upload_bytes: int | None = None


class Populations:
    """The populations of one database."""

    def __init__(self, *, engine: Engine, clock: Clock | None = None) -> None:
        self._engine = engine
        self._clock = clock or record_clock(engine)

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

    def set_quotas(
        self, name: str, *, max_sessions: int | None, max_upload_bytes: int | None
    ) -> Population:
        """Bounds what the population may use of a server; None lifts a bound.

        Raises:
            UnknownPopulation: there is no such population.
            ValueError: a bound is not positive.
        """
        quotas = {"max_sessions": max_sessions, "max_upload_bytes": max_upload_bytes}
        for quota, value in quotas.items():
            if value is not None and value < 1:
                raise ValueError(f"{quota} must be at least 1, or None for no bound, not {value}")
        with write(self._engine) as connection:
            connection.execute(update(populations).where(populations.c.name == name).values(quotas))
        return self.get(name)

    def set_token(self, name: str, sha256: str | None) -> None:
        """Makes a token the only one with which the population can be operated.

        Args:
            name: The population.
            sha256: The token's SHA-256 in lower-case hex; None revokes the present one.

        Raises:
            UnknownPopulation: there is no such population.
            AlreadyExists: it is another population's token.
            ValueError: it is not a SHA-256.
        """
        if sha256 is not None and not _SHA256.fullmatch(sha256):
            raise ValueError("a token is kept as its SHA-256 in lower-case hex, nothing else")
        self.get(name)
        with write(self._engine) as connection:
            if sha256 is None:
                connection.execute(
                    delete(operator_tokens).where(operator_tokens.c.population == name)
                )
                return
            try:
                connection.execute(
                    upsert(connection, operator_tokens)
                    .values(population=name, sha256=sha256)
                    .on_conflict_do_update(
                        index_elements=[operator_tokens.c.population], set_={"sha256": sha256}
                    )
                )
            except IntegrityError:
                raise AlreadyExists("that token belongs to another population") from None

    def population_of_token(self, sha256: str) -> str | None:
        """Whose token has that SHA-256 in lower-case hex; None if nobody's."""
        with read(self._engine) as connection:
            return connection.scalar(
                select(operator_tokens.c.population).where(operator_tokens.c.sha256 == sha256)
            )

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
