"""The model update as a process of the cluster: one actor, whose child has TensorFlow."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from device_plan.archive import Computation
from server.actors.cells import ActorDied, AskTimeout, Ref
from server.actors.runtime import Actor
from server.actors.services import Services
from server.model_update.plan_updates import PlanUpdates
from server.model_update.updater import ModelUpdater, UpdateFailed, UpdateResult
from server.open_plans import OpenPlans

#: The name of its actor; a supervisor starts another when it has died.
MODEL_UPDATE = "model-update"

#: Seconds that one computation may take, the start of TensorFlow included.
APPLY_TIMEOUT_S = 900.0

#: Seconds that it may take to say whether it is ready, unless it computes.
READY_TIMEOUT_S = 2.0

#: Seconds that a round waits for a new model update when there is none.
SUCCESSOR_TIMEOUT_S = 60.0


class ModelUpdate(Actor):
    """Computes what the sums of rounds become, one after the other.

    Args:
        services: Of this process; it needs the blobs.
    """

    def __init__(self, *, services: Services) -> None:
        self._updater = ModelUpdater()
        self._updater.start()
        self._updates = PlanUpdates(plans=OpenPlans(services.blobs), updater=self._updater)

    def start(self) -> None:
        """Starts the process that has TensorFlow, if there is none."""
        self._updater.start()

    def ready(self) -> bool:
        """Whether TensorFlow has been imported."""
        return self._updater.ready

    def pid(self) -> int | None:
        """Of the process that has TensorFlow, if there is one now."""
        return self._updater.pid

    def apply(
        self,
        population: str,
        plan_digest: str,
        computation: Computation,
        state: bytes | None,
        sums: Mapping[str, np.ndarray],
    ) -> UpdateResult:
        """As `PlanUpdates.apply`."""
        return self._updates.apply(population, plan_digest, computation, state, sums)

    def on_stop(self) -> None:
        self._updater.close()


class RemoteUpdater:
    """The model update wherever it lives: a `RoundUpdater`.

    Args:
        find: The actor of a name, if there is one.
    """

    def __init__(self, find: Callable[[str], Ref | None]) -> None:
        self._find = find

    @property
    def ready(self) -> bool:
        """Whether it answers, and has imported TensorFlow."""
        ref = self._find(MODEL_UPDATE)
        if ref is None:
            return False
        try:
            return bool(ref.ask("ready", timeout=READY_TIMEOUT_S))
        except AskTimeout:
            # It computes, which it does only when it is ready; or it is frozen.
            return ref.alive
        except ActorDied:
            return False

    def start(self) -> None:
        """Has it import TensorFlow, if it has not."""
        if (ref := self._find(MODEL_UPDATE)) is not None:
            ref.tell("start")

    def apply(
        self,
        population: str,
        plan_digest: str,
        computation: Computation,
        state: bytes | None,
        sums: Mapping[str, np.ndarray],
    ) -> UpdateResult:
        """As `RoundUpdater.apply`; repeated once if the process dies meanwhile."""
        request: tuple[Any, ...] = (population, plan_digest, computation, state, dict(sums))
        try:
            return self._ask(request)
        except ActorDied:
            pass
        try:
            return self._ask(request)
        except ActorDied:
            raise UpdateFailed("the model update's process died twice") from None

    def _ask(self, request: tuple[Any, ...]) -> UpdateResult:
        try:
            result: UpdateResult = self._current().ask("apply", *request, timeout=APPLY_TIMEOUT_S)
        except TimeoutError as error:
            raise UpdateFailed(str(error)) from error
        return result

    def _current(self) -> Ref:
        deadline = time.monotonic() + SUCCESSOR_TIMEOUT_S
        while (ref := self._find(MODEL_UPDATE)) is None or not ref.alive:
            if time.monotonic() > deadline:
                raise UpdateFailed("there is no process for model updates")
            time.sleep(0.05)
        return ref
