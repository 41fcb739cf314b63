"""Shapes of the results of TFLite's operations, from the shapes of their inputs.

A TFLite file leaves open what depends on the batch; these rules fill it in, as
the runtime's kernels do when a batch arrives (tensorflow/lite/kernels).
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from device_plan.report import spatial_shapes
from device_plan.report.call import Call, UnknownShape, broadcast
from device_plan.report.value import Shape, Value
from device_plan.tflite_file import Operator

Rule = Callable[[Call], list[Shape]]


def result_shapes(operator: Operator, inputs: Sequence[Value | None]) -> list[Shape]:
    """The shapes of the operation's results.

    Raises:
        UnknownShape: they depend on more than shapes and known values.
    """
    rule = _RULES.get(operator.name)
    if rule is None:
        raise UnknownShape(f"{operator.name} has no shape rule")
    try:
        return rule(Call(operator, inputs))
    except (IndexError, ValueError, TypeError, ZeroDivisionError) as error:
        raise UnknownShape(f"{operator.name}: {error}") from error


def _same(call: Call) -> list[Shape]:
    return [call.shape(0)]


def _broadcasts(call: Call) -> list[Shape]:
    return [broadcast(*call.shapes)]


def _select(call: Call) -> list[Shape]:
    # Version 1 of the operation broadcasts the condition only.
    return [call.shape(1)]


def _reshape(call: Call) -> list[Shape]:
    shape = call.ints(1) if call.has(1) else list(call.sizes("new_shape"))
    elements = math.prod(call.shape(0))
    if -1 in shape:
        rest = math.prod(side for side in shape if side != -1)
        shape[shape.index(-1)] = elements // rest if rest else 0
    if math.prod(shape) != elements:
        raise UnknownShape(f"RESHAPE of {elements} elements to {shape}")
    return [tuple(shape)]


def _expand_dims(call: Call) -> list[Shape]:
    shape, (axis,) = list(call.shape(0)), call.ints(1)
    shape.insert(axis % (len(shape) + 1), 1)
    return [tuple(shape)]


def _squeeze(call: Call) -> list[Shape]:
    shape = call.shape(0)
    chosen = {axis % len(shape) for axis in call.sizes("squeeze_dims")}
    gone = chosen or {axis for axis, side in enumerate(shape) if side == 1}
    return [tuple(side for axis, side in enumerate(shape) if axis not in gone)]


def _transpose(call: Call) -> list[Shape]:
    return [tuple(call.shape(0)[axis] for axis in call.ints(1))]


def _reduce(call: Call) -> list[Shape]:
    shape = call.shape(0)
    axes = {axis % len(shape) for axis in call.ints(1)} if shape else set()
    if call.option("keep_dims"):
        return [tuple(1 if axis in axes else side for axis, side in enumerate(shape))]
    return [tuple(side for axis, side in enumerate(shape) if axis not in axes)]


def _arg(call: Call) -> list[Shape]:
    shape, (axis,) = list(call.shape(0)), call.ints(1)
    del shape[axis]
    return [tuple(shape)]


def _concatenation(call: Call) -> list[Shape]:
    shape, axis = list(call.shape(0)), call.option("axis")
    shape[axis] = sum(part[axis] for part in call.shapes)
    return [tuple(shape)]


def _pack(call: Call) -> list[Shape]:
    shape = list(call.shape(0))
    shape.insert(call.option("axis") % (len(shape) + 1), len(call.shapes))
    return [tuple(shape)]


def _unpack(call: Call) -> list[Shape]:
    shape = list(call.shape(0))
    del shape[call.option("axis")]
    return [tuple(shape)] * call.option("num")


def _split(call: Call) -> list[Shape]:
    (axis,), shape, parts = call.ints(0), list(call.shape(1)), call.option("num_splits")
    shape[axis] //= parts
    return [tuple(shape)] * parts


def _split_v(call: Call) -> list[Shape]:
    shape, sizes, (axis,) = list(call.shape(0)), call.ints(1), call.ints(2)
    rest = shape[axis] - sum(size for size in sizes if size >= 0)
    results = []
    for size in sizes:
        shape[axis] = rest if size < 0 else size
        results.append(tuple(shape))
    return results


def _slice(call: Call) -> list[Shape]:
    shape, begin, size = call.shape(0), call.ints(1), call.ints(2)
    return [
        tuple(
            side - start if extent < 0 else extent
            for side, start, extent in zip(shape, begin, size, strict=True)
        )
    ]


def strided_slice_index(call: Call) -> tuple[slice | int | None, ...]:
    """The operation as a numpy index; the masks are those of tf.strided_slice."""
    if call.option("ellipsis_mask") or call.option("offset"):
        raise UnknownShape("STRIDED_SLICE with an ellipsis or offsets")
    index: list[slice | int | None] = []
    for place, (begin, end, stride) in enumerate(
        zip(call.ints(1), call.ints(2), call.ints(3), strict=True)
    ):
        bit = 1 << place
        if call.option("new_axis_mask") & bit:
            index.append(None)
        elif call.option("shrink_axis_mask") & bit:
            index.append(begin)
        else:
            start = None if call.option("begin_mask") & bit else begin
            index.append(slice(start, None if call.option("end_mask") & bit else end, stride))
    return tuple(index)


def _strided_slice(call: Call) -> list[Shape]:
    # A view of one element in that shape costs no memory.
    view = np.broadcast_to(np.zeros((), np.int8), call.shape(0))
    return [view[strided_slice_index(call)].shape]


def _gather(call: Call) -> list[Shape]:
    table, indices = call.shape(0), call.shape(1)
    axis, batch = call.option("axis") % len(table), call.option("batch_dims") % (len(indices) + 1)
    return [table[:axis] + indices[batch:] + table[axis + 1 :]]


def _gather_nd(call: Call) -> list[Shape]:
    table, indices = call.shape(0), call.shape(1)
    return [indices[:-1] + table[indices[-1] :]]


def _embedding_lookup(call: Call) -> list[Shape]:
    return [call.shape(0) + call.shape(1)[1:]]


def _one_hot(call: Call) -> list[Shape]:
    shape, axis = list(call.shape(0)), call.option("axis")
    shape.insert(len(shape) if axis == -1 else axis, call.ints(1)[0])
    return [tuple(shape)]


def _tile(call: Call) -> list[Shape]:
    return [tuple(side * n for side, n in zip(call.shape(0), call.ints(1), strict=True))]


def _shape_from(index: int) -> Rule:
    return lambda call: [tuple(call.ints(index))]


def _range(call: Call) -> list[Shape]:
    start, limit, step = call.ints(0)[0], call.ints(1)[0], call.ints(2)[0]
    return [(len(range(start, limit, step)),)]


def _pad(call: Call) -> list[Shape]:
    pads = np.reshape(call.ints(1), (-1, 2))
    return [tuple(int(side + sum(pad)) for side, pad in zip(call.shape(0), pads, strict=True))]


def _fully_connected(call: Call) -> list[Shape]:
    shape, (outputs, inputs) = call.shape(0), call.shape(1)
    if call.option("keep_num_dims"):
        return [(*shape[:-1], outputs)]
    return [(math.prod(shape) // inputs, outputs)]


def _batch_matmul(call: Call) -> list[Shape]:
    x, y = call.shape(0), call.shape(1)
    rows = x[-1] if call.option("adj_x") else x[-2]
    columns = y[-2] if call.option("adj_y") else y[-1]
    return [(*broadcast(x[:-2], y[:-2]), rows, columns)]


def _segments(call: Call) -> list[Shape]:
    return [(call.ints(2)[0], *call.shape(0)[len(call.shape(1)) :])]


def _top_k(call: Call) -> list[Shape]:
    return [(*call.shape(0)[:-1], call.ints(1)[0])] * 2


def _multinomial(call: Call) -> list[Shape]:
    return [(call.shape(0)[0], call.ints(1)[0])]


def _matrix_diag(call: Call) -> list[Shape]:
    return [(*call.shape(0), call.shape(0)[-1])]


#: One result element for each element of the first input, from a bounded number of inputs.
ELEMENTWISE = (
    "ABS", "CAST", "CEIL", "COS", "DEQUANTIZE", "ELU", "EXP", "FAKE_QUANT", "FLOOR", "GELU",
    "HARD_SWISH", "LEAKY_RELU", "LOG", "LOGICAL_NOT", "LOGISTIC", "NEG", "QUANTIZE", "RELU",
    "RELU6", "RELU_0_TO_1", "RELU_N1_TO_1", "ROUND", "RSQRT", "SIGN", "SIN", "SQRT", "SQUARE",
    "TANH",
)  # fmt: skip

#: Likewise of two or three inputs, which are broadcast.
BROADCASTING = (
    "ADD", "ATAN2", "BITWISE_XOR", "DIV", "EQUAL", "FLOOR_DIV", "FLOOR_MOD", "GREATER",
    "GREATER_EQUAL", "LESS", "LESS_EQUAL", "LOGICAL_AND", "LOGICAL_OR", "MAXIMUM", "MINIMUM",
    "MUL", "NOT_EQUAL", "POW", "PRELU", "RIGHT_SHIFT", "SELECT_V2", "SQUARED_DIFFERENCE",
    "SUB",
)  # fmt: skip

#: Sums, maxima and the like over axes.
REDUCTIONS = ("MEAN", "REDUCE_ALL", "REDUCE_ANY", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD", "SUM")

_RULES: dict[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE, _same),
    **dict.fromkeys(BROADCASTING, _broadcasts),
    **dict.fromkeys(REDUCTIONS, _reduce),
    **dict.fromkeys(
        (
            *("ADD_N", "CUMSUM", "DYNAMIC_UPDATE_SLICE", "L2_NORMALIZATION", "LOG_SOFTMAX"),
            *("LOCAL_RESPONSE_NORMALIZATION", "MATRIX_SET_DIAG", "REVERSE_SEQUENCE"),
            *("REVERSE_V2", "SOFTMAX", "ZEROS_LIKE"),
        ),
        _same,
    ),
    "SELECT": _select,
    "RESHAPE": _reshape,
    "EXPAND_DIMS": _expand_dims,
    "SQUEEZE": _squeeze,
    "TRANSPOSE": _transpose,
    "ARG_MAX": _arg,
    "ARG_MIN": _arg,
    "CONCATENATION": _concatenation,
    "PACK": _pack,
    "UNPACK": _unpack,
    "SPLIT": _split,
    "SPLIT_V": _split_v,
    "SLICE": _slice,
    "STRIDED_SLICE": _strided_slice,
    "GATHER": _gather,
    "GATHER_ND": _gather_nd,
    "EMBEDDING_LOOKUP": _embedding_lookup,
    "ONE_HOT": _one_hot,
    "TILE": _tile,
    "FILL": _shape_from(0),
    "BROADCAST_TO": _shape_from(1),
    "RANDOM_UNIFORM": _shape_from(0),
    "RANDOM_STANDARD_NORMAL": _shape_from(0),
    "MULTINOMIAL": _multinomial,
    "SCATTER_ND": _shape_from(2),
    "SPARSE_TO_DENSE": _shape_from(1),
    "RANGE": _range,
    "PAD": _pad,
    "PADV2": _pad,
    "MIRROR_PAD": _pad,
    "SPACE_TO_DEPTH": spatial_shapes.space_to_depth,
    "DEPTH_TO_SPACE": spatial_shapes.depth_to_space,
    "SPACE_TO_BATCH_ND": spatial_shapes.space_to_batch,
    "BATCH_TO_SPACE_ND": spatial_shapes.batch_to_space,
    "RESIZE_BILINEAR": spatial_shapes.resize,
    "RESIZE_NEAREST_NEIGHBOR": spatial_shapes.resize,
    "SHAPE": lambda call: [(len(call.shape(0)),)],
    "RANK": lambda _: [()],
    "BROADCAST_ARGS": lambda call: [(max(call.shape(0)[0], call.shape(1)[0]),)],
    "FULLY_CONNECTED": _fully_connected,
    "BATCH_MATMUL": _batch_matmul,
    "CONV_2D": spatial_shapes.conv_2d,
    "DEPTHWISE_CONV_2D": spatial_shapes.depthwise_conv_2d,
    "CONV_3D": spatial_shapes.conv_3d,
    "TRANSPOSE_CONV": _shape_from(0),
    "CONV_3D_TRANSPOSE": _shape_from(0),
    "AVERAGE_POOL_2D": spatial_shapes.pool,
    "MAX_POOL_2D": spatial_shapes.pool,
    "L2_POOL_2D": spatial_shapes.pool,
    **dict.fromkeys(
        (
            *("UNSORTED_SEGMENT_MAX", "UNSORTED_SEGMENT_MIN"),
            *("UNSORTED_SEGMENT_PROD", "UNSORTED_SEGMENT_SUM"),
        ),
        _segments,
    ),
    "TOPK_V2": _top_k,
    "MATRIX_DIAG": _matrix_diag,
}
