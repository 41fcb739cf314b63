"""Which updates may enter a sum: a device may send anything."""

from dataclasses import dataclass

import numpy as np

from device_plan.checkpoint import Layout, MalformedCheckpoint, WrongTensors
from device_plan.plan_pb2 import PlanManifest
from device_plan.wire_pb2 import INVALID_UPDATE, NOT_FINITE, OUT_OF_RANGE, Reason

#: Integer tensors are counts (examples, batches, correct answers); a larger one
#: is a mistake, and thousands of them still fit into 64 bits.
MAX_COUNT = 1 << 40

#: The same for the 32-bit counters of some metrics.
MAX_COUNT_32 = 1 << 20


@dataclass(frozen=True)
class Inadmissible(Exception):
    """The update was refused and nothing was added."""

    reason: Reason
    message: str


class Admission:
    """Checks uploads of one computation of one plan.

    Attributes:
        layout: The layout that uploads must have.
    """

    def __init__(self, *, manifest: PlanManifest, training: bool) -> None:
        self.layout = Layout(manifest.update if training else manifest.metrics)
        self._weight = manifest.weight_tensor if training else ""
        self._max_weight = manifest.max_weight

    def admit(self, data: bytes | memoryview) -> tuple[np.ndarray, ...]:
        """The upload's flat blocks, ready for `Accumulator.add`.

        Raises:
            Inadmissible: with the reason to give to the device.
        """
        try:
            views = self.layout.views(data)
        except (MalformedCheckpoint, WrongTensors) as error:
            raise Inadmissible(INVALID_UPDATE, str(error)) from error
        for block, flat in zip(self.layout.blocks, views, strict=True):
            if not flat.size:
                continue
            if np.issubdtype(block.dtype, np.floating):
                # One pass without a temporary: a NaN or an Inf anywhere makes the
                # dot product NaN or Inf, and so does a norm no honest update has.
                with np.errstate(over="ignore", invalid="ignore"):
                    square = np.dot(flat, flat)
                if not np.isfinite(square):
                    raise Inadmissible(
                        NOT_FINITE,
                        "the update has a NaN, an Inf, or values so large that their "
                        "squares overflow",
                    )
            else:
                bound = MAX_COUNT if block.dtype.itemsize == 8 else MAX_COUNT_32
                if flat.min() < 0 or flat.max() > bound:
                    raise Inadmissible(OUT_OF_RANGE, f"a count is negative or above {bound}")
        if self._weight:
            weight = float(self.layout.tensors(views)[self._weight])
            if not 0.0 <= weight <= self._max_weight:
                raise Inadmissible(
                    OUT_OF_RANGE,
                    f"the weight is {weight:g}; the plan allows 0 to {self._max_weight:g}",
                )
        return views
