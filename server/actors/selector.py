"""The selector: accepts or rejects devices, receives what they send, and sums it.

One actor a process. It runs inline, on the thread of the HTTP request that
asks it, one message at a time: every message is short, bodies are read and
updates are added outside. The sums of its rounds are in aggregators of its own
process; a master aggregator gets one partial sum of each round from it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

from device_plan.wire_pb2 import (
    ALREADY_SUBMITTED,
    BUSY,
    DEVICE_ALREADY_IN_SESSION,
    DRAINING,
    EVALUATION,
    GOAL_REACHED,
    HELD_OUT,
    NO_TASK,
    NOT_SELECTED,
    PARTICIPATED_ENOUGH,
    PARTICIPATED_RECENTLY,
    QUOTA_REACHED,
    ROUND_ABANDONED,
    ROUND_FULL,
    ROUND_OVER,
    TRAINING,
    UPLOAD_INCOMPLETE,
    WRONG_STATE,
    Computation,
    Reason,
)
from server.actors.runtime import Ref
from server.actors.selector_rounds import SelectorRounds
from server.aggregation.admission import Admission
from server.assignment import Answer, Assignment
from server.chunks import Chunk, begin_chunk, end_chunk
from server.desk import Desk, variant_for
from server.downloads import Downloads
from server.open_round import OpenRound
from server.protocol.pace_steering import Windows
from server.protocol.round_messages import SessionEnded, UpdateAccepted
from server.refusal import Refusal
from server.session import Session, State
from server.upload import UploadMemory

#: Seconds after which a device in the selection pool asks again at the latest.
MAX_POLL_S = 10.0

#: Why a device that waited is not to take part; it did nothing wrong.
_NOT_CHOSEN = (
    NOT_SELECTED,
    ROUND_ABANDONED,
    PARTICIPATED_RECENTLY,
    PARTICIPATED_ENOUGH,
    DRAINING,
)


class Selector(SelectorRounds):
    """Guards the sessions of this process.

    Args:
        selector_id: Names this selector among those of its tier.
        rng: For reservoir sampling, polls and session ids.
        memory: For unfinished uploads.
        downloads: What devices may fetch.
        poll_interval_s: How often a device in the pool asks once the window has passed.
        grace_s: Seconds that a device may be late with a poll before its place
            is given to another.
    """

    def __init__(
        self,
        *,
        selector_id: str,
        rng: random.Random,
        memory: UploadMemory,
        downloads: Downloads,
        poll_interval_s: float,
        grace_s: float,
    ) -> None:
        super().__init__(selector_id=selector_id, rng=rng, memory=memory, downloads=downloads)
        self._poll_interval_s = poll_interval_s
        self._grace_s = grace_s

    def windows(self, population: str | None) -> Windows | None:
        """The retry windows of a population, if it is one of ours."""
        desk = self._desks.get(population or "")
        return self._windows(desk) if desk is not None else None

    def population_of(self, session_id: str) -> str | None:
        """The population of a session that is remembered here."""
        session = self._sessions.get(session_id)
        return session.population if session is not None else None

    def check_in(
        self,
        population: str,
        device_id: bytes,
        check_in_id: str,
        runtime: str,
        attributes: Mapping[str, str],
    ) -> Answer:
        """A device asks for work, and says which runtime it would do it with.

        Raises:
            Refusal: UNKNOWN_POPULATION, DEVICE_ALREADY_IN_SESSION.
        """
        desk = self._desk(population)
        current = self._sessions.of_device(device_id)
        if current is not None:
            if current.check_in_id == check_in_id:
                return self._standing(current, self.system.now())
            raise Refusal(
                DEVICE_ALREADY_IN_SESSION,
                "this device has a session already: finish or abort it, or wait until its "
                "round ends",
            )
        return self._admitted(desk, device_id, check_in_id, runtime, attributes)

    def poll(self, session_id: str) -> Answer:
        """A device in the pool asks whether it was selected.

        Raises:
            Refusal: why the session is over.
        """
        session = self._find(session_id)
        if session.state is State.ENDED and session.reason in _NOT_CHOSEN:
            return Answer(session_id=session_id, reason=session.reason)
        session.require_live()
        return self._standing(session, self.system.now())

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
            session.deadline = self._configured(session).deadline_at
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
        limit = self._admission(session).layout.max_bytes
        chunk = Chunk(offset=offset, length=length, total=total)
        memory = self._desks[session.population].memory
        return begin_chunk(session, chunk, limit=limit, memory=memory)

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
        opened = self._configured(session)
        alive = [name for name, ref in opened.aggregators.items() if ref.alive]
        if not alive:
            self._leave(session, "lost", ROUND_OVER)
            raise Refusal(ROUND_OVER, "the round's sums were lost: check in again")
        session.aggregator = alive[int(session_id[:4], 16) % len(alive)]
        session.state = State.ADDING
        return upload.data(), self._admission(session), opened.aggregators[session.aggregator]

    def end_submit(self, session_id: str, refused: Reason | None) -> None:
        """The update is in the sum (None), or was refused for a reason."""
        session = self._find(session_id)
        # A round that ended meanwhile has ended the session; a sum that was
        # closed before the update came in says so by GOAL_REACHED.
        if session.state is not State.ADDING:
            return
        now = self.system.now()
        state = State.ACCEPTED if refused is None else State.ENDED
        self._sessions.end(session, state=state, reason=refused or ALREADY_SUBMITTED, now=now)
        opened = self._rounds.get(session.round_id)
        if opened is None:
            return
        if refused is not None:
            self._tell(opened, SessionEnded(session_id, "rejected"))
            return
        opened.accepted[session.aggregator].add(session_id)
        if opened.opening.min_separation_s:
            desk = self._desk_of(opened)
            desk.participated(opened.opening.task_id, session.device_id, now)
        self._tell(opened, UpdateAccepted(session_id))
        if not opened.aggregators[session.aggregator].alive:
            # It died between the addition and this message.
            self.on_death(session.aggregator, None)

    def abort(self, session_id: str) -> None:
        """The device gives up; harmless when repeated."""
        session = self._find(session_id)
        if session.live and session.state is not State.ADDING:
            self._leave(session, "aborted", ROUND_OVER)

    def _admitted(
        self,
        desk: Desk,
        device_id: bytes,
        check_in_id: str,
        runtime: str,
        attributes: Mapping[str, str],
    ) -> Answer:
        """A new session in a pool, or why there is none."""
        settings, now = desk.settings, self.system.now()
        if self._drain_retry_s is not None:
            return self._come_back(desk, DRAINING)
        held_out = desk.holdout.holds(device_id)
        computation = EVALUATION if held_out else TRAINING
        if not desk.supports(computation, runtime):
            return desk.unsupported_answer(runtime)
        # Not counted before: rounds cannot use devices that no task supports.
        desk.pace.observe(int.from_bytes(device_id[:8], "big"), now)
        opened, variant = self._selecting(settings.name, computation, runtime)
        if opened is None:
            return self._come_back(desk, HELD_OUT if held_out else NO_TASK)
        left_s = desk.separation_left(opened, device_id, now)
        if left_s > 0:
            later = Windows(if_accepted=(left_s, 2 * left_s), if_rejected=(left_s, 2 * left_s))
            return Answer(reason=PARTICIPATED_RECENTLY, windows=later)
        most = settings.max_sessions
        if most is not None and self._sessions.live[settings.name] >= most:
            return self._come_back(desk, QUOTA_REACHED)
        session_id = self._rng.randbytes(16).hex()
        offer = desk.quota.offer(opened.opening.round_id, session_id, attributes)
        if not offer.accepted:
            return self._come_back(desk, ROUND_FULL)
        session = Session(
            session_id=session_id,
            population=settings.name,
            device_id=device_id,
            check_in_id=check_in_id,
            round_id=opened.opening.round_id,
            variant=variant,
        )
        self._sessions.add(session)
        if offer.evicted is not None:
            self._end_all((offer.evicted,), NOT_SELECTED)
        elif now >= opened.closes_at:
            # The master aggregator looks at the pool when the window ends; before
            # that it need not be woken for every device.
            self._pool_changed(opened)
        return self._standing(session, now)

    def _come_back(self, desk: Desk, reason: Reason) -> Answer:
        return Answer(reason=reason, windows=self._windows(desk))

    def _windows(self, desk: Desk) -> Windows:
        windows = desk.pace.current(self.system.now())
        if self._drain_retry_s is None:
            return windows
        return Windows(if_accepted=windows.if_accepted, if_rejected=self._drain_retry_s)

    def _selecting(
        self, population: str, computation: Computation, runtime: str
    ) -> tuple[OpenRound | None, str]:
        """A round that selects such devices, drawn by weight, and the variant they execute."""
        candidates = [
            (opened, variant)
            for opened in self._rounds.values()
            if opened.selecting
            and opened.opening.population == population
            and opened.opening.computation == computation
            and (variant := variant_for(opened.opening.variants, runtime)) is not None
        ]
        if len(candidates) <= 1:
            return candidates[0] if candidates else (None, "")
        weights = [opened.opening.weight for opened, _ in candidates]
        return self._rng.choices(candidates, weights)[0]

    def _standing(self, session: Session, now: float) -> Answer:
        windows = self._windows(self._desks[session.population])
        opened = self._rounds.get(session.round_id)
        if opened is None:
            # Its update is being added while the round ends: the sum decides.
            raise Refusal(ROUND_OVER, "the round has ended")
        if session.state is State.WAITING:
            until_close = max(opened.closes_at - now, 0.0)
            wait = until_close + self._rng.uniform(0.2, 1.0) * self._poll_interval_s
            wait = min(wait, MAX_POLL_S)
            session.deadline = now + wait + self._grace_s
            return Answer(session_id=session.session_id, poll_after_s=wait, windows=windows)
        opened = self._configured(session)
        assert opened.work is not None
        session.deadline = opened.deadline_at
        return Answer(
            session_id=session.session_id,
            windows=windows,
            assignment=Assignment(
                round_id=opened.opening.round_id,
                task=opened.opening.task,
                computation=opened.opening.computation,
                plan=opened.work.plans[session.variant],
                checkpoint=opened.work.checkpoint,
                max_upload_bytes=self._admission(session).layout.max_bytes,
                seconds_left=max(opened.deadline_at - now, 0.0),
            ),
        )

    def _find(self, session_id: str) -> Session:
        session = self._sessions.get(session_id)
        if session is None:
            raise Refusal(ROUND_OVER, "the session ended: check in again within the window")
        return session

    def _configured(self, session: Session) -> OpenRound:
        opened = self._rounds.get(session.round_id)
        if opened is None:
            raise Refusal(ROUND_OVER, "the round has ended")
        if opened.work is None:
            raise Refusal(WRONG_STATE, "the round is not configured yet: poll the session")
        return opened

    def _admission(self, session: Session) -> Admission:
        admission = self._configured(session).admission
        assert admission is not None
        return admission
