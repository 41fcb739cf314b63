"""Shapes and constants, known at once wherever the batch dimension does not enter."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from tflite_models.lowering import batch
from tflite_models.lowering.emit import MAX_FOLDED_ELEMENTS
from tflite_models.lowering.handlers import handles
from tflite_models.lowering.node import Node
from tflite_models.lowering.values import (
    TensorList,
    Value,
    has_static_shape,
    is_constant,
    static_shape,
)

if TYPE_CHECKING:
    from tflite_models.lowering.graph_walk import GraphWalk


@handles("Const")
def _constant(_walk: "GraphWalk", node: Node, _inputs: list[Value]) -> list[Value]:
    value = np.asarray(tf.make_ndarray(node.attributes["value"]))
    return [value.astype(np.float32) if value.dtype == np.float64 else value]


@handles("Shape")
def _shape(_walk: "GraphWalk", node: Node, inputs: list[Value]) -> list[Value] | None:
    if not has_static_shape(inputs[0]):
        return None
    return [np.array(static_shape(inputs[0]).as_list(), _index_dtype(node))]


@handles("ShapeN")
def _shapes(_walk: "GraphWalk", node: Node, inputs: list[Value]) -> list[Value]:
    dtype = _index_dtype(node)
    return [
        np.array(static_shape(value).as_list(), dtype)
        if has_static_shape(value)
        else tf.shape(value, out_type=dtype)
        for value in inputs
    ]


@handles("Size")
def _size(_walk: "GraphWalk", _node: Node, inputs: list[Value]) -> list[Value] | None:
    if not has_static_shape(inputs[0]):
        return None
    return [np.array(static_shape(inputs[0]).num_elements(), np.int64)]


@handles("Rank")
def _rank(_walk: "GraphWalk", _node: Node, inputs: list[Value]) -> list[Value]:
    return [np.array(static_shape(inputs[0]).rank, np.int32)]


@handles("ZerosLike")
def _zeros(_walk: "GraphWalk", _node: Node, inputs: list[Value]) -> list[Value] | None:
    if isinstance(inputs[0], TensorList):
        return [replace(inputs[0], items=(None,) * len(inputs[0].items))]
    return _full(inputs[0], 0)


@handles("OnesLike")
def _ones(_walk: "GraphWalk", _node: Node, inputs: list[Value]) -> list[Value] | None:
    return _full(inputs[0], 1)


def _full(value: Value, fill: int) -> list[Value] | None:
    if not has_static_shape(value):
        return None
    dtype = value.dtype if is_constant(value) else value.dtype.as_numpy_dtype
    return [full(static_shape(value).as_list(), np.asarray(fill, dtype))]


def full(sides: Sequence[int], entry: Value) -> Value:
    """A tensor of equal entries: known now if it is small, filled on the device if not."""
    if not any(batch.is_generic(side) for side in sides) and (
        np.prod(sides, dtype=np.int64) <= MAX_FOLDED_ELEMENTS and is_constant(entry)
    ):
        return np.full(list(sides), entry, entry.dtype)
    return tf.fill(np.array(sides, np.int32), entry)


@handles("Fill", "BroadcastTo")
def _fill(_walk: "GraphWalk", node: Node, inputs: list[Value]) -> list[Value] | None:
    sides, value = inputs if node.op == "Fill" else reversed(inputs)
    if not is_constant(sides):
        return None
    if static_shape(value).as_list() == [int(side) for side in sides]:
        return [value]
    if is_constant(value) and np.size(value) == 1:
        return [full([int(side) for side in sides], np.ravel(value)[0])]
    return None


@handles("Sum", "Mean", "Max", "Min", "Prod", "All", "Any")
def _reduce(_walk: "GraphWalk", _node: Node, inputs: list[Value]) -> list[Value] | None:
    """A reduction over no axis is the value itself."""
    value, axes = inputs
    if is_constant(axes) and np.size(axes) == 0:
        return [value]
    return None


@handles("Reshape")
def _reshape(_walk: "GraphWalk", _node: Node, inputs: list[Value]) -> list[Value] | None:
    value, shape = inputs
    if not (is_constant(shape) and has_static_shape(value)):
        return None
    same = static_shape(value).as_list() == [int(side) for side in shape]
    return [value] if same else None


@handles("DynamicStitch", "ParallelDynamicStitch")
def _stitch(_walk: "GraphWalk", _node: Node, inputs: list[Value]) -> list[Value] | None:
    """Joins parts of a shape, as the gradients of reductions do."""
    if not all(is_constant(value) for value in inputs):
        return None
    half = len(inputs) // 2
    positions = np.concatenate([np.ravel(value) for value in inputs[:half]])
    entries = np.concatenate([np.ravel(value) for value in inputs[half:]])
    stitched = np.zeros(positions.max() + 1, entries.dtype)
    stitched[positions] = entries
    return [stitched]


@handles("Tile")
def _tile(_walk: "GraphWalk", _node: Node, inputs: list[Value]) -> list[Value] | None:
    value, repeats = inputs
    return [value] if is_constant(repeats) and np.all(repeats == 1) else None


@handles("Mul")
def _multiply(_walk: "GraphWalk", _node: Node, inputs: list[Value]) -> list[Value] | None:
    """Gradients begin with a multiplication by the scalar one."""
    for value, factor in (inputs, reversed(inputs)):
        if is_constant(factor) and np.ndim(factor) == 0 and factor == 1 and not is_constant(value):
            return [value]
    return None


def _index_dtype(node: Node) -> type:
    dtype: tf.DType = node.attributes.get("out_type", tf.int32)
    return dtype.as_numpy_dtype  # type: ignore[no-any-return]
