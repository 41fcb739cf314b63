"""What a `Round` is told, and what it wants done."""

from dataclasses import dataclass
from typing import Literal

from server.protocol.waking import Tick, WakeAt

#: How a selected device's session ended without its update entering the sum. "expired":
#: it was not heard of until its deadline; "lost": its selector or aggregator died.
Ending = Literal["aborted", "expired", "rejected", "goal_reached", "lost"]

#: Why reporting closed. "grace_elapsed": the minimum was in, and nothing came for a while.
ClosingReason = Literal[
    "goal_reached", "window_elapsed", "grace_elapsed", "all_ended", "minimum_out_of_reach"
]


@dataclass(frozen=True, slots=True)
class PoolChanged:
    """Event: this many devices are in the selection pools of all selectors together."""

    waiting: int


@dataclass(frozen=True, slots=True)
class DevicesSelected:
    """Event, the answer to `CloseSelection`: the sessions that were chosen.

    They may be fewer than asked for: a device can leave the pool at any moment.
    """

    sessions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Released:
    """Event: the model that the round starts from is there."""


@dataclass(frozen=True, slots=True)
class UpdateAccepted:
    """Event: the session's update is in the sum."""

    session: str


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """Event: a selected device's session ended and its update is not in the sum.

    If it was lost, its update may have been in the sum before.
    """

    session: str
    how: Ending


@dataclass(frozen=True, slots=True)
class SumsCollected:
    """Event, the answer to `CloseReporting`: nothing enters the sum any more.

    Attributes:
        accepted: Updates in the sum. This number, not the count of
            `UpdateAccepted`, decides: an aggregator may have died with its part.
    """

    accepted: int


@dataclass(frozen=True, slots=True)
class UpdateApplied:
    """Event, the answer to `ApplyUpdate`: the next model is computed and stored."""


@dataclass(frozen=True, slots=True)
class UpdateFailed:
    """Event, the other answer to `ApplyUpdate`."""

    reason: str


@dataclass(frozen=True, slots=True)
class CommitDone:
    """Event, the answer to `Commit`: the model's head has moved."""


@dataclass(frozen=True, slots=True)
class CommitRefused:
    """Event, the other answer to `Commit`: the lease was lost or the head has moved."""

    reason: str


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Event: the task was cancelled or its coordinator stepped down.

    Ignored once a commit is under way: its answer decides.
    """

    reason: str


Event = (
    PoolChanged
    | Tick
    | DevicesSelected
    | Released
    | UpdateAccepted
    | SessionEnded
    | SumsCollected
    | UpdateApplied
    | UpdateFailed
    | CommitDone
    | CommitRefused
    | Cancelled
)


@dataclass(frozen=True, slots=True)
class OpenSelection:
    """Effect: sample devices into a pool.

    Attributes:
        target: Devices to select; the pools together need hold no more.
        closes_at: The end of the selection window. From then on `PoolChanged`
            matters; before it nothing is decided.
    """

    target: int
    closes_at: float


@dataclass(frozen=True, slots=True)
class CloseSelection:
    """Effect: choose this many of the pool, reject the rest, answer `DevicesSelected`."""

    take: int


@dataclass(frozen=True, slots=True)
class Configure:
    """Effect: give the sessions plan and checkpoint.

    Attributes:
        sessions: The selected sessions.
        deadline_at: When reporting closes at the latest.
    """

    sessions: tuple[str, ...]
    deadline_at: float


@dataclass(frozen=True, slots=True)
class CloseReporting:
    """Effect: let nothing more into the sum, collect it, answer `SumsCollected`."""

    reason: ClosingReason


@dataclass(frozen=True, slots=True)
class ApplyUpdate:
    """Effect: compute the next model; answer `UpdateApplied` or `UpdateFailed`."""

    accepted: int


@dataclass(frozen=True, slots=True)
class Commit:
    """Effect: the fenced commit; answer `CommitDone` or `CommitRefused`.

    At most one a round, and never below the minimum count.
    """


@dataclass(frozen=True, slots=True)
class Abandon:
    """Effect: the round ends and leaves the model untouched. At most one a round, its last.

    Attributes:
        reason: A word for statistics, e.g. "too_few_devices".
        detail: For people; may be empty.
    """

    reason: str
    detail: str = ""


Effect = (
    OpenSelection
    | CloseSelection
    | Configure
    | CloseReporting
    | ApplyUpdate
    | Commit
    | Abandon
    | WakeAt
)
