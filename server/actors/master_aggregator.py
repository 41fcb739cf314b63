"""The master aggregator: owns one round of one task, and dies with it.

It carries out what the `Round` state machine decides: it opens the selection,
configures the devices, spawns the aggregators, collects their sums, has the
model update computed, and commits, fenced by the coordinator's lease. All of a
round's state is in memory until that commit.
"""

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from device_plan.archive import PlanArchive
from device_plan.cohort import CohortPolicy
from device_plan.wire_pb2 import (
    EVALUATION,
    GOAL_REACHED,
    ROUND_ABANDONED,
    ROUND_OVER,
    TRAINING,
)
from server.actors.aggregator import Aggregator, merged
from server.actors.runtime import Actor, Ref
from server.actors.services import Services
from server.aggregation.admission import Admission
from server.assignment import Download, Opening, Work
from server.model_update.updater import UpdateFailed, UpdateResult
from server.protocol.round import (
    Abandon,
    ApplyUpdate,
    Cancelled,
    CloseReporting,
    CloseSelection,
    Commit,
    CommitDone,
    CommitRefused,
    Configure,
    DevicesSelected,
    Effect,
    Event,
    OpenSelection,
    PoolChanged,
    Round,
    SumsCollected,
    Tick,
    UpdateApplied,
    WakeAt,
)
from server.protocol.round import UpdateFailed as RoundUpdateFailed
from server.protocol.round_messages import ClosingReason
from server.storage.blobs import get_content, put_content
from server.storage.leases import Fenced, Lease
from server.storage.models import Model
from server.storage.tasks import Task

_log = logging.getLogger(__name__)

#: Sums a round is spread over; two keep two cores adding.
AGGREGATORS = 2


@dataclass(frozen=True, kw_only=True)
class Brief:
    """What a master aggregator is to do.

    Attributes:
        round_id: The round, opened in the registry.
        task: Its task.
        cohort: How many devices, and how long.
        plan: The task's plan.
        base: The model that the devices start from or evaluate.
        lease: The coordinator's, under which everything is written.
    """

    round_id: str
    task: Task
    cohort: CohortPolicy
    plan: PlanArchive
    base: Model
    lease: Lease


class MasterAggregator(Actor):
    """Runs one round and stops.

    The coordinator is told `round_ended(task_id, round_id, committed)` at its end.

    Args:
        brief: The round.
        coordinator: Its coordinator.
        services: What it works with.
    """

    def __init__(self, *, brief: Brief, coordinator: Ref, services: Services) -> None:
        self._brief = brief
        self._coordinator = coordinator
        self._services = services
        self._training = brief.task.computation == "training"
        self._round = Round(
            round_id=brief.round_id, policy=brief.cohort, opened_at=time.monotonic()
        )
        self._aggregators: tuple[Ref, ...] = ()
        self._sums: dict[str, np.ndarray] = {}
        self._result: UpdateResult | None = None

    def begin(self) -> None:
        """Opens the selection."""
        self._perform(self._round.start())

    def on_event(self, event: Event) -> None:
        """Something happened to the round's pool or sessions."""
        self._perform(self._round.handle(event, time.monotonic()))

    def on_tick(self) -> None:
        """The state machine asked to be woken about now."""
        waiting = self._services.selector.ask("waiting", self._brief.round_id)
        if waiting is not None:
            self.on_event(PoolChanged(waiting))
        self.on_event(Tick())

    def cancel(self, reason: str) -> None:
        """Ends the round without a result: its task was paused or cancelled."""
        self.on_event(Cancelled(reason))

    def on_stop(self) -> None:
        for aggregator in self._aggregators:
            self.system.stop(aggregator)

    def _perform(self, effects: Iterable[Effect]) -> None:
        """Carries out effects, and whatever follows from their results, in order."""
        pending = list(effects)
        while pending:
            answer = self._carry_out(pending.pop(0))
            if answer is not None:
                pending.extend(self._round.handle(answer, time.monotonic()))

    def _carry_out(self, effect: Effect) -> Event | None:
        match effect:
            case WakeAt(at):
                self.system.schedule(max(0.0, at - time.monotonic()), self.ref, "on_tick")
            case OpenSelection():
                self._open_selection(effect)
            case CloseSelection(count):
                taken = self._services.selector.ask("take", self._brief.round_id, count)
                return DevicesSelected(taken)
            case Configure(sessions, deadline_at):
                self._configure(sessions, deadline_at)
            case CloseReporting(reason):
                return self._close_reporting(reason)
            case ApplyUpdate():
                return self._apply_update()
            case Commit():
                return self._commit()
            case Abandon(reason, detail):
                self._abandon(reason, detail)
        return None

    def _open_selection(self, effect: OpenSelection) -> None:
        self._services.selector.ask(
            "open_selection",
            Opening(
                round_id=self._brief.round_id,
                population=self._brief.task.population,
                task=self._brief.task.name,
                computation=TRAINING if self._training else EVALUATION,
                variants=tuple(
                    (part.variant, tuple(runtime.name for runtime in part.manifest.runtimes))
                    for part in self._brief.plan.variants
                ),
                master=self.ref,
                capacity=effect.target,
                closes_at=effect.closes_at,
            ),
        )

    def _configure(self, sessions: tuple[str, ...], deadline_at: float) -> None:
        plan = self._brief.plan
        admission = Admission(manifest=plan.manifest, training=self._training)
        self._aggregators = tuple(
            self.system.spawn(
                Aggregator,
                name=f"{self._brief.round_id}/aggregator-{number}",
                dispatch="inline",
                layout=admission.layout,
            )
            for number in range(AGGREGATORS)
        )
        work = Work(
            plans={part.variant: self._publish(part.to_bytes()) for part in plan.variants},
            checkpoint=self._publish(
                get_content(self._services.blobs, self._brief.base.checkpoint_sha256)
            ),
            admission=admission,
            aggregators=self._aggregators,
            deadline_at=deadline_at,
        )
        self._services.selector.ask("configure", self._brief.round_id, sessions, work)

    def _publish(self, data: bytes) -> Download:
        return Download(sha256=self._services.downloads.publish(data), size=len(data))

    def _close_reporting(self, reason: ClosingReason) -> Event:
        # The sums are closed first: an update that is being added just now is
        # either in, or told that the goal is reached.
        parts = [aggregator.ask("close") for aggregator in self._aggregators]
        told = GOAL_REACHED if reason == "goal_reached" else ROUND_OVER
        self._services.selector.ask("end_round", self._brief.round_id, told)
        sums, accepted = merged(parts)
        self._sums = dict(sums)
        return SumsCollected(accepted)

    def _apply_update(self) -> Event:
        state = (
            get_content(self._services.blobs, self._brief.base.state_sha256)
            if self._training
            else None
        )
        try:
            self._result = self._services.updater.apply(
                self._brief.plan, self._brief.task.computation, state, self._sums
            )
        except UpdateFailed as error:
            _log.error("round %s: the model update failed: %s", self._brief.round_id, error)
            return RoundUpdateFailed(str(error))
        return UpdateApplied()

    def _commit(self) -> Event:
        assert self._result is not None
        brief, result = self._brief, self._result
        statistics = self._round.statistics
        try:
            if self._training:
                assert result.state is not None
                assert result.checkpoint is not None
                done = self._services.registry.rounds.commit_training(
                    brief.lease,
                    brief.round_id,
                    put_content(self._services.blobs, result.state),
                    put_content(self._services.blobs, result.checkpoint),
                    result.metrics,
                    statistics,
                )
            else:
                done = self._services.registry.rounds.commit_evaluation(
                    brief.lease, brief.round_id, result.metrics, statistics
                )
        except Fenced:
            return CommitRefused("the lease was lost")
        if not done:
            return CommitRefused("the model's head has moved")
        self._end(committed=True)
        return CommitDone()

    def _abandon(self, reason: str, detail: str) -> None:
        _log.info("round %s abandoned: %s %s", self._brief.round_id, reason, detail)
        self._services.selector.ask("end_round", self._brief.round_id, ROUND_ABANDONED)
        try:
            self._services.registry.rounds.abandon(
                self._brief.lease, self._brief.round_id, reason, self._round.statistics
            )
        except Fenced:
            _log.warning("round %s: the lease was lost", self._brief.round_id)
        self._end(committed=False)

    def _end(self, *, committed: bool) -> None:
        self._coordinator.tell(
            "round_ended", self._brief.task.task_id, self._brief.round_id, committed
        )
        self.system.stop(self.ref)
