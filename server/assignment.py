"""What passes between a round and the selector that finds and serves its devices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from device_plan.wire_pb2 import TRAINING, Computation, Reason
from server.actors.runtime import Ref
from server.aggregation.admission import Admission
from server.protocol.pace_steering import Windows

#: A plan's variants, the best first: name, and runtimes on which it passed.
Variants = tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, kw_only=True)
class Opening:
    """A round that wants devices.

    Attributes:
        round_id: The round.
        population: Whose devices; held-out ones if the computation is an evaluation.
        task: The task's name, for the device's log.
        computation: Training or evaluation.
        variants: Of its plan: which devices it has one for.
        master: The round's master aggregator; it is told `on_event(event)`.
        capacity: Devices the pool holds.
        closes_at: When the selection window ends, on the selector's clock.
    """

    round_id: str
    population: str
    task: str
    computation: Computation
    variants: Variants
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
    """What the devices of a configured round do.

    Attributes:
        plans: The plan's device parts, by variant.
    """

    plans: Mapping[str, Download]
    checkpoint: Download
    admission: Admission
    aggregators: tuple[Ref, ...]
    deadline_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a device that checked in or polled is told.

    Exactly one of `work` (selected), `poll_after_s` (waiting) and `reason`
    (rejected) is set.

    Attributes:
        plan: The device part for this device's runtime, with `work`.
        message: Why it was rejected, if there is more to say than the reason does.
        windows: When it may come back, if not when the population's other devices do.
    """

    session_id: str = ""
    round_id: str = ""
    task: str = ""
    computation: Computation = TRAINING
    work: Work | None = None
    plan: Download | None = None
    seconds_left: float = 0.0
    poll_after_s: float | None = None
    reason: Reason | None = None
    message: str = ""
    windows: Windows | None = None
