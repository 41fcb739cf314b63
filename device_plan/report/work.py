"""The work of a graph: multiply-adds, element operations, bytes read and written.

Counted by these rules, for each operation as often as it is executed:

- multiply-adds: the products of matrix products and convolutions, each with
  its addition. [M, K] x [K, N] has M*N*K; a convolution has one for each
  element of its result and each element of the filter that falls on it, the
  padding included; a transposed convolution one for each element of its input
  and each of the filter. A multiply-add is two floating-point operations.
- element operations: one for each result element of an elementwise operation,
  whether it adds or computes an exponential; one for each input element of a
  reduction, of pooling by its windows, of softmax three (subtract and
  exponentiate, sum, divide); biases and fused activations are not counted.
- bytes: what an operation reads of its inputs and writes as its results, as if
  nothing stayed in a cache. Lookups and slices read what they return.

What only moves elements (RESHAPE, TRANSPOSE, CONCATENATION, PAD) has bytes and
no operations. Integer and boolean arithmetic counts like floating point.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from device_plan.report.execution import Step
from device_plan.report.shapes import BROADCASTING, ELEMENTWISE, REDUCTIONS

#: They read only the elements that they return.
_LOOKUPS = frozenset(
    ("GATHER", "GATHER_ND", "EMBEDDING_LOOKUP", "SLICE", "STRIDED_SLICE", "SPLIT", "SPLIT_V")
)

#: They look at shapes, not at elements.
_SHAPE_ONLY = frozenset(("SHAPE", "RANK", "ZEROS_LIKE"))

_ONE_PER_RESULT = frozenset((*ELEMENTWISE, *BROADCASTING, "SELECT", "CUMSUM", "ONE_HOT"))

_ONE_PER_INPUT = frozenset((*REDUCTIONS, "ARG_MAX", "ARG_MIN", "ADD_N", "TOPK_V2"))

_THREE_PER_RESULT = frozenset(("SOFTMAX", "LOG_SOFTMAX", "L2_NORMALIZATION"))

_POOLS = frozenset(("AVERAGE_POOL_2D", "MAX_POOL_2D", "L2_POOL_2D"))

_SCATTERS = ("SCATTER_ND", "UNSORTED_SEGMENT_")


#: They only move elements, or decide what is executed.
_MOVES = frozenset(
    (
        *("RESHAPE", "EXPAND_DIMS", "SQUEEZE", "TRANSPOSE", "CONCATENATION", "PACK", "UNPACK"),
        *("PAD", "PADV2", "MIRROR_PAD", "TILE", "FILL", "BROADCAST_TO", "BROADCAST_ARGS", "RANGE"),
        *("SPACE_TO_DEPTH", "DEPTH_TO_SPACE", "SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND"),
        *("REVERSE_V2", "REVERSE_SEQUENCE", "DYNAMIC_UPDATE_SLICE", "SPARSE_TO_DENSE", "BITCAST"),
        *("MATRIX_DIAG", "MATRIX_SET_DIAG", "RESIZE_NEAREST_NEIGHBOR", "CALL_ONCE", "WHERE"),
        *("VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE"),
        *_LOOKUPS,
        *_SHAPE_ONLY,
    )
)


@dataclass(frozen=True)
class Work:
    """What a computation does.

    Attributes:
        multiply_adds: Products with their additions, of matrix products and convolutions.
        element_operations: All other arithmetic, by result elements.
        bytes_read: Bytes of tensors that operations read.
        bytes_written: Bytes of tensors that operations write.
        operations: Operations executed.
    """

    multiply_adds: int = 0
    element_operations: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    operations: int = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(
            self.multiply_adds + other.multiply_adds,
            self.element_operations + other.element_operations,
            self.bytes_read + other.bytes_read,
            self.bytes_written + other.bytes_written,
            self.operations + other.operations,
        )

    def __mul__(self, times: int) -> "Work":
        return Work(
            self.multiply_adds * times,
            self.element_operations * times,
            self.bytes_read * times,
            self.bytes_written * times,
            self.operations * times,
        )

    @property
    def bytes_moved(self) -> int:
        return self.bytes_read + self.bytes_written


def work_of(steps: Iterable[Step]) -> Work:
    return sum(map(_work, steps), Work())


def work_by_operation(steps: Iterable[Step]) -> dict[str, Work]:
    """The work by the operations' names, the most multiply-adds first, then the most bytes."""
    found: dict[str, Work] = {}
    for step in steps:
        name = step.operator.name
        found[name] = found.get(name, Work()) + _work(step)
    order = sorted(
        found.items(), key=lambda item: (-item[1].multiply_adds, -item[1].bytes_moved, item[0])
    )
    return dict(order)


def operations_without_a_cost(steps: Iterable[Step]) -> Counter[str]:
    """Operations whose arithmetic these rules do not know, with how often they are executed."""
    return Counter(step.operator.name for step in steps if _arithmetic(step) is None)


def _work(step: Step) -> Work:
    multiply_adds, element_operations = _arithmetic(step) or (0, 0)
    written = sum(value.bytes for value in step.outputs)
    return Work(multiply_adds, element_operations, _bytes_read(step, written), written, 1)


def _bytes_read(step: Step, written: int) -> int:
    name, inputs = step.operator.name, [value for value in step.inputs if value is not None]
    if name in _SHAPE_ONLY:
        return 0
    if name in _LOOKUPS:
        # The first and largest input is the table; the rest says where to look.
        largest = max(inputs, key=lambda value: value.bytes, default=None)
        rest = sum(value.bytes for value in inputs if value is not largest)
        return min(written, largest.bytes if largest else 0) + rest
    return sum(value.bytes for value in inputs)


def _arithmetic(step: Step) -> tuple[int, int] | None:
    """(multiply-adds, element operations), or None for an operation without a rule."""
    name = step.operator.name
    shapes = [() if value is None else value.shape for value in step.inputs]
    results = sum(value.elements for value in step.outputs)
    if name == "FULLY_CONNECTED":
        return results * shapes[1][-1], 0
    if name == "BATCH_MATMUL":
        return results * shapes[0][-2 if step.operator.options["adj_x"] else -1], 0
    if name == "CONV_2D":
        return results * math.prod(shapes[1][1:]), 0
    if name == "DEPTHWISE_CONV_2D":
        return results * math.prod(shapes[1][1:3]), 0
    if name == "CONV_3D":
        return results * math.prod(shapes[1][:4]), 0
    if name == "TRANSPOSE_CONV":
        # The filter is [outputs, height, width, inputs], the second input.
        return math.prod(shapes[2]) * math.prod(shapes[1][:3]), 0
    if name == "CONV_3D_TRANSPOSE":
        return math.prod(shapes[1]) * math.prod(shapes[2][:4]), 0
    if name in _POOLS:
        options = step.operator.options
        return 0, results * int(options["filter_h"]) * int(options["filter_w"])  # type: ignore[arg-type]
    if name in _ONE_PER_RESULT:
        return 0, results
    if name in _ONE_PER_INPUT:
        return 0, sum(math.prod(shape) for shape in shapes if shape)
    if name in _THREE_PER_RESULT:
        return 0, 3 * results
    if name.startswith(_SCATTERS):
        return 0, max(map(math.prod, shapes))
    if name in ("RANDOM_UNIFORM", "RANDOM_STANDARD_NORMAL", "MULTINOMIAL", "RESIZE_BILINEAR"):
        return 0, results
    return (0, 0) if name in _MOVES else None
