"""What a coordinator tells a master aggregator of its round; picklable."""

from dataclasses import dataclass

from device_plan.cohort import CohortPolicy
from server.storage.leases import Lease
from server.storage.models import Model
from server.storage.plans import PlanVariant
from server.storage.tasks import Task


@dataclass(frozen=True, kw_only=True)
class PlanBrief:
    """What a round must know of its plan.

    Attributes:
        digest: Of the archive.
        variants: Its device parts, the best first.
        manifest: Of the best one, serialized.
    """

    digest: str
    variants: tuple[PlanVariant, ...]
    manifest: bytes


@dataclass(frozen=True, kw_only=True)
class Brief:
    """What a master aggregator is to do.

    Attributes:
        round_id: The round, opened in the registry.
        task: Its task.
        number: The task's own count of rounds, as it was opened.
        cohort: How many devices, and how long.
        target: Devices to select.
        plan: The task's plan.
        base: The model that the devices start from or evaluate. None: it is not there
            yet; the round selects its devices and waits for `release`.
        lease: The coordinator's, under which everything is written.
    """

    round_id: str
    task: Task
    number: int
    cohort: CohortPolicy
    target: int
    plan: PlanBrief
    base: Model | None
    lease: Lease
