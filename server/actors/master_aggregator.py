"""The master aggregator: owns one round of one task, and dies with it.

It carries out what the `Round` state machine decides: it opens the selection
at every selector, configures the devices, collects the selectors' partial sums,
has the model update computed, and commits, fenced by the coordinator's lease.
All of a round's state is in memory until that commit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Literal

from device_plan.wire_pb2 import (
    EVALUATION,
    GOAL_REACHED,
    PARTICIPATED_ENOUGH,
    PARTICIPATED_RECENTLY,
    ROUND_ABANDONED,
    ROUND_OVER,
    TRAINING,
)
from server.actors.aggregator import PartialSum, merged
from server.actors.brief import Brief
from server.actors.runtime import Actor, Ref
from server.actors.selectors import SelectorGroup
from server.actors.services import Services
from server.assignment import Chosen, Download, Opening, Work
from server.model_update.updater import UpdateFailed, UpdateResult
from server.protocol.participation import eligible
from server.protocol.round import (
    ANSWER_TIMEOUT_S,
    UPDATE_TIMEOUT_S,
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
    Released,
    Round,
    SessionEnded,
    SumsCollected,
    Tick,
    UpdateApplied,
    WakeAt,
)
from server.protocol.round import UpdateFailed as RoundUpdateFailed
from server.protocol.round_messages import ClosingReason
from server.storage.blobs import content_key, get_content, put_content
from server.storage.leases import Fenced
from server.storage.models import Model
from server.telemetry import round_events

#: How a round ends.
Outcome = Literal["committed", "abandoned"]

#: Seconds between two looks for selectors that have come since the round was opened,
#: or were started again.
LOOK_S = 5.0

#: Takings out of the pool for one round; each replaces those who may not take part.
MAX_TAKINGS = 8


class MasterAggregator(Actor):
    """Runs one round and stops.

    The coordinator is told `round_reporting(task_id, round_id)` when the devices
    have their work, and `round_ended(task_id, round_id)` at the end.

    Args:
        brief: The round.
        coordinator: Its coordinator; the round is cancelled if that dies.
        services: What it works with.
    """

    def __init__(self, *, brief: Brief, coordinator: Ref, services: Services) -> None:
        self._brief = brief
        self._base = brief.base
        self._coordinator = coordinator
        self._services = services
        self._blobs = services.blobs(brief.task.population)
        self._training = brief.task.computation == "training"
        self._round = Round(
            round_id=brief.round_id,
            policy=brief.cohort,
            opened_at=self.system.now(),
            target=brief.target,
            released=brief.base is not None,
        )
        self._selectors = SelectorGroup(
            round_id=brief.round_id, members=services.selectors.members(), rng=services.rng
        )
        self._opened_at = self.system.now()
        self._opening: Opening | None = None
        self._sum: PartialSum | None = None
        self._result: UpdateResult | None = None

    def begin(self) -> None:
        """Opens the selection."""
        self.system.watch(self.ref, self._coordinator)
        self._perform(self._round.start())

    def release(self, base: Model) -> None:
        """The model that the round was waiting for is there."""
        if self._base is None:
            self._base = base
            self.on_event(PoolChanged(self._selectors.waiting()))
            self.on_event(Released())

    def on_event(self, event: Event) -> None:
        """Something happened to the round's pool or sessions."""
        self._perform(self._round.handle(event, self.system.now()))

    def pool_changed(self, selector_id: str, waiting: int) -> None:
        """A selector's pool holds so many devices."""
        self.on_event(PoolChanged(self._selectors.pool_changed(selector_id, waiting)))

    def on_tick(self) -> None:
        """The state machine asked to be woken about now."""
        if self._round.phase == "selecting":
            self.on_event(PoolChanged(self._selectors.waiting()))
        self.on_event(Tick())

    def look_for_selectors(self) -> None:
        """Has those take part that have come meanwhile, as long as devices are selected."""
        if self._opening is None or self._round.phase != "selecting":
            return
        opening = dataclasses.replace(
            self._opening,
            window_s=max(0.0, self._opening.window_s - self._age_s),
            lifetime_s=max(0.0, self._opening.lifetime_s - self._age_s),
        )
        for selector in self._selectors.admit(self._services.selectors.members(), opening):
            self.system.watch(self.ref, selector)
        self.system.schedule(LOOK_S, self.ref, "look_for_selectors")
        self._perform([])

    def on_overdue(self) -> None:
        """Selectors have ended the round by now: if it still waits for its model, so does it."""
        if self._base is None:
            self.cancel("its model never came")

    def cancel(self, reason: str) -> None:
        """Ends the round without a result: its task was paused or cancelled."""
        self.on_event(Cancelled(reason))

    def on_death(self, name: str, reason: BaseException | None) -> None:  # noqa: ARG002
        """A selector has ended, and its devices are lost; or the coordinator."""
        if name == self._coordinator.name:
            self.cancel("its coordinator has ended")
        else:
            self._selectors.drop(name)
            self._perform([])

    def _perform(self, effects: Iterable[Effect]) -> None:
        """Carries out effects, and whatever follows from their results, in order."""
        pending = list(effects)
        while True:
            answers: list[Event] = []
            if pending:
                answer = self._carry_out(pending.pop(0))
                answers += [] if answer is None else [answer]
            answers += [SessionEnded(each, "lost") for each in self._selectors.take_lost()]
            if self._round.phase == "selecting" and not self._selectors.refs:
                # Nobody looks for devices any more. The next round has the selectors of then.
                answers.append(Cancelled("no selector is left"))
            for answer in answers:
                pending += self._round.handle(answer, self.system.now())
            if not pending:
                return

    def _carry_out(self, effect: Effect) -> Event | None:
        match effect:
            case WakeAt(at):
                self.system.schedule(max(0.0, at - self.system.now()), self.ref, "on_tick")
            case OpenSelection():
                self._open_selection(effect)
            case CloseSelection(count):
                return DevicesSelected(tuple(each.session_id for each in self._take(count)))
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
        brief, cohort = self._brief, self._brief.cohort
        lifetime_s = cohort.selection_timeout_s + cohort.reporting_window_s + 2 * ANSWER_TIMEOUT_S
        if self._base is None:
            # The round before it reports, and is applied, while this one waits.
            lifetime_s += cohort.reporting_window_s + ANSWER_TIMEOUT_S + UPDATE_TIMEOUT_S
        self._opening = Opening(
            round_id=brief.round_id,
            population=brief.task.population,
            epoch=brief.lease.epoch,
            task_id=brief.task.task_id,
            task=brief.task.name,
            computation=TRAINING if self._training else EVALUATION,
            variants=tuple((each.name, each.runtimes) for each in brief.plan.variants),
            weight=brief.task.weight,
            master=self.ref,
            capacity=effect.target,
            window_s=max(0.0, effect.closes_at - self.system.now()),
            lifetime_s=lifetime_s,
            selectors=max(1, len(self._selectors.refs)),
            pipelined=self._training and cohort.pipelined,
            strata=cohort.strata,
            min_separation_s=cohort.min_separation_s,
        )
        self._selectors.open(self._opening)
        for selector in self._selectors.refs:
            self.system.watch(self.ref, selector)
        self.system.schedule(LOOK_S, self.ref, "look_for_selectors")
        self.system.schedule(lifetime_s, self.ref, "on_overdue")
        round_events.opened(
            population=brief.task.population,
            task_id=brief.task.task_id,
            round_id=brief.round_id,
            number=brief.number,
            target=effect.target,
        )

    def _take(self, count: int) -> Sequence[Chosen]:
        """So many devices that may take part, if the pool has them."""
        chosen: list[Chosen] = []
        for _ in range(MAX_TAKINGS):
            taken = self._selectors.take(count - len(chosen), self._brief.cohort.strata)
            if not taken:
                break
            chosen += self._allowed(taken)
            if len(chosen) >= count:
                break
        return chosen

    def _allowed(self, taken: Sequence[Chosen]) -> list[Chosen]:
        """Those who did not take part too recently or too often; the others are rejected."""
        policy = self._brief.cohort.participation
        if policy is None:
            return list(taken)
        registry = self._services.registry
        known = registry.participations.of(
            self._brief.task.task_id, [each.device_id for each in taken]
        )
        allowed = []
        for each in taken:
            past = known.get(each.device_id)
            refusal = None if past is None else eligible(policy, past, self._services.clock())
            if refusal is None:
                allowed.append(each)
            else:
                told = PARTICIPATED_ENOUGH if refusal == "enough" else PARTICIPATED_RECENTLY
                self._selectors.reject((each.session_id,), told)
        return allowed

    def _configure(self, sessions: tuple[str, ...], deadline_at: float) -> None:
        assert self._base is not None
        plan = self._brief.plan
        checkpoint = self._base.checkpoint_sha256
        work = Work(
            plans={
                each.name: Download(sha256=each.device_part_digest, size=each.size)
                for each in plan.variants
            },
            checkpoint=Download(sha256=checkpoint, size=self._blobs.size(content_key(checkpoint))),
            manifest=plan.manifest,
            window_s=max(0.0, deadline_at - self.system.now()),
        )
        self._selectors.configure(sessions, work)
        round_events.configured(
            round_id=self._brief.round_id, selected=len(sessions), seconds=self._age_s
        )
        self._coordinator.tell("round_reporting", self._brief.task.task_id, self._brief.round_id)

    def _close_reporting(self, reason: ClosingReason) -> Event:
        told = GOAL_REACHED if reason == "goal_reached" else ROUND_OVER
        self._sum = merged(self._selectors.close(told))
        accepted = 0 if self._sum is None else self._sum.accumulator.count
        round_events.closed(
            round_id=self._brief.round_id,
            reason=reason,
            accepted=accepted,
            seconds=self._age_s,
        )
        return SumsCollected(accepted)

    def _apply_update(self) -> Event:
        assert self._sum is not None
        assert self._base is not None
        state = get_content(self._blobs, self._base.state_sha256) if self._training else None
        began = self.system.now()
        try:
            self._result = self._services.updater.apply(
                self._brief.task.population,
                self._brief.plan.digest,
                self._brief.task.computation,
                state,
                self._sum.accumulator.tensors(),
            )
        except UpdateFailed as error:
            round_events.update_failed(
                round_id=self._brief.round_id,
                failure=str(error),
                seconds=self.system.now() - began,
            )
            return RoundUpdateFailed(str(error))
        return UpdateApplied()

    def _commit(self) -> Event:
        assert self._result is not None
        brief, result = self._brief, self._result
        rounds, statistics = self._services.registry.rounds, self._round.statistics
        try:
            if self._training:
                assert result.state is not None
                assert result.checkpoint is not None
                done = rounds.commit_training(
                    brief.lease,
                    brief.round_id,
                    put_content(self._blobs, result.state),
                    put_content(self._blobs, result.checkpoint),
                    result.metrics,
                    statistics,
                    participants=self._participants(),
                )
            else:
                done = rounds.commit_evaluation(
                    brief.lease,
                    brief.round_id,
                    result.metrics,
                    statistics,
                    participants=self._participants(),
                )
        except Fenced:
            return CommitRefused("the lease was lost")
        if not done:
            return CommitRefused("the model's head has moved")
        self._end("committed")
        return CommitDone()

    def _participants(self) -> tuple[bytes, ...]:
        """The devices in the sum, if the task limits how often they take part."""
        if self._brief.cohort.participation is None or self._sum is None:
            return ()
        return tuple(self._selectors.device(each) for each in sorted(self._sum.sessions))

    def _abandon(self, reason: str, detail: str) -> None:
        self._selectors.end(ROUND_ABANDONED)
        with suppress(Fenced):
            # Whoever has the lease now abandons it.
            self._services.registry.rounds.abandon(
                self._brief.lease, self._brief.round_id, reason, self._round.statistics
            )
        self._end("abandoned", reason, detail)

    def _end(self, outcome: Outcome, reason: str = "", detail: str = "") -> None:
        task = self._brief.task
        round_events.ended(
            outcome,
            population=task.population,
            task_id=task.task_id,
            round_id=self._brief.round_id,
            number=self._brief.number,
            seconds=self._age_s,
            statistics=self._round.statistics,
            reason=reason,
            detail=detail,
        )
        self._coordinator.tell("round_ended", task.task_id, self._brief.round_id)
        self.system.stop(self.ref)

    @property
    def _age_s(self) -> float:
        return self.system.now() - self._opened_at
