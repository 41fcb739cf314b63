"""How much of a device a plan may use.

The release checks refuse a plan above its limits (Bonawitz et al. 2019, §7.3:
"the resources consumed during testing must be within a safe range of expected
resources for the target population"). The defaults suit a phone of the lower
price range at night: idle, charging, on an unmetered network.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

MEBIBYTE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class ResourceLimits:
    """What one session of a plan may use. All limits are inclusive.

    Raises:
        ValueError: a limit is not a positive number; the message names it.
    """

    #: The device part and the checkpoint: what a device that is new to the plan
    #: downloads. A 10 Mbit/s line carries 32 MiB in half a minute.
    download_bytes: int = 32 * MEBIBYTE
    #: training.tflite. Graphs hold computation, not weights: one of some
    #: mebibytes has a table in it that belongs into the checkpoint.
    graph_bytes: int = 8 * MEBIBYTE
    #: What every device downloads in every round. 24 MiB are 6 million float32
    #: weights, four times those of the Gboard model (Hard et al. 2018: 1.4 million).
    checkpoint_bytes: int = 24 * MEBIBYTE
    #: What every device uploads in every round; uplinks are slower than downlinks.
    update_bytes: int = 24 * MEBIBYTE
    #: Peak resident memory of a process that trains, interpreter included.
    #: Beyond some 256 MiB a phone of 2 GB begins to end background processes.
    rss_bytes: int = 256 * MEBIBYTE
    #: Of one training step with a full batch, divided by the batch size, on one
    #: thread of the machine that builds the plan.
    seconds_per_example: float = 0.1

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            whole = field.name != "seconds_per_example"
            if (
                isinstance(value, bool)
                or not isinstance(value, int if whole else int | float)
                or not (math.isfinite(value) and value > 0)
            ):
                kind = "whole number" if whole else "number"
                raise ValueError(f"the limit {field.name} must be a positive {kind}, not {value!r}")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "ResourceLimits":
        """Raises ValueError for an unknown or out-of-range limit."""
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(f"unknown limit {unknown[0]!r}; known: {', '.join(known)}")
        return cls(**values)
