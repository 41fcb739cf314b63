"""One session, from check-in to accepted upload, as a pure state machine.

It has no clock, disk, network or thread. The device performs the action that
the session asks for, tells it what happened, and gets the next action.

The session's shape has one character an event, as in Bonawitz et al. 2019,
table 1:

    -  check-in                    +  upload started
    v  plan and checkpoint at hand ^  upload completed: the update is in the sum
    [  computation started         #  upload rejected
    ]  computation completed       !  interrupted    *  error

Its grammar (`SHAPE` is the regular expression):

    shape    = "-" [ "!" | "*" | "v" trained ]
    trained  = [ "!" | "*" | "[" ( "!" | "*" | "]" reported ) ]
    reported = "!" | "*" | "#" | "+" ( "!" | "*" | "#" | "^" )

    -        rejected, at check-in or out of the selection pool
    -v       the example store has too few examples
    -v[!     the gate closed during the computation, or the deadline passed
    -v[]#    the round had its updates before this one's upload began
    -v[]+#   the server refused the update or ended the round during the upload
    -v[]+^   accepted
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from enum import IntEnum

from android_stub.session_messages import (
    Abort,
    AbortAnswered,
    Action,
    Assigned,
    CheckIn,
    CheckpointReady,
    ChunkArrived,
    Comeback,
    ComputationStarted,
    Compute,
    Computed,
    ContactLost,
    DeadlinePassed,
    End,
    Event,
    Failed,
    FetchCheckpoint,
    FetchPlan,
    GateClosed,
    PlanReady,
    Poll,
    Refused,
    Rejected,
    Report,
    ReportAnswered,
    Submit,
    SubmitAnswered,
    TooFewExamples,
    UploadChunk,
    Waiting,
)
from device_plan.wire_pb2 import AbortReason, Assignment, Reason

#: Every shape that a finished session can have.
SHAPE = re.compile(r"-([!*]|v([!*]|\[([!*]|\]([!*#]|\+[!*#^])))?)?")

#: Seconds before each further attempt at a request that lost contact. The count
#: starts anew whenever the session gets further than ever before.
RETRY_DELAYS_S = (0.5, 1.0, 2.0, 4.0, 8.0)
#: Bounds of the poll interval that a server may ask for.
MIN_POLL_S = 0.05
MAX_POLL_S = 300.0
#: Seconds in a selection pool after which the device leaves.
MAX_WAITING_S = 3600.0

#: The server has nothing for the device now; the device did nothing wrong.
_ORDINARY = frozenset(
    {
        Reason.NO_TASK,
        Reason.ROUND_FULL,
        Reason.NOT_SELECTED,
        Reason.ROUND_ABANDONED,
        Reason.GOAL_REACHED,
        Reason.HELD_OUT,
        Reason.RUNTIME_NOT_SUPPORTED,
        Reason.PARTICIPATED_RECENTLY,
        Reason.PARTICIPATED_ENOUGH,
        Reason.DRAINING,
        Reason.QUOTA_REACHED,
        Reason.ROUND_OVER,
        Reason.DEVICE_ALREADY_IN_SESSION,
        Reason.BUSY,
    }
)
#: The same request will be refused again: a wrong address, name or version.
_PERMANENT = frozenset(
    {
        Reason.MALFORMED_MESSAGE,
        Reason.INVALID_FIELD,
        Reason.UNSUPPORTED_PROTOCOL,
        Reason.UNSUPPORTED_MEDIA_TYPE,
        Reason.MISSING_CREDENTIAL,
        Reason.UNKNOWN_POPULATION,
        Reason.UNKNOWN_ROUTE,
    }
)
#: The round went on without this device's update.
_ROUND_ENDED = frozenset({Reason.GOAL_REACHED, Reason.ROUND_OVER, Reason.ROUND_ABANDONED})
#: Refusals of one chunk that sending it again may mend.
_SEND_AGAIN = frozenset({Reason.BUSY, Reason.WRONG_DIGEST, Reason.TRUNCATED})


class Phase(IntEnum):
    """Where the session stands; the order is the order of progress."""

    CHECKING_IN = 0
    WAITING = 1
    FETCHING_PLAN = 2
    FETCHING_CHECKPOINT = 3
    COMPUTING = 4
    REPORTING = 5
    UPLOADING = 6
    SUBMITTING = 7
    ABORTING = 8
    ENDED = 9


class Session:
    """One attempt of one device at one population.

    An event that does not fit the phase changes nothing: late and repeated
    answers are harmless.

    Args:
        retry_delays_s: Seconds before each further attempt; its length bounds
            the attempts without progress.
        chunk_bytes: Upper bound of a chunk, besides the server's own.

    Attributes:
        phase: Where the session stands.
        shape: The characters so far.
        action: What the device is to do now; an `End` once the phase is ENDED.
        assignment: The work, once assigned.
    """

    __slots__ = (
        "_comeback",
        "_computing",
        "_failures",
        "_furthest",
        "_retry_delays_s",
        "_total",
        "_waited_s",
        "action",
        "assignment",
        "chunk_bytes",
        "phase",
        "shape",
    )

    def __init__(
        self,
        *,
        retry_delays_s: Sequence[float] = RETRY_DELAYS_S,
        chunk_bytes: int = 1 << 20,
    ) -> None:
        if chunk_bytes < 1:
            raise ValueError(f"chunk_bytes must be at least 1, not {chunk_bytes}")
        self._retry_delays_s = tuple(retry_delays_s)
        self.chunk_bytes = chunk_bytes
        self.phase = Phase.CHECKING_IN
        self.shape = "-"
        self.action: Action = CheckIn()
        self.assignment: Assignment | None = None
        self._computing = False
        self._comeback = Comeback.REJECTED
        self._failures = 0
        self._furthest: tuple[int, int] = (0, 0)
        self._total = 0
        self._waited_s = 0.0

    @property
    def ended(self) -> bool:
        return self.phase is Phase.ENDED

    def handle(self, event: Event) -> Action:
        """Takes one event and returns the action that is now due."""
        match self.phase:
            case Phase.ENDED:
                pass
            case Phase.ABORTING:
                if isinstance(event, AbortAnswered | Refused | ContactLost):
                    self._end()
            case _:
                self._handle_live(event)
        return self.action

    def _handle_live(self, event: Event) -> None:
        match event:
            # Once all is sent, the one request left costs less than an abort.
            case GateClosed() | DeadlinePassed() if self.phase is Phase.SUBMITTING:
                pass
            case GateClosed():
                self._stop("!", AbortReason.CONDITIONS_CHANGED)
            case DeadlinePassed() if self.assignment is not None:
                self._stop("!", AbortReason.OUT_OF_TIME)
            case Failed(reason=reason):
                if reason == AbortReason.UNSUPPORTED_PLAN:
                    self._comeback = Comeback.PERMANENT
                self._stop("*", reason)
            case ContactLost() if self.phase is not Phase.COMPUTING:
                self._again()
            case Refused():
                self._refused(event)
            case _:
                self._advance(event)

    def _advance(self, event: Event) -> None:
        match self.phase, event:
            case ((Phase.CHECKING_IN | Phase.WAITING), Waiting(poll_after_s=asked)):
                delay = min(max(asked, MIN_POLL_S), MAX_POLL_S)
                self._waited_s += delay
                self._go(Phase.WAITING, Poll(after_s=delay))
                # Waiting is no failure, however often the answer is the same.
                self._failures = 0
                if self._waited_s > MAX_WAITING_S:
                    self._stop("!", AbortReason.OUT_OF_TIME)
            case ((Phase.CHECKING_IN | Phase.WAITING), Assigned(assignment=assignment)):
                self.assignment = assignment
                self._comeback = Comeback.ACCEPTED
                self._go(Phase.FETCHING_PLAN, FetchPlan())
            case ((Phase.CHECKING_IN | Phase.WAITING), Rejected()):
                self._end()
            case Phase.FETCHING_PLAN, PlanReady():
                self._go(Phase.FETCHING_CHECKPOINT, FetchCheckpoint())
            case Phase.FETCHING_CHECKPOINT, CheckpointReady():
                self.shape += "v"
                self._go(Phase.COMPUTING, Compute())
            case Phase.COMPUTING, TooFewExamples() if not self._computing:
                self._stop("", AbortReason.NOT_ENOUGH_EXAMPLES)
            case Phase.COMPUTING, ComputationStarted() if not self._computing:
                self._computing = True
                self.shape += "["
            case Phase.COMPUTING, Computed() if self._computing:
                self._computed(event)
            case Phase.REPORTING, ReportAnswered(upload=True):
                self.shape += "+"
                self._upload_from(0)
            case Phase.REPORTING, ReportAnswered(upload=False):
                self.shape += "#"
                self._end()
            case Phase.UPLOADING, ChunkArrived(received=received):
                self._chunk_arrived(received)
            case Phase.SUBMITTING, SubmitAnswered():
                self.shape += "^"
                self._end()

    def _computed(self, event: Computed) -> None:
        assert self.assignment is not None
        self._total = event.update_bytes
        limit = self.assignment.upload.max_bytes
        if not 1 <= self._total <= (limit or self._total):
            self._stop("*", AbortReason.COMPUTATION_FAILED)
            return
        self.shape += "]"
        self._go(
            Phase.REPORTING,
            Report(examples=event.examples, batches=event.batches, compute_ms=event.compute_ms),
        )

    def _chunk_arrived(self, received: int) -> None:
        if received >= self._total:
            self._go(Phase.SUBMITTING, Submit())
        elif (int(Phase.UPLOADING), received) > self._furthest:
            self._upload_from(received)
        else:
            # An answer without progress counts like no answer, or a confused
            # server could keep the device sending for ever.
            self._again(self._chunk(received))

    def _refused(self, event: Refused) -> None:
        reason = event.reason
        match self.phase:
            case Phase.CHECKING_IN | Phase.WAITING:
                if reason in _PERMANENT:
                    self._comeback = Comeback.PERMANENT
                if reason not in _ORDINARY:
                    self.shape += "*"
                self._end()
            case Phase.FETCHING_PLAN | Phase.FETCHING_CHECKPOINT:
                self._stop("*", AbortReason.DOWNLOAD_FAILED)
            case Phase.REPORTING:
                if reason == Reason.BUSY:
                    self._again()
                else:
                    self.shape += "#" if reason in _ROUND_ENDED else "*"
                    self._end()
            case Phase.UPLOADING | Phase.SUBMITTING:
                self._refused_upload(reason, event.upload_offset)

    def _refused_upload(self, reason: "Reason", upload_offset: int) -> None:
        if reason == Reason.ALREADY_SUBMITTED:
            self.shape += "^"
            self._end()
        elif reason == Reason.CHUNK_OUT_OF_ORDER and self.phase is Phase.UPLOADING:
            self._again(self._chunk(min(upload_offset, self._total - 1)))
        elif reason == Reason.UPLOAD_INCOMPLETE:
            self.phase = Phase.UPLOADING
            self._again(self._chunk(min(upload_offset, self._total - 1)))
        elif reason in _SEND_AGAIN:
            self._again()
        else:
            self.shape += "#"
            self._end()

    def _chunk(self, offset: int) -> UploadChunk:
        assert self.assignment is not None
        most = min(self.chunk_bytes, self.assignment.upload.max_chunk_bytes or self.chunk_bytes)
        return UploadChunk(offset=offset, length=min(most, self._total - offset), total=self._total)

    def _upload_from(self, offset: int) -> None:
        self._go(Phase.UPLOADING, self._chunk(offset), offset)

    def _go(self, phase: Phase, action: Action, offset: int = 0) -> None:
        self.phase = phase
        self.action = action
        if (int(phase), offset) > self._furthest:
            self._furthest = (int(phase), offset)
            self._failures = 0

    def _again(self, action: Action | None = None) -> None:
        """Asks for the action (or the same one) once more, later each time."""
        if self._failures >= len(self._retry_delays_s):
            self.shape += "*"
            self._end()
            return
        delay = self._retry_delays_s[self._failures]
        self._failures += 1
        self.action = replace(action or self.action, after_s=delay)

    def _stop(self, mark: str, reason: "AbortReason") -> None:
        """Ends the session from the device's side, telling the server if it knows of it."""
        self.shape += mark
        if self.phase is Phase.CHECKING_IN:
            self._end()
        else:
            self.phase = Phase.ABORTING
            self.action = Abort(reason=reason)

    def _end(self) -> None:
        self.phase = Phase.ENDED
        self.action = End(comeback=self._comeback)
