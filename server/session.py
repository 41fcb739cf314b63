"""One device's part in a round, as its selector sees it."""

import math
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum

from device_plan.wire_pb2 import (
    ALREADY_SUBMITTED,
    GOAL_REACHED,
    REASON_UNSPECIFIED,
    ROUND_OVER,
    Reason,
)
from server.refusal import Refusal
from server.upload import Upload


class State(Enum):
    """Where a session stands. Each state is entered at most once, in this order."""

    WAITING = "waiting"  # in the selection pool
    SELECTED = "selected"  # has an assignment
    REPORTED = "reported"  # computed; may upload
    ADDING = "adding"  # its update is being checked and added
    ACCEPTED = "accepted"  # its update is in the sum
    ENDED = "ended"  # by `reason`


#: States in which the device still has something to do.
LIVE = frozenset({State.WAITING, State.SELECTED, State.REPORTED, State.ADDING})


@dataclass(slots=True, kw_only=True)
class Session:
    """Mutable; guarded by the selector that owns it."""

    session_id: str
    population: str
    #: Derived from the population and the device's key: no two populations share one.
    device_id: bytes
    check_in_id: str
    round_id: str
    #: The variant of the round's plan that the device's runtime executes.
    variant: str
    state: State = State.WAITING
    #: Seconds on the selector's clock until which the device must be heard of.
    deadline: float = math.inf
    #: Why it ended, for a device that asks later.
    reason: Reason = REASON_UNSPECIFIED
    #: Seconds on the selector's clock after which it may be forgotten.
    forget_at: float = 0.0
    upload: Upload | None = None
    #: The sum that its update is added to, by the aggregator's name.
    aggregator: str = ""
    #: Counts the requests that brought a chunk; only the newest may append, so that
    #: a connection that hangs does not lock its own device out.
    chunks_begun: int = 0

    @property
    def live(self) -> bool:
        return self.state in LIVE

    def require_live(self) -> None:
        """Raises Refusal: ALREADY_SUBMITTED, GOAL_REACHED or ROUND_OVER, if it is not."""
        if self.live:
            return
        if self.state is State.ACCEPTED:
            raise Refusal(ALREADY_SUBMITTED, "this session's update is in the sum: it is done")
        if self.reason == GOAL_REACHED:
            raise Refusal(GOAL_REACHED, "the round has enough updates: nothing was added")
        raise Refusal(ROUND_OVER, "the session is over: check in again within the window")


@dataclass(kw_only=True)
class SessionTable:
    """The sessions of a selector: by id, by round, and the live one of each device."""

    #: Seconds an ended session is remembered, so that a late request learns why.
    memory_s: float = 60.0
    #: Live sessions of each population.
    live: Counter[str] = field(default_factory=Counter)
    _sessions: dict[str, Session] = field(default_factory=dict)
    _by_device: dict[bytes, Session] = field(default_factory=dict)
    _by_round: dict[str, dict[str, Session]] = field(default_factory=dict)
    _ended: dict[str, Session] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._sessions)

    def add(self, session: Session) -> None:
        self._sessions[session.session_id] = session
        self._by_device[session.device_id] = session
        self._by_round.setdefault(session.round_id, {})[session.session_id] = session
        self.live[session.population] += 1

    def get(self, session_id: str) -> Session | None:
        return self._sessions.get(session_id)

    def of_device(self, device_id: bytes) -> Session | None:
        """The device's live session."""
        return self._by_device.get(device_id)

    def end(self, session: Session, *, state: State, reason: Reason, now: float) -> None:
        """Moves a live session to ACCEPTED or ENDED and frees its device and its upload."""
        session.state = state
        session.reason = reason
        if session.upload is not None:
            session.upload.release()
            session.upload = None
        session.forget_at = now + self.memory_s
        self._ended[session.session_id] = session
        if self._by_device.get(session.device_id) is session:
            del self._by_device[session.device_id]
            self.live[session.population] -= 1
        of_round = self._by_round.get(session.round_id, {})
        of_round.pop(session.session_id, None)
        if not of_round:
            self._by_round.pop(session.round_id, None)

    def forget(self, now: float) -> None:
        """Drops the sessions that ended long ago."""
        # _ended is in the order of forget_at: only its head can be due.
        due = []
        for session in self._ended.values():
            if session.forget_at > now:
                break
            due.append(session.session_id)
        for session_id in due:
            del self._ended[session_id]
            self._sessions.pop(session_id, None)

    def overdue(self, now: float) -> list[Session]:
        """Live sessions whose device should have been heard of by now.

        Those whose update is being added are not among them: the sum decides.
        """
        return [
            session
            for session in self._by_device.values()
            if session.deadline < now and session.state is not State.ADDING
        ]

    def live_by_state(self, population: str) -> dict[str, int]:
        """How many live sessions of a population are in each state."""
        counts = {state.value: 0 for state in State if state in LIVE}
        for session in self._by_device.values():
            if session.population == population:
                counts[session.state.value] += 1
        return counts

    def of_round(self, round_id: str) -> list[Session]:
        """The sessions that end with their round: the live ones, except those whose update
        is being added, of which the sum decides."""
        found = self._by_round.get(round_id, {}).values()
        return [session for session in found if session.state is not State.ADDING]
