"""Model updates of plans that are given by their digest, as rounds know them."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping

import numpy as np

from device_plan.archive import Computation, PlanArchive
from server.model_update.updater import ModelUpdater, UpdateResult
from server.storage.blobs import BlobStore, get_content

#: Plans kept open; the one used longest ago goes first.
MAX_PLANS = 16


class PlanUpdates:
    """Reads plans from the blob store when they are needed, and keeps those in use.

    Args:
        blobs: The store of a population.
        updater: Runs the plans' server parts.
    """

    def __init__(self, *, blobs: Callable[[str], BlobStore], updater: ModelUpdater) -> None:
        self._blobs = blobs
        self._updater = updater
        self._plans: OrderedDict[str, PlanArchive] = OrderedDict()
        self._lock = threading.Lock()

    def apply(
        self,
        population: str,
        plan_digest: str,
        computation: Computation,
        state: bytes | None,
        sums: Mapping[str, np.ndarray],
    ) -> UpdateResult:
        """As `ModelUpdater.apply`.

        Raises:
            UpdateFailed: there is no result.
            BlobNotFound, BlobDamaged, MalformedPlan: the plan cannot be read.
        """
        return self._updater.apply(self._plan(population, plan_digest), computation, state, sums)

    def _plan(self, population: str, digest: str) -> PlanArchive:
        with self._lock:
            plan = self._plans.get(digest)
            if plan is not None:
                self._plans.move_to_end(digest)
                return plan
        plan = PlanArchive(get_content(self._blobs(population), digest))
        with self._lock:
            self._plans[digest] = plan
            if len(self._plans) > MAX_PLANS:
                self._plans.popitem(last=False)
        return plan
