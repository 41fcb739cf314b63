"""What a plan's graph needs of the machine that builds it: seconds and memory.

Measured in fresh processes with this environment's own TFLite runtime, which
are driven as those of the runtime matrix.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from device_plan.compiler.runtime import execute
from device_plan.matrix.case import Case, Cases


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What one variant of a plan needed.

    Attributes:
        seconds_per_step: Median of a training step with a full batch, on one thread.
        seconds_per_example: The same, divided by the batch size.
        rss_bytes: Peak resident memory of a process that trained and evaluated,
            with Python, numpy and the runtime in it.
        rss_idle_bytes: Likewise before it loaded the graph.
        reason: Why there are no figures; "" if there are.
    """

    seconds_per_step: float = 0.0
    seconds_per_example: float = 0.0
    rss_bytes: int = 0
    rss_idle_bytes: int = 0
    reason: str = ""


def measure(graphs: Mapping[str, bytes], cases: Cases, batch_size: int) -> dict[str, Footprint]:
    """The footprint of each graph, by its name, on sessions of `cases`.

    Args:
        graphs: TFLite graphs of one plan by variant.
        cases: Training cases among them, of which the first begins with a full batch.
        batch_size: The plan's.
    """
    chosen = Cases(cases.checkpoint, list(_one_of_each(cases)))
    footprints = {}
    for variant, found in execute(graphs, chosen).items():
        if found.reason or found.seconds_per_step is None:
            footprints[variant] = Footprint(reason=found.reason or "no step was timed")
            continue
        footprints[variant] = Footprint(
            seconds_per_step=found.seconds_per_step,
            seconds_per_example=found.seconds_per_step / batch_size,
            rss_bytes=found.rss_bytes or 0,
            rss_idle_bytes=found.rss_import_bytes or 0,
        )
    return footprints


def _one_of_each(cases: Cases) -> Iterable[Case]:
    for draws in cases.by_name().values():
        yield draws[0]
