"""Plans that tasks may execute. Their bytes are blobs under the digests listed here."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, select

from server.storage.database import read, upsert, write
from server.storage.errors import UnknownPlan
from server.storage.schema import plans


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the registry says of a plan archive.

    Attributes:
        digest: SHA-256 of the archive, in hex; its blob's name.
        device_part_digest: SHA-256 of the part that devices download, likewise.
        manifest: A summary of the manifest, as JSON.
        schedule: The author's wishes for rounds, cohort and evaluation.
        created_at: When it was added, in seconds since the epoch.
    """

    digest: str
    device_part_digest: str
    manifest: Mapping[str, Any]
    schedule: Mapping[str, Any]
    created_at: float


class Plans:
    """The plans of one database."""

    def __init__(self, *, engine: Engine, clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._clock = clock

    def add(
        self,
        *,
        digest: str,
        device_part_digest: str,
        manifest: Mapping[str, Any],
        schedule: Mapping[str, Any],
    ) -> Plan:
        """List a plan; one that is listed already stays as it is, being immutable."""
        with write(self._engine) as connection:
            connection.execute(
                upsert(connection, plans)
                .values(
                    digest=digest,
                    device_part_digest=device_part_digest,
                    manifest=dict(manifest),
                    schedule=dict(schedule),
                    created_at=self._clock(),
                )
                .on_conflict_do_nothing(index_elements=[plans.c.digest])
            )
        return self.get(digest)

    def get(self, digest: str) -> Plan:
        """Raises UnknownPlan."""
        with read(self._engine) as connection:
            row = connection.execute(select(plans).where(plans.c.digest == digest)).one_or_none()
        if row is None:
            raise UnknownPlan(f"there is no plan with the digest {digest!r}")
        return Plan(**row._mapping)

    def list(self) -> Sequence[Plan]:
        """All of them, the oldest first."""
        with read(self._engine) as connection:
            rows = connection.execute(
                select(plans).order_by(plans.c.created_at, plans.c.digest)
            ).all()
        return [Plan(**row._mapping) for row in rows]
