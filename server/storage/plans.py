"""Plans that tasks may execute. Their bytes are blobs under the digests listed here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, delete, insert, select

from server.storage.clocks import Clock, record_clock
from server.storage.database import read, upsert, write
from server.storage.errors import UnknownPlan
from server.storage.schema import plan_variants, plans


@dataclass(frozen=True, kw_only=True)
class PlanVariant:
    """What the devices of some runtimes download of a plan.

    Attributes:
        name: e.g. "modern" or "legacy".
        device_part_digest: SHA-256 of the device part, in hex; its blob's name.
        size: Its bytes.
        runtimes: On which the variant passed its checks, e.g. "tflite-runtime 2.14.0".
    """

    name: str
    device_part_digest: str
    size: int
    runtimes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the registry says of a plan archive.

    Attributes:
        digest: SHA-256 of the archive, in hex; its blob's name.
        variants: Its device parts, the best first.
        manifest: A summary of the manifest, as JSON.
        schedule: The author's wishes for rounds, cohort and evaluation.
        created_at: When it was added, in seconds since the epoch.
    """

    digest: str
    variants: tuple[PlanVariant, ...]
    manifest: Mapping[str, Any]
    schedule: Mapping[str, Any]
    created_at: float


class Plans:
    """The plans of one database."""

    def __init__(self, *, engine: Engine, clock: Clock | None = None) -> None:
        self._engine = engine
        self._clock = clock or record_clock(engine)

    def add(
        self,
        *,
        digest: str,
        variants: Sequence[PlanVariant],
        manifest: Mapping[str, Any],
        schedule: Mapping[str, Any],
    ) -> Plan:
        """List a plan; one that is listed already stays as it is, being immutable."""
        with write(self._engine) as connection:
            added = connection.scalar(
                upsert(connection, plans)
                .values(
                    digest=digest,
                    manifest=dict(manifest),
                    schedule=dict(schedule),
                    created_at=self._clock(),
                )
                .on_conflict_do_nothing(index_elements=[plans.c.digest])
                .returning(plans.c.digest)
            )
            if added is not None:
                _insert(connection, digest, variants)
        return self.get(digest)

    def get(self, digest: str) -> Plan:
        """Raises UnknownPlan."""
        with read(self._engine) as connection:
            row = connection.execute(select(plans).where(plans.c.digest == digest)).one_or_none()
            if row is None:
                raise UnknownPlan(f"there is no plan with the digest {digest!r}")
            return Plan(**row._mapping, variants=_variants(connection, digest))

    def list(self) -> Sequence[Plan]:
        """All of them, the oldest first."""
        with read(self._engine) as connection:
            rows = connection.execute(
                select(plans).order_by(plans.c.created_at, plans.c.digest)
            ).all()
            return [
                Plan(**row._mapping, variants=_variants(connection, row.digest)) for row in rows
            ]

    def undescribed(self) -> Sequence[str]:
        """Digests of plans added by a version that did not list their variants' runtimes."""
        with read(self._engine) as connection:
            return connection.scalars(
                select(plan_variants.c.plan_digest)
                .where(plan_variants.c.runtimes.is_(None))
                .distinct()
            ).all()

    def describe(self, digest: str, variants: Sequence[PlanVariant]) -> None:
        """Lists the variants of such a plan, as its archive has them."""
        with write(self._engine) as connection:
            connection.execute(delete(plan_variants).where(plan_variants.c.plan_digest == digest))
            _insert(connection, digest, variants)


def _insert(connection: Connection, digest: str, variants: Sequence[PlanVariant]) -> None:
    connection.execute(
        insert(plan_variants),
        [
            {
                "plan_digest": digest,
                "place": place,
                "name": variant.name,
                "device_part_digest": variant.device_part_digest,
                "size": variant.size,
                "runtimes": [*variant.runtimes],
            }
            for place, variant in enumerate(variants)
        ],
    )


def _variants(connection: Connection, digest: str) -> tuple[PlanVariant, ...]:
    rows = connection.execute(
        select(plan_variants)
        .where(plan_variants.c.plan_digest == digest)
        .order_by(plan_variants.c.place)
    ).all()
    return tuple(
        PlanVariant(
            name=row.name,
            device_part_digest=row.device_part_digest,
            size=row.size,
            runtimes=tuple(row.runtimes or ()),
        )
        for row in rows
    )
