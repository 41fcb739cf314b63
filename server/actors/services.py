"""What coordinators and master aggregators work with."""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from device_plan.archive import Computation
from server.actors.selectors import SelectorDirectory
from server.model_update.updater import UpdateResult
from server.open_plans import OpenPlans
from server.storage.blobs import BlobStore
from server.storage.registry import Registry


class RoundUpdater(Protocol):
    """Computes what a round's sums become."""

    def apply(
        self,
        population: str,
        plan_digest: str,
        computation: Computation,
        state: bytes | None,
        sums: Mapping[str, np.ndarray],
    ) -> UpdateResult:
        """The next state and model of a training round, or the metrics of an evaluation.

        Raises:
            UpdateFailed: there is no result.
        """


@dataclass(frozen=True, kw_only=True)
class Services:
    """Attributes:
    selectors: Where the devices are.
    registry: Where rounds and models are committed.
    blobs: Where a population's states and checkpoints go.
    plans: What devices and the model update execute.
    updater: Computes model updates.
    rng: The source of chance.
    clock: Seconds since the epoch, by which participations are dated.
    """

    selectors: SelectorDirectory
    registry: Registry
    blobs: Callable[[str], BlobStore]
    plans: OpenPlans
    updater: RoundUpdater
    rng: random.Random
    clock: Callable[[], float] = time.time
