"""Model updates of plans that are given by their digest, as rounds know them."""

from collections.abc import Mapping

import numpy as np

from device_plan.archive import Computation
from server.model_update.updater import ModelUpdater, UpdateResult
from server.open_plans import OpenPlans


class PlanUpdates:
    """A `RoundUpdater` in the process that has the updater.

    Args:
        plans: Of this process.
        updater: Runs the plans' server parts.
    """

    def __init__(self, *, plans: OpenPlans, updater: ModelUpdater) -> None:
        self._plans = plans
        self._updater = updater

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
        plan = self._plans.get(population, plan_digest)
        return self._updater.apply(plan, computation, state, sums)
