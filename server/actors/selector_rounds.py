"""The rounds of one selector: their pools, their sums, and their ends.

What `server.actors.selector` has to do for coordinators, master aggregators and
the process that it is in.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping

from device_plan.plan_pb2 import PlanManifest
from device_plan.wire_pb2 import (
    DRAINING,
    NOT_SELECTED,
    ROUND_ABANDONED,
    ROUND_OVER,
    TRAINING,
    UNKNOWN_POPULATION,
    Reason,
)
from server.actors.aggregator import Aggregator, PartialSum, merged
from server.actors.cells import ActorDied
from server.actors.runtime import Actor
from server.aggregation.admission import Admission
from server.assignment import Chosen, Opening, Work
from server.desk import Desk, PopulationSettings
from server.downloads import Downloads
from server.open_round import OpenRound
from server.protocol.pace_steering import Window
from server.protocol.quota import PoolReport, Quota
from server.protocol.round_messages import Ending, SessionEnded, UpdateAccepted
from server.refusal import Refusal
from server.session import Session, SessionTable, State
from server.upload import UploadMemory

#: Sums a round is spread over in one process; two keep two cores adding.
AGGREGATORS = 2


class StaleCoordinator(RuntimeError):
    """The round was opened under a lease that another coordinator has taken over."""


class NotAccepting(RuntimeError):
    """This selector is about to end and takes part in no new round."""


class SelectorRounds(Actor):
    """Keeps the rounds that are open at this selector.

    Args:
        selector_id: Names this selector among those of its tier.
        rng: For reservoir sampling, polls and session ids.
        memory: For unfinished uploads.
        downloads: What devices may fetch.
    """

    def __init__(
        self,
        *,
        selector_id: str,
        rng: random.Random,
        memory: UploadMemory,
        downloads: Downloads,
    ) -> None:
        self._id = selector_id
        self._rng = rng
        self._memory = memory
        self._downloads = downloads
        self._desks: dict[str, Desk] = {}
        self._rounds: dict[str, OpenRound] = {}
        self._sessions = SessionTable()
        # The newest coordinator of each population, by its lease's epoch.
        self._epochs: dict[str, int] = {}
        self._drain_retry_s: Window | None = None

    # Messages of the process it is in.

    def serve(self, settings: PopulationSettings) -> None:
        """Begins to accept check-ins of a population, or learns its new settings."""
        desk = self._desks.get(settings.name)
        if desk is None:
            quota = Quota(rng=self._rng)
            self._desks[settings.name] = Desk(settings=settings, quota=quota, memory=self._memory)
        else:
            desk.update(settings)

    def tidy(self) -> None:
        """Ends sessions and rounds that are overdue, and forgets those that ended long ago."""
        now = self.system.now()
        for session in self._sessions.overdue(now):
            self._leave(session, "expired", ROUND_OVER)
        for round_id in [each for each, opened in self._rounds.items() if opened.ends_at < now]:
            self.end_round(round_id, ROUND_ABANDONED)
        self._sessions.forget(now)

    def drain(self, retry_s: Window) -> None:
        """From now on accepts no check-in; devices in a pool are sent elsewhere.

        Args:
            retry_s: Within which seconds the devices may come back, to another selector.
        """
        self._drain_retry_s = retry_s
        for opened in self._rounds.values():
            if opened.selecting:
                waiting = self._desk_of(opened).quota.close(opened.opening.round_id)
                opened.selecting = False
                self._end_all(waiting, DRAINING)
                opened.opening.master.tell("pool_changed", self._id, 0)

    def statistics(self, population: str) -> dict[str, float]:
        """Live sessions by state and the population's size as pace steering estimates it."""
        desk = self._desk(population)
        live = self._sessions.live_by_state(population)
        return {**live, "estimated_devices": desk.pace.estimate}

    def unsupported(self, population: str) -> dict[str, int]:
        """Check-ins since the start that were turned away for their runtime, by runtime."""
        return dict(self._desk(population).unsupported)

    # Messages of coordinators and master aggregators.

    def end_stale(self, population: str, epoch: int) -> None:
        """Ends the population's rounds of coordinators before this epoch; refuses new ones."""
        self._epochs[population] = max(epoch, self._epochs.get(population, 0))
        for round_id, opened in list(self._rounds.items()):
            opening = opened.opening
            if opening.population == population and opening.epoch < self._epochs[population]:
                self.end_round(round_id, ROUND_ABANDONED)

    def open_selection(self, opening: Opening) -> None:
        """Samples devices for a round until `configure`. Harmless when repeated.

        Raises:
            StaleCoordinator: a later coordinator of the population is known here.
            NotAccepting: this selector drains.
            Refusal: the population is not served here.
        """
        desk = self._desk(opening.population)
        if opening.epoch < self._epochs.get(opening.population, 0):
            raise StaleCoordinator(f"round {opening.round_id} is of epoch {opening.epoch}")
        if self._drain_retry_s is not None:
            raise NotAccepting(f"selector {self._id} drains")
        if opening.round_id in self._rounds:
            return
        self.end_stale(opening.population, opening.epoch)
        now = self.system.now()
        self._rounds[opening.round_id] = OpenRound(
            opening=opening, closes_at=now + opening.window_s, ends_at=now + opening.lifetime_s
        )
        desk.quota.open(opening.round_id, opening.capacity, opening.strata)
        desk.steer(self._rounds_of(opening.population))
        self.system.watch(self.ref, opening.master)

    def pool(self, round_id: str) -> PoolReport | None:
        """The round's pool here; None once it has been closed or the round has ended."""
        opened = self._rounds.get(round_id)
        if opened is None or not opened.selecting:
            return None
        # The master aggregator looks at its own clock's end of the window, which messages
        # reached before this one's: from its look on it must be told of every change.
        opened.closes_at = min(opened.closes_at, self.system.now())
        return self._desk_of(opened).quota.report(round_id)

    def take(self, round_id: str, counts: Mapping[str, int]) -> tuple[Chosen, ...]:
        """Takes so many sessions of each stratum out of the pool, which stays open."""
        opened = self._rounds.get(round_id)
        if opened is None or not opened.selecting:
            return ()
        taken = self._desk_of(opened).quota.take(round_id, counts)
        sessions = [self._sessions.get(session_id) for session_id in taken]
        return tuple(
            Chosen(session_id=session.session_id, device_id=session.device_id)
            for session in sessions
            if session is not None and session.live
        )

    def reject(self, round_id: str, sessions: tuple[str, ...], reason: Reason) -> None:
        """Ends sessions that were taken and may not take part after all."""
        if round_id in self._rounds:
            self._end_all(sessions, reason)

    def configure(self, round_id: str, sessions: tuple[str, ...], work: Work) -> None:
        """Gives the chosen devices their assignment, and closes the pool.

        The devices learn it when they poll.
        """
        opened = self._rounds.get(round_id)
        if opened is None or opened.work is not None:
            return
        now = self.system.now()
        self._close_pool(opened, NOT_SELECTED)
        manifest = PlanManifest.FromString(work.manifest)
        training = opened.opening.computation == TRAINING
        opened.admission = Admission(manifest=manifest, training=training)
        opened.work = work
        opened.configured_at = now
        opened.deadline_at = now + work.window_s
        for download in (*work.plans.values(), work.checkpoint):
            self._downloads.allow(opened.opening.population, download.sha256)
        for number in range(AGGREGATORS if sessions else 0):
            name = f"{round_id}/{self._id}/aggregator-{number}"
            aggregator = self.system.spawn(
                Aggregator, name=name, dispatch="inline", layout=opened.admission.layout
            )
            opened.aggregators[name] = aggregator
            opened.accepted[name] = set()
            self.system.watch(self.ref, aggregator)
        for session_id in sessions:
            session = self._sessions.get(session_id)
            if session is not None and session.state is State.WAITING:
                session.state = State.SELECTED
            else:
                # It left between its choice and now.
                self._tell(opened, SessionEnded(session_id, "aborted"))

    def close_round(self, round_id: str, reason: Reason) -> PartialSum | None:
        """Ends the round here, and hands over the sum of what was received for it.

        None if nothing was, or the round is not open here.
        """
        opened = self._rounds.get(round_id)
        if opened is None:
            return None
        parts = []
        # The sums are closed first: an update that is being added just now is
        # either in, or told that the goal is reached.
        for aggregator in opened.aggregators.values():
            try:
                parts.append(aggregator.ask("close"))
            except ActorDied:
                continue
        self.end_round(round_id, reason)
        return merged(parts)

    def end_round(self, round_id: str, reason: Reason) -> None:
        """Ends the round's sessions, each with `reason`. Harmless when repeated."""
        opened = self._rounds.pop(round_id, None)
        if opened is None:
            return
        now = self.system.now()
        self._close_pool(opened, reason)
        if opened.configured_at:
            self._desk_of(opened).reported_for(now - opened.configured_at)
        for session in self._sessions.of_round(round_id):
            self._sessions.end(session, state=State.ENDED, reason=reason, now=now)
        for aggregator in opened.aggregators.values():
            self.system.stop(aggregator)

    def on_death(self, name: str, reason: BaseException | None) -> None:  # noqa: ARG002
        """A master aggregator has ended, and its round with it; or an aggregator, and its sum."""
        self.end_round(name, ROUND_ABANDONED)
        opened = self._rounds.get(name.partition("/")[0])
        if opened is None or name not in opened.aggregators:
            return
        for session_id in sorted(opened.accepted[name]):
            self._tell(opened, SessionEnded(session_id, "lost"))
        opened.accepted[name].clear()

    def on_stop(self) -> None:
        """The aggregators of its rounds end with it: nobody else would end them."""
        for opened in self._rounds.values():
            for aggregator in opened.aggregators.values():
                self.system.stop(aggregator)

    # Parts of the above.

    def _desk(self, population: str) -> Desk:
        desk = self._desks.get(population)
        if desk is None:
            raise Refusal(UNKNOWN_POPULATION, f"no population {population!r} is served here")
        return desk

    def _desk_of(self, opened: OpenRound) -> Desk:
        return self._desks[opened.opening.population]

    def _rounds_of(self, population: str) -> list[OpenRound]:
        return [each for each in self._rounds.values() if each.opening.population == population]

    def _leave(self, session: Session, how: Ending, reason: Reason) -> None:
        """Ends a session that is not being added, and tells its round."""
        opened = self._rounds.get(session.round_id)
        waiting = session.state is State.WAITING
        self._sessions.end(session, state=State.ENDED, reason=reason, now=self.system.now())
        if opened is None:
            return
        pool = self._desk_of(opened).quota
        if waiting and pool.withdraw(session.round_id, session.session_id):
            if self.system.now() >= opened.closes_at:
                self._pool_changed(opened)
        else:
            self._tell(opened, SessionEnded(session.session_id, how))

    def _pool_changed(self, opened: OpenRound) -> None:
        round_id = opened.opening.round_id
        waiting = self._desk_of(opened).quota.waiting(round_id)
        opened.opening.master.tell("pool_changed", self._id, waiting)

    @staticmethod
    def _tell(opened: OpenRound, event: UpdateAccepted | SessionEnded) -> None:
        opened.opening.master.tell("on_event", event)

    def _close_pool(self, opened: OpenRound, reason: Reason) -> None:
        if opened.selecting:
            opened.selecting = False
            self._end_all(self._desk_of(opened).quota.close(opened.opening.round_id), reason)

    def _end_all(self, session_ids: Iterable[str], reason: Reason) -> None:
        now = self.system.now()
        for session_id in session_ids:
            session = self._sessions.get(session_id)
            if session is not None and session.live:
                self._sessions.end(session, state=State.ENDED, reason=reason, now=now)
