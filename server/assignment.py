"""What passes between rounds and the selectors that find and serve their devices.

Everything here can be pickled: a round and a selector may live in different
processes. Times are durations, because their clocks may differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from device_plan.cohort import Strata
from device_plan.wire_pb2 import Computation, Reason
from server.actors.runtime import Ref
from server.protocol.pace_steering import Windows

#: A plan's variants, the best first: name, and runtimes on which it passed.
Variants = tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, kw_only=True)
class Opening:
    """A round that wants devices.

    Attributes:
        round_id: The round.
        population: Whose devices; held-out ones if the computation is an evaluation.
        epoch: Of the coordinator's lease: rounds of earlier epochs are over.
        task_id: The task,
        task: and its name, for the device's log.
        computation: Training or evaluation.
        variants: Of its plan: which devices it has one for.
        weight: The task's share of devices, relative to that of the other tasks
            that select at the same time.
        master: The round's master aggregator. It is told `pool_changed(selector_id,
            waiting)` and `on_event(event)`.
        capacity: Devices the pool holds: as many as the whole round wants.
        selectors: How many selectors look for them.
        pipelined: The task's next round selects while this one reports.
        window_s: Seconds until the selection window ends.
        lifetime_s: Seconds after which the round must be over, whatever is heard of it.
        strata: How the pool is stratified, if it is.
        min_separation_s: Seconds after which a device may take part again.
    """

    round_id: str
    population: str
    epoch: int
    task_id: str
    task: str
    computation: Computation
    variants: Variants
    weight: float
    master: Ref
    capacity: int
    window_s: float
    lifetime_s: float
    selectors: int = 1
    pipelined: bool = False
    strata: Strata | None = None
    min_separation_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """A session taken from a pool, and its device, which may wait at another selector too."""

    session_id: str
    device_id: bytes


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
        checkpoint: The model they start from or evaluate.
        manifest: The plan's manifest, serialized: what an upload looks like.
        window_s: Seconds until reporting closes.
    """

    plans: Mapping[str, Download]
    checkpoint: Download
    manifest: bytes
    window_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """What a selected device is told.

    Attributes:
        plan: The device part for this device's runtime.
        max_upload_bytes: Its update may not be larger.
        seconds_left: Until reporting closes.
    """

    round_id: str
    task: str
    computation: Computation
    plan: Download
    checkpoint: Download
    max_upload_bytes: int
    seconds_left: float


class Answer(NamedTuple):
    """What a device that checked in or polled is told.

    Exactly one of `assignment` (selected), `poll_after_s` (waiting) and `reason`
    (rejected) is set.

    Attributes:
        message: Why it was rejected, if there is more to say than the reason does.
        windows: When it may come back; None: when the population's other devices do.
    """

    session_id: str = ""
    assignment: Assignment | None = None
    poll_after_s: float | None = None
    reason: Reason | None = None
    message: str = ""
    windows: Windows | None = None
