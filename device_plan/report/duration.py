"""How long a session takes: from measured steps, or else from assumed rates."""

from collections.abc import Iterable
from dataclasses import dataclass

from device_plan.report.cost import DeviceCost
from device_plan.report.measurements import Measured
from device_plan.report.work import Work

#: Assumed of one slow core, all one after another. tflite-runtime 2.14 on one x86
#: server core takes a third to a thirtieth of the seconds that follow, by the model.
MULTIPLY_ADDS_PER_S = 2e9
ELEMENT_OPERATIONS_PER_S = 2e8
BYTES_PER_S = 2e9
OPERATIONS_PER_S = 1e6

ASSUMPTION = (
    "an assumed core, not a measured one, that does 2 G multiply-adds, 0.2 G element operations "
    "and 2 GB of reads and writes a second, and 1 µs for each operation, one after another"
)


@dataclass(frozen=True)
class Duration:
    """Seconds of a training session.

    Attributes:
        basis: "measured" on the machine that checked the plan, or "assumed" from `ASSUMPTION`.
        runtime: That was measured; "" if assumed.
        seconds_per_step: Of one full batch.
        seconds: Of the session: all its steps, the smaller last ones taken as full.
    """

    basis: str
    runtime: str
    seconds_per_step: float
    seconds: float


def assumed_seconds(work: Work) -> float:
    """By `ASSUMPTION`."""
    return (
        work.multiply_adds / MULTIPLY_ADDS_PER_S
        + work.element_operations / ELEMENT_OPERATIONS_PER_S
        + work.bytes_moved / BYTES_PER_S
        + work.operations / OPERATIONS_PER_S
    )


def durations(
    cost: DeviceCost, variant: str, examples: int, measured: Iterable[Measured]
) -> list[Duration]:
    """One for each runtime on which the variant passed with a measured step, or one assumed."""
    steps = cost.steps(examples)
    found = [
        Duration("measured", one.runtime, one.seconds_per_step, steps * one.seconds_per_step)
        for one in measured
        if one.variant == variant and one.status == "passed" and one.seconds_per_step is not None
    ]
    if found:
        return found
    step = cost.signature("batch", cost.manifest.batch_size or examples).work
    return [
        Duration("assumed", "", assumed_seconds(step), assumed_seconds(cost.training(examples)))
    ]
