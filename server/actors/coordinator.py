"""The coordinator: owns one population, by a fenced lease, and starts its rounds."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from device_plan.archive import MalformedPlan
from device_plan.cohort import CohortPolicy
from device_plan.wire_pb2 import ROUND_ABANDONED
from server.actors.brief import Brief, PlanBrief
from server.actors.master_aggregator import MasterAggregator
from server.actors.runtime import Actor, Ref
from server.actors.services import Services
from server.protocol.over_selection import OverSelection
from server.protocol.population import (
    CancelRound,
    CompleteTask,
    Effect,
    Event,
    Population,
    ReleaseRound,
    RoundEnded,
    RoundReporting,
    StartRound,
    TaskChanged,
    TaskView,
    Tick,
    WakeAt,
)
from server.storage.blobs import BlobDamaged, BlobNotFound
from server.storage.errors import NotFound
from server.storage.leases import Fenced, Lease
from server.storage.tasks import Task
from server.telemetry import lease_events

_log = logging.getLogger(__name__)

#: Rounds of a task's history from which its drop-out is estimated at first.
REMEMBERED_ROUNDS = 50


@dataclass
class _Running:
    task_id: str
    master: Ref


class Coordinator(Actor):
    """Holds the lease of one population and keeps its tasks' rounds going.

    While another coordinator has the lease it waits. When it loses the lease it
    ends its rounds (whose commits the fence refuses anyway) and waits again.

    Args:
        population: The population's name.
        owner: Who holds the lease: unique to this process.
        lease_ttl_s: Seconds the lease lives without a renewal.
        retry_s: Seconds that a task waits after an abandoned round, at first.
        services: What it and its master aggregators work with.
    """

    def __init__(
        self,
        *,
        population: str,
        owner: str,
        lease_ttl_s: float,
        retry_s: float,
        services: Services,
    ) -> None:
        self._population = population
        self._owner = owner
        self._ttl = lease_ttl_s
        self._retry_s = retry_s
        self._services = services
        self._lease: Lease | None = None
        self._retired = False
        self._decisions = self._fresh_decisions()
        self._running: dict[str, _Running] = {}
        self._plans: dict[str, PlanBrief] = {}
        self._over_selection: dict[str, OverSelection] = {}

    def begin(self) -> None:
        """Tries to take the lease, now and from then on."""
        self._keep_lease()

    def holds_lease(self) -> bool:
        return self._lease is not None

    def _keep_lease(self) -> None:
        """Takes or renews the lease; schedules itself again."""
        if self._retired:
            return
        if self._lease is None:
            self._lease = self._services.registry.leases.acquire(
                self._lease_name, self._owner, self._ttl
            )
            if self._lease is not None:
                self._take_over(self._lease)
        elif not self._services.registry.leases.renew(self._lease, self._ttl):
            self._step_down("the lease was lost")
        self.system.schedule(self._ttl / 3, self.ref, "_keep_lease")

    def release(self) -> None:
        """Gives the lease up for good, so that a successor need not wait for it to expire."""
        self._retired = True
        if self._lease is not None:
            lease, self._lease = self._lease, None
            self._services.registry.leases.release(lease)
            lease_events.released(self._population, lease.epoch)

    @property
    def _lease_name(self) -> str:
        return f"coordinator/{self._population}"

    def _fresh_decisions(self) -> Population:
        return Population(name=self._population, retry_s=self._retry_s)

    def _take_over(self, lease: Lease) -> None:
        for selector in self._services.selectors.members().values():
            selector.tell("end_stale", self._population, lease.epoch)
        left_open = self._services.registry.rounds.abandon_unfinished(lease, self._population)
        lease_events.acquired(self._population, lease.epoch, unfinished=len(left_open))
        self._decisions = self._fresh_decisions()
        self.tasks_changed()

    def _step_down(self, why: str) -> None:
        if self._lease is not None:
            lease_events.lost(self._population, self._lease.epoch, why)
        self._lease = None
        for running in self._running.values():
            running.master.tell("cancel", "the lease was lost")
        self._running.clear()

    def tasks_changed(self) -> None:
        """A task was created, paused, resumed or cancelled: look at all of them."""
        if self._lease is None:
            return
        for task in self._services.registry.tasks.list(self._population):
            self._decide(TaskChanged(self._view(task)))

    def _view(self, task: Task) -> TaskView:
        evaluated = self._services.registry.rounds.last_committed(task.task_id)
        training = task.computation == "training"
        return TaskView(
            task_id=task.task_id,
            computation=task.computation,
            status=task.status,
            rounds_target=task.rounds or 0,
            cohort=CohortPolicy.from_json(task.cohort),
            evaluates=task.evaluates,
            every_rounds=task.every_rounds or 0,
            head_round=self._services.registry.models.head(task.task_id).round if training else 0,
            last_evaluated_round=(
                evaluated.base_model_round if evaluated is not None and not training else None
            ),
        )

    def on_tick(self) -> None:
        self._decide(Tick())

    def round_reporting(self, task_id: str, round_id: str) -> None:
        """A round's devices have their work: the task's next round may look for its own."""
        if round_id in self._running:
            self._decide(RoundReporting(task_id=task_id, round_id=round_id))

    def round_ended(self, task_id: str, round_id: str) -> None:
        """A master aggregator is done. What became of the round is in the registry."""
        if self._running.pop(round_id, None) is None:
            return
        registry = self._services.registry
        record = registry.rounds.get(round_id)
        self._over_selection_of(task_id).observe(record.statistics)
        self._decide(
            RoundEnded(
                task_id=task_id,
                round_id=round_id,
                committed=record.outcome == "committed",
                head_round=self._view(registry.tasks.get(task_id)).head_round,
            )
        )

    def round_not_started(self, task_id: str) -> None:
        """What the task needs is missing or damaged."""
        self._decide(RoundEnded(task_id=task_id, round_id="", committed=False))

    def on_death(self, name: str, reason: BaseException | None) -> None:
        """A master aggregator has ended; if it had not said so, its round failed."""
        running = self._running.get(name)
        if running is None or self._lease is None:
            return
        _log.error("round %s lost its master aggregator: %r", name, reason)
        for selector in self._services.selectors.members().values():
            selector.tell("end_round", name, ROUND_ABANDONED)
        try:
            # Unless it died after its commit.
            self._services.registry.rounds.abandon(self._lease, name, "master_aggregator_lost", {})
        except Fenced:
            self._step_down("another coordinator has the lease")
            return
        self.round_ended(running.task_id, name)

    def _decide(self, event: Event) -> None:
        self._perform(self._decisions.handle(event, self.system.now()))

    def _perform(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            try:
                self._carry_out(effect)
            except Fenced:
                self._step_down("another coordinator has the lease")
                return

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case StartRound(task_id=task_id):
                try:
                    self._start_round(effect)
                except (NotFound, BlobNotFound, BlobDamaged, MalformedPlan):
                    # Nothing that a restart would mend: the task backs off, and others go on.
                    _log.exception("a round of task %s cannot be started", task_id)
                    self.ref.tell("round_not_started", task_id)
            case CompleteTask(task_id):
                self._services.registry.tasks.set_status(task_id, "active", "completed")
                _log.info("task %s is complete", task_id)
            case ReleaseRound():
                self._release(effect)
            case CancelRound(_, round_id):
                running = self._running.get(round_id)
                if running is not None:
                    running.master.tell("cancel", "its task was cancelled")
            case WakeAt(at):
                self.system.schedule(max(0.0, at - self.system.now()), self.ref, "on_tick")

    def _start_round(self, start: StartRound) -> None:
        if self._lease is None:
            return
        registry = self._services.registry
        task = registry.tasks.get(start.task_id)
        plan = self._plan(task.population, task.plan_digest)
        base = (
            None
            if start.base_round is None
            else registry.models.get(task.evaluates or task.task_id, start.base_round)
        )
        round_id = registry.rounds.open(self._lease, task.task_id, start.number, start.base_round)
        master = self.system.spawn(
            MasterAggregator,
            name=round_id,
            brief=Brief(
                round_id=round_id,
                task=task,
                number=start.number,
                cohort=start.cohort,
                target=self._over_selection_of(task.task_id).target(start.cohort),
                plan=plan,
                base=base,
                lease=self._lease,
            ),
            coordinator=self.ref,
            services=self._services,
        )
        self._running[round_id] = _Running(task.task_id, master)
        self.system.watch(self.ref, master)
        master.tell("begin")
        self._perform(self._decisions.round_started(task.task_id, round_id))

    def _release(self, release: ReleaseRound) -> None:
        """The model that a round's devices start from is there."""
        running = self._running.get(release.round_id)
        if running is None or self._lease is None:
            return
        registry = self._services.registry
        base = registry.models.get(release.task_id, release.base_round)
        if not registry.rounds.release(
            self._lease, release.round_id, release.number, release.base_round
        ):
            # It may have been released by the same request, which came twice.
            record = registry.rounds.get(release.round_id)
            if record.outcome != "open" or record.base_model_round != release.base_round:
                return
        running.master.tell("release", base)

    def _over_selection_of(self, task_id: str) -> OverSelection:
        found = self._over_selection.get(task_id)
        if found is None:
            found = self._over_selection[task_id] = OverSelection()
            history = self._services.registry.rounds.list(task_id)
            for record in history[-REMEMBERED_ROUNDS:]:
                found.observe(record.statistics)
        return found

    def _plan(self, population: str, digest: str) -> PlanBrief:
        plan = self._plans.get(digest)
        if plan is None:
            archive = self._services.plans.get(population, digest)
            plan = self._plans[digest] = PlanBrief(
                digest=digest,
                variants=self._services.registry.plans.get(digest).variants,
                manifest=archive.manifest.SerializeToString(),
            )
        return plan
