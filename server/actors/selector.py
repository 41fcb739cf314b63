"""The selector: accepts or rejects devices, and receives what they send.

One actor a process. It runs inline, on the thread of the HTTP request that
asks it, one message at a time: every message is short, bodies are read and
updates are added outside.
"""

from __future__ import annotations

import functools
import random
import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from device_plan import runtimes
from device_plan.wire_pb2 import (
    ALREADY_SUBMITTED,
    BUSY,
    DEVICE_ALREADY_IN_SESSION,
    EVALUATION,
    GOAL_REACHED,
    HELD_OUT,
    NO_TASK,
    NOT_SELECTED,
    ROUND_ABANDONED,
    ROUND_FULL,
    ROUND_OVER,
    RUNTIME_NOT_SUPPORTED,
    TRAINING,
    UNKNOWN_POPULATION,
    UPLOAD_INCOMPLETE,
    WRONG_STATE,
    Computation,
    Reason,
)
from server.actors.runtime import Ref
from server.aggregation.admission import Admission
from server.assignment import Answer, Opening, Variants, Work
from server.chunks import Chunk, begin_chunk, end_chunk
from server.protocol.holdout import is_held_out
from server.protocol.pace_steering import PaceSteering, Windows
from server.protocol.quota import Quota
from server.protocol.round import PoolChanged, SessionEnded, UpdateAccepted
from server.refusal import Refusal
from server.session import Session, SessionTable, State
from server.upload import UploadMemory

#: Runtimes that are counted apart when their devices are turned away.
MAX_COUNTED_RUNTIMES = 64

#: Seconds after which a device in the selection pool asks again at the latest.
MAX_POLL_S = 10.0


#: A population's devices report few different runtimes, each of them many times.
_variant_for = functools.lru_cache(maxsize=4096)(runtimes.choose)


@dataclass(frozen=True, kw_only=True)
class PopulationSettings:
    """What a selector must know of a population to serve it.

    Attributes:
        unsupported_retry_s: Seconds that a device waits at least whose runtime no task
            supports, and half of what it waits at most.
    """

    name: str
    holdout_fraction: float
    holdout_salt: bytes
    pace: PaceSteering
    unsupported_retry_s: float


@dataclass(slots=True, kw_only=True)
class _OpenRound:
    opening: Opening
    #: Seconds of its selection window.
    window_s: float
    work: Work | None = None
    configured_at: float = 0.0
    selecting: bool = True


@dataclass(kw_only=True)
class _Desk:
    """One population's share of this selector."""

    settings: PopulationSettings
    quota: Quota
    #: Seconds that recent rounds took from their configuration to their end.
    reporting_s: float = 0.0
    #: The variants of each task that goes on.
    offers: Mapping[Computation, Sequence[Variants]] = field(default_factory=dict)
    #: Check-ins turned away, by what their runtime was taken for.
    unsupported: Counter[str] = field(default_factory=Counter)


class Selector:
    """Guards the sessions of this process.

    Args:
        clock: Seconds, monotonic.
        rng: For reservoir sampling and polls.
        memory: For unfinished uploads.
        poll_interval_s: How often a device in the pool asks once the window has passed.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        rng: random.Random,
        memory: UploadMemory,
        poll_interval_s: float,
    ) -> None:
        self._clock = clock
        self._rng = rng
        self._memory = memory
        self._poll_interval_s = poll_interval_s
        self._desks: dict[str, _Desk] = {}
        self._rounds: dict[str, _OpenRound] = {}
        self._sessions = SessionTable()

    # Messages of the coordinator and the master aggregators.

    def serve_population(self, settings: PopulationSettings) -> None:
        """Begins to accept check-ins of a population; harmless when repeated."""
        if settings.name not in self._desks:
            self._desks[settings.name] = _Desk(settings=settings, quota=Quota(rng=self._rng))

    def offer(self, population: str, offers: Mapping[Computation, Sequence[Variants]]) -> None:
        """Which runtimes the population's tasks have a variant for, task by task."""
        self._desks[population].offers = offers

    def open_selection(self, opening: Opening) -> None:
        """Samples devices for a round until `take`."""
        now = self._clock()
        self._rounds[opening.round_id] = _OpenRound(
            opening=opening, window_s=max(opening.closes_at - now, 0.0)
        )
        desk = self._desks[opening.population]
        desk.quota.open(opening.round_id, opening.capacity)
        self._steer(desk)

    def waiting(self, round_id: str) -> int | None:
        """Devices in the round's pool; None once it has been taken or has ended."""
        opened = self._rounds.get(round_id)
        if opened is None or not opened.selecting:
            return None
        return self._desks[opened.opening.population].quota.waiting(round_id)

    def take(self, round_id: str, count: int) -> tuple[str, ...]:
        """Ends selection: the sessions chosen. The others are rejected."""
        opened = self._rounds[round_id]
        desk = self._desks[opened.opening.population]
        selected, rejected = desk.quota.take(round_id, count)
        opened.selecting = False
        self._end_all(rejected, NOT_SELECTED)
        return selected

    def configure(self, round_id: str, sessions: tuple[str, ...], work: Work) -> None:
        """Gives the chosen devices their assignment; they learn it when they poll."""
        opened = self._rounds[round_id]
        opened.work = work
        opened.configured_at = self._clock()
        for session_id in sessions:
            session = self._sessions.get(session_id)
            if session is not None and session.state is State.WAITING:
                session.state = State.SELECTED

    def end_round(self, round_id: str, reason: Reason) -> None:
        """Ends the round's sessions, each with `reason`. Harmless when repeated."""
        opened = self._rounds.pop(round_id, None)
        if opened is None:
            return
        now = self._clock()
        desk = self._desks[opened.opening.population]
        if opened.selecting:
            desk.quota.close(round_id)
        if opened.configured_at:
            took = now - opened.configured_at
            desk.reporting_s = (desk.reporting_s + took) / 2 if desk.reporting_s else took
        for session in self._sessions.of_round(round_id):
            self._sessions.end(session, state=State.ENDED, reason=reason, now=now)

    def rest(self, population: str) -> None:
        """Nothing is scheduled: devices need not come back soon."""
        self._desks[population].settings.pace.steer(demand_per_s=0.0, round_period_s=1.0)

    def forget_ended_sessions(self) -> None:
        self._sessions.forget(self._clock())

    def statistics(self, population: str) -> dict[str, float]:
        """Live sessions by state and the population's size as pace steering estimates it."""
        desk = self._desk(population)
        live = self._sessions.live_by_state(population)
        return {**live, "estimated_devices": desk.settings.pace.estimate}

    def unsupported(self, population: str) -> dict[str, int]:
        """Check-ins since the start that were turned away for their runtime, by runtime."""
        return dict(self._desk(population).unsupported)

    # Messages of devices.

    def windows(self, population: str | None) -> Windows | None:
        """The retry windows of a population, if it is one of ours."""
        desk = self._desks.get(population or "")
        return desk.settings.pace.current(self._clock()) if desk is not None else None

    def population_of(self, session_id: str) -> str | None:
        """The population of a session that is remembered here."""
        session = self._sessions.get(session_id)
        return session.population if session is not None else None

    def check_in(self, population: str, device_id: bytes, check_in_id: str, runtime: str) -> Answer:
        """A device asks for work, and says which runtime it would do it with.

        Raises:
            Refusal: UNKNOWN_POPULATION, DEVICE_ALREADY_IN_SESSION.
        """
        desk = self._desk(population)
        now = self._clock()
        current = self._sessions.of_device(device_id)
        if current is not None:
            if current.check_in_id == check_in_id:
                return self._standing(current, now)
            raise Refusal(
                DEVICE_ALREADY_IN_SESSION,
                "this device has a session already: finish or abort it, or wait until its "
                "round ends",
            )
        settings = desk.settings
        held_out = is_held_out(device_id, settings.holdout_salt, settings.holdout_fraction)
        computation = EVALUATION if held_out else TRAINING
        offers = desk.offers.get(computation, ())
        if offers and not any(_variant_for(variants, runtime) for variants in offers):
            return self._unsupported(desk, runtime, now)
        # Not counted before: rounds cannot use devices that no task supports.
        desk.settings.pace.observe(int.from_bytes(device_id[:8], "big"), now)
        opened, variant = self._selecting(population, computation, runtime)
        if opened is None:
            return Answer(reason=HELD_OUT if held_out else NO_TASK)
        session_id = secrets.token_hex(16)
        offer = desk.quota.offer(opened.opening.round_id, session_id)
        if not offer.accepted:
            return Answer(reason=ROUND_FULL)
        if offer.evicted is not None:
            self._end_all((offer.evicted,), NOT_SELECTED)
        session = Session(
            session_id=session_id,
            population=population,
            device_id=device_id,
            check_in_id=check_in_id,
            round_id=opened.opening.round_id,
            variant=variant,
        )
        self._sessions.add(session)
        # The master aggregator looks at the pool when the window ends; before
        # that it need not be woken for every device.
        if now >= opened.opening.closes_at:
            waiting = desk.quota.waiting(opened.opening.round_id)
            opened.opening.master.tell("on_event", PoolChanged(waiting))
        return self._standing(session, now)

    def poll(self, session_id: str) -> Answer:
        """A device in the pool asks whether it was selected.

        Raises:
            Refusal: why the session is over.
        """
        session = self._find(session_id)
        if session.state is State.ENDED and session.reason in (NOT_SELECTED, ROUND_ABANDONED):
            return Answer(session_id=session_id, reason=session.reason)
        session.require_live()
        return self._standing(session, self._clock())

    def report(self, session_id: str) -> Reason | None:
        """The computation is done: None to upload, or why not to.

        Raises:
            Refusal: WRONG_STATE, ROUND_OVER, ALREADY_SUBMITTED.
        """
        session = self._find(session_id)
        if session.state is State.ENDED and session.reason == GOAL_REACHED:
            return GOAL_REACHED
        session.require_live()
        if session.state is State.WAITING:
            raise Refusal(WRONG_STATE, "a report comes after the assignment: poll the session")
        if session.state is State.SELECTED:
            session.state = State.REPORTED
        return None

    def begin_chunk(
        self, session_id: str, offset: int, length: int, total: int
    ) -> tuple[int, memoryview] | None:
        """A chunk's header has arrived: where to receive its body, and a number for `end_chunk`.

        None if the chunk is already here: a retry, to be answered as it was.

        Raises:
            Refusal: WRONG_STATE, TOO_LARGE, INVALID_FIELD, CHUNK_OUT_OF_ORDER, BUSY, or
                why the session is over.
        """
        session = self._find(session_id)
        session.require_live()
        if session.state is not State.REPORTED:
            raise Refusal(WRONG_STATE, "an upload comes after the report and before the submit")
        limit = self._work(session).admission.layout.max_bytes
        chunk = Chunk(offset=offset, length=length, total=total)
        return begin_chunk(session, chunk, limit=limit, memory=self._memory)

    def end_chunk(self, session_id: str, number: int, length: int) -> int:
        """The chunk's body is in its place: the bytes received so far.

        Args:
            session_id: The session.
            number: From `begin_chunk`.
            length: Bytes of the chunk; 0 if it did not arrive as it should.

        Raises:
            Refusal: BUSY if a later request took over, or why the session ended meanwhile.
        """
        session = self._find(session_id)
        session.require_live()
        return end_chunk(session, number, length)

    def received(self, session_id: str) -> int:
        """Bytes of the upload that have arrived, for a device that resumes."""
        session = self._find(session_id)
        session.require_live()
        return session.upload.received if session.upload is not None else 0

    def begin_submit(self, session_id: str) -> tuple[bytes | memoryview, Admission, Ref]:
        """The whole update and where it goes. `end_submit` must follow.

        Raises:
            Refusal: UPLOAD_INCOMPLETE, ALREADY_SUBMITTED, GOAL_REACHED, ROUND_OVER, …
        """
        session = self._find(session_id)
        session.require_live()
        if session.state is State.ADDING:
            raise Refusal(BUSY, "this update is being added just now")
        if session.state is not State.REPORTED:
            raise Refusal(WRONG_STATE, "a submit comes after the report and the upload")
        upload = session.upload
        if upload is None or not upload.complete:
            received = upload.received if upload is not None else 0
            raise Refusal(
                UPLOAD_INCOMPLETE,
                f"{received} bytes have arrived: send the rest, then submit",
                upload_offset=received,
            )
        work = self._work(session)
        session.state = State.ADDING
        aggregators = work.aggregators
        aggregator = aggregators[int(session_id[:4], 16) % len(aggregators)]
        return upload.data(), work.admission, aggregator

    def end_submit(self, session_id: str, refused: Reason | None) -> None:
        """The update is in the sum (None), or was refused for a reason."""
        session = self._find(session_id)
        # A round that ended meanwhile has ended the session; a sum that was
        # closed before the update came in says so by GOAL_REACHED.
        if session.state is not State.ADDING:
            return
        opened = self._rounds.get(session.round_id)
        state = State.ACCEPTED if refused is None else State.ENDED
        self._sessions.end(
            session, state=state, reason=refused or ALREADY_SUBMITTED, now=self._clock()
        )
        if opened is not None:
            event = (
                UpdateAccepted(session_id)
                if refused is None
                else SessionEnded(session_id, "rejected")
            )
            opened.opening.master.tell("on_event", event)

    def abort(self, session_id: str) -> None:
        """The device gives up; harmless when repeated."""
        session = self._find(session_id)
        if not session.live or session.state is State.ADDING:
            return
        opened = self._rounds.get(session.round_id)
        if session.state is State.WAITING:
            self._desks[session.population].quota.withdraw(session.round_id, session_id)
        elif opened is not None:
            opened.opening.master.tell("on_event", SessionEnded(session_id, "aborted"))
        self._sessions.end(session, state=State.ENDED, reason=ROUND_OVER, now=self._clock())

    # Parts of the above.

    def _desk(self, population: str) -> _Desk:
        desk = self._desks.get(population)
        if desk is None:
            raise Refusal(UNKNOWN_POPULATION, f"no population {population!r} is served here")
        return desk

    def _steer(self, desk: _Desk) -> None:
        """Aims pace steering at what the population's open rounds can use.

        A round's period is its selection window and the time it reports; that it
        may have to wait for devices is left out, because that is what pace
        steering is to change.
        """
        population = desk.settings.name
        opened = [r for r in self._rounds.values() if r.opening.population == population]
        capacity = sum(r.opening.capacity for r in opened)
        period_s = max(r.window_s for r in opened) + desk.reporting_s
        if period_s > 0:
            desk.settings.pace.steer(demand_per_s=capacity / period_s, round_period_s=period_s)

    def _find(self, session_id: str) -> Session:
        session = self._sessions.get(session_id)
        if session is None:
            raise Refusal(ROUND_OVER, "the session ended: check in again within the window")
        return session

    def _unsupported(self, desk: _Desk, runtime: str, now: float) -> Answer:
        known = runtimes.parse(runtime)
        name = "unknown" if known is None else str(known)
        if name not in desk.unsupported and len(desk.unsupported) >= MAX_COUNTED_RUNTIMES:
            name = "others"
        desk.unsupported[name] += 1
        passed = runtimes.summary(
            other
            for offers in desk.offers.values()
            for variants in offers
            for _, others in variants
            for other in others
        )
        least = desk.settings.unsupported_retry_s
        return Answer(
            reason=RUNTIME_NOT_SUPPORTED,
            message=f"no task of this population passed its checks on {runtime!r}; they did on: "
            f"{passed}. Update the app's TFLite runtime",
            windows=replace(desk.settings.pace.current(now), if_rejected=(least, 2 * least)),
        )

    def _selecting(
        self, population: str, computation: Computation, runtime: str
    ) -> tuple[_OpenRound | None, str]:
        """A round that selects such devices, and the variant that they execute."""
        candidates = [
            (opened, variant)
            for opened in self._rounds.values()
            if opened.selecting
            and opened.opening.population == population
            and opened.opening.computation == computation
            and (variant := _variant_for(opened.opening.variants, runtime)) is not None
        ]
        return self._rng.choice(candidates) if candidates else (None, "")

    def _standing(self, session: Session, now: float) -> Answer:
        work = self._work(session) if session.state is not State.WAITING else None
        opened = self._rounds[session.round_id]
        if work is None:
            until_close = opened.opening.closes_at - now
            wait = max(until_close, 0.0) + self._rng.uniform(0.2, 1.0) * self._poll_interval_s
            return Answer(session_id=session.session_id, poll_after_s=min(wait, MAX_POLL_S))
        return Answer(
            session_id=session.session_id,
            round_id=opened.opening.round_id,
            task=opened.opening.task,
            computation=opened.opening.computation,
            work=work,
            plan=work.plans[session.variant],
            seconds_left=max(work.deadline_at - now, 0.0),
        )

    def _work(self, session: Session) -> Work:
        opened = self._rounds.get(session.round_id)
        if opened is None:
            raise Refusal(ROUND_OVER, "the round has ended")
        work = opened.work
        if work is None:
            raise Refusal(WRONG_STATE, "the round is not configured yet: poll the session")
        return work

    def _end_all(self, session_ids: tuple[str, ...], reason: Reason) -> None:
        now = self._clock()
        for session_id in session_ids:
            session = self._sessions.get(session_id)
            if session is not None:
                self._sessions.end(session, state=State.ENDED, reason=reason, now=now)
