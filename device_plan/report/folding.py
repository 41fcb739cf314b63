"""Values that follow from shapes and constants: sizes, axes, loop counters.

Graphs with a dynamic batch compute shapes as they run (SHAPE, STRIDED_SLICE,
PACK, RESHAPE). Following these few small integers gives every other shape.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from device_plan.report.call import Call
from device_plan.report.shapes import strided_slice_index
from device_plan.report.value import FOLLOWED_ELEMENTS, Shape, Value
from device_plan.tflite_file import Operator

_Arrays = list[np.ndarray]

#: These need the first input's shape only.
_FROM_SHAPES: dict[str, Callable[[Value], np.ndarray]] = {
    "SHAPE": lambda value: np.array(value.shape, np.int32),
    "RANK": lambda value: np.array(len(value.shape), np.int32),
    "ZEROS_LIKE": lambda value: np.zeros(value.shape),
}

_NUMPY: dict[str, Callable[..., np.ndarray]] = {
    "ADD": np.add,
    "SUB": np.subtract,
    "MUL": np.multiply,
    "FLOOR_DIV": np.floor_divide,
    "FLOOR_MOD": np.mod,
    "MAXIMUM": np.maximum,
    "MINIMUM": np.minimum,
    "NEG": np.negative,
    "ABS": np.abs,
    "EQUAL": np.equal,
    "NOT_EQUAL": np.not_equal,
    "LESS": np.less,
    "LESS_EQUAL": np.less_equal,
    "GREATER": np.greater,
    "GREATER_EQUAL": np.greater_equal,
    "LOGICAL_AND": np.logical_and,
    "LOGICAL_OR": np.logical_or,
    "LOGICAL_NOT": np.logical_not,
    "SELECT": np.where,
    "SELECT_V2": np.where,
    "CAST": lambda x: x,
    "RANGE": np.arange,
    "FILL": lambda shape, value: np.full(shape, value),
    "BROADCAST_TO": lambda x, shape: np.broadcast_to(x, shape),
    "TILE": lambda x, times: np.tile(x, times),
    "BROADCAST_ARGS": lambda x, y: np.array(np.broadcast_shapes(tuple(x), tuple(y))),
    "ADD_N": lambda *terms: np.sum(terms, axis=0),
    "TRANSPOSE": lambda x, axes: np.transpose(x, axes),
}

_REDUCTIONS: dict[str, Callable[..., np.ndarray]] = {
    "SUM": np.sum,
    "REDUCE_PROD": np.prod,
    "REDUCE_MAX": np.max,
    "REDUCE_MIN": np.min,
    "REDUCE_ANY": np.any,
    "REDUCE_ALL": np.all,
}

#: These only move their input's elements into the result's shape.
_RESHAPING = ("RESHAPE", "EXPAND_DIMS", "SQUEEZE")


def fold(
    operator: Operator, inputs: Sequence[Value | None], shapes: Sequence[Shape]
) -> list[np.ndarray | None]:
    """The results' elements where they follow; None where they do not.

    Args:
        operator: The operation.
        inputs: What is known of its inputs.
        shapes: The shapes of its results.
    """
    nothing: list[np.ndarray | None] = [None] * len(shapes)
    if any(math.prod(shape) > FOLLOWED_ELEMENTS for shape in shapes):
        return nothing
    name = operator.name
    first = inputs[0] if inputs else None
    if name in _FROM_SHAPES and first is not None:
        return [_FROM_SHAPES[name](first)]
    values = [value.known for value in inputs if value is not None and value.known is not None]
    if not values or len(values) < len(inputs):
        return nothing
    try:
        results = _results(operator, Call(operator, inputs), values, shapes)
    except (IndexError, ValueError, TypeError, ZeroDivisionError):
        return nothing
    if results is None or [result.shape for result in results] != list(shapes):
        return nothing
    return list(results)


def _results(
    operator: Operator, call: Call, values: _Arrays, shapes: Sequence[Shape]
) -> _Arrays | None:
    name, x = operator.name, values[0]
    if name in _NUMPY:
        return [np.asarray(_NUMPY[name](*values))]
    if name in _RESHAPING:
        return [x.reshape(shapes[0])]
    if name in _REDUCTIONS:
        axes = tuple(int(axis) for axis in values[1].reshape(-1))
        return [
            np.asarray(_REDUCTIONS[name](x, axis=axes, keepdims=bool(call.option("keep_dims"))))
        ]
    if name == "STRIDED_SLICE":
        return [np.asarray(x[strided_slice_index(call)])]
    if name == "SLICE":
        sides = zip(values[1], shapes[0], strict=True)
        return [x[tuple(slice(int(begin), int(begin) + side) for begin, side in sides)]]
    if name == "PACK":
        return [np.stack(values, axis=call.option("axis"))]
    if name == "UNPACK":
        axis, count = call.option("axis"), call.option("num")
        return [np.take(x, index, axis=axis) for index in range(count)]
    if name == "CONCATENATION":
        return [np.concatenate(values, axis=call.option("axis"))]
    if name == "GATHER" and not call.option("batch_dims"):
        return [np.take(x, values[1], axis=call.option("axis"))]
    return None
