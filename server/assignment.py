"""What passes between a round and the selector that finds and serves its devices."""

from __future__ import annotations

from dataclasses import dataclass

from device_plan.wire_pb2 import TRAINING, Computation, Reason
from server.actors.runtime import Ref
from server.aggregation.admission import Admission


@dataclass(frozen=True, kw_only=True)
class Opening:
    """A round that wants devices.

    Attributes:
        round_id: The round.
        population: Whose devices; held-out ones if the computation is an evaluation.
        task: The task's name, for the device's log.
        computation: Training or evaluation.
        master: The round's master aggregator; it is told `on_event(event)`.
        capacity: Devices the pool holds.
        closes_at: When the selection window ends, on the selector's clock.
    """

    round_id: str
    population: str
    task: str
    computation: Computation
    master: Ref
    capacity: int
    closes_at: float


@dataclass(frozen=True, kw_only=True)
class Download:
    """An immutable file that devices fetch."""

    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Work:
    """What the devices of a configured round do."""

    plan: Download
    checkpoint: Download
    admission: Admission
    aggregators: tuple[Ref, ...]
    deadline_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a device that checked in or polled is told.

    Exactly one of `work` (selected), `poll_after_s` (waiting) and `reason`
    (rejected) is set.
    """

    session_id: str = ""
    round_id: str = ""
    task: str = ""
    computation: Computation = TRAINING
    work: Work | None = None
    seconds_left: float = 0.0
    poll_after_s: float | None = None
    reason: Reason | None = None
