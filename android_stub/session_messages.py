"""What happens to a session (events) and what it asks for (actions)."""

from dataclasses import dataclass
from enum import Enum

from device_plan.wire_pb2 import AbortReason, Assignment, Reason


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """The server holds the device in its selection pool."""

    poll_after_s: float


@dataclass(frozen=True, kw_only=True)
class Assigned:
    assignment: Assignment


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """The answer to a check-in or a poll was a rejection."""

    reason: "Reason"


@dataclass(frozen=True)
class PlanReady:
    """The plan's device part is at hand and verified."""


@dataclass(frozen=True)
class CheckpointReady:
    """The checkpoint is at hand and verified."""


@dataclass(frozen=True)
class ComputationStarted:
    """The examples were found and the first batch begins."""


@dataclass(frozen=True)
class TooFewExamples:
    """The example store has fewer examples than the plan's selector demands."""


@dataclass(frozen=True, kw_only=True)
class Computed:
    """The computation ended with an update of so many bytes (at least 1)."""

    examples: int
    batches: int
    compute_ms: int
    update_bytes: int


@dataclass(frozen=True, kw_only=True)
class ReportAnswered:
    upload: bool


@dataclass(frozen=True, kw_only=True)
class ChunkArrived:
    """The server holds this many bytes of the update."""

    received: int


@dataclass(frozen=True)
class SubmitAnswered:
    """The update is in the round's sum."""


@dataclass(frozen=True)
class AbortAnswered:
    """The server knows that the session ended."""


@dataclass(frozen=True, kw_only=True)
class Refused:
    """The server answered 4xx."""

    reason: "Reason"
    #: With CHUNK_OUT_OF_ORDER: the bytes the server holds.
    upload_offset: int = 0


@dataclass(frozen=True)
class ContactLost:
    """No answer, a broken one, or 5xx: the same request may work later."""


@dataclass(frozen=True)
class GateClosed:
    """The device is in use, unplugged, or on a metered network."""


@dataclass(frozen=True)
class DeadlinePassed:
    """The session's time is over by the device's own clock."""


@dataclass(frozen=True, kw_only=True)
class Failed:
    """The device cannot go on, e.g. the plan is damaged or the computation failed."""

    reason: "AbortReason"


Event = (
    Waiting
    | Assigned
    | Rejected
    | PlanReady
    | CheckpointReady
    | ComputationStarted
    | TooFewExamples
    | Computed
    | ReportAnswered
    | ChunkArrived
    | SubmitAnswered
    | AbortAnswered
    | Refused
    | ContactLost
    | GateClosed
    | DeadlinePassed
    | Failed
)


@dataclass(frozen=True, kw_only=True)
class CheckIn:
    after_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Poll:
    after_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class FetchPlan:
    after_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class FetchCheckpoint:
    after_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Compute:
    after_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Report:
    examples: int
    batches: int
    compute_ms: int
    after_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class UploadChunk:
    """Send the update's bytes [offset, offset + length)."""

    offset: int
    length: int
    total: int
    after_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Submit:
    after_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Abort:
    reason: "AbortReason"
    after_s: float = 0.0


class Comeback(Enum):
    """Which delay the device takes after the session."""

    #: The window for devices that were given work.
    ACCEPTED = "accepted"
    #: The window for devices that were not.
    REJECTED = "rejected"
    #: The long default: trying again soon cannot help.
    PERMANENT = "permanent"


@dataclass(frozen=True, kw_only=True)
class End:
    """The session is over; there is nothing more to send for it."""

    comeback: Comeback
    after_s: float = 0.0


Action = (
    CheckIn
    | Poll
    | FetchPlan
    | FetchCheckpoint
    | Compute
    | Report
    | UploadChunk
    | Submit
    | Abort
    | End
)
