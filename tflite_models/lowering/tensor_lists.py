"""Tensor lists, which dynamic recurrent layers keep their steps in, as lists of values.

A loop over time has a fixed length and is repeated while it is walked, so each
index is known and each element has a place of its own in the graph.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from tflite_models.lowering.emit import tensor
from tflite_models.lowering.errors import LoweringError
from tflite_models.lowering.handlers import handles
from tflite_models.lowering.node import Node
from tflite_models.lowering.shapes import full
from tflite_models.lowering.values import TensorList, Value, is_constant, static_shape

if TYPE_CHECKING:
    from tflite_models.lowering.graph_walk import GraphWalk


def add_lists(lists: Sequence[TensorList]) -> TensorList:
    """The sum, element by element; an element that was never set is zero."""
    length = max(len(each.items) for each in lists)
    total: list[Value | None] = []
    for index in range(length):
        present = [each.items[index] for each in lists if index < len(each.items)]
        terms = [tensor(item) for item in present if item is not None]
        total.append(tf.add_n(terms) if len(terms) > 1 else terms[0] if terms else None)
    return replace(lists[0], items=tuple(total))


@handles("TensorListReserve")
def _reserve(_walk: "GraphWalk", node: Node, inputs: list[Value]) -> list[Value]:
    shape, length = inputs
    return [TensorList((None,) * _index(length), shape, node.attributes["element_dtype"])]


@handles("EmptyTensorList")
def _empty(_walk: "GraphWalk", node: Node, inputs: list[Value]) -> list[Value]:
    return [TensorList((), inputs[0], node.attributes["element_dtype"])]


@handles("TensorListFromTensor")
def _from_tensor(_walk: "GraphWalk", node: Node, inputs: list[Value]) -> list[Value]:
    value, shape = inputs
    length = static_shape(value)[0]
    if is_constant(value):
        items: Sequence[Value] = [value[index] for index in range(length)]
    else:
        items = tf.unstack(value, num=length, axis=0)
    return [TensorList(tuple(items), shape, node.attributes["element_dtype"])]


@handles("TensorListSetItem")
def _set(_walk: "GraphWalk", _node: Node, inputs: list[Value]) -> list[Value]:
    held, index, value = inputs
    items = list(held.items)
    items[_index(index)] = value
    return [replace(held, items=tuple(items))]


@handles("TensorListGetItem")
def _get(_walk: "GraphWalk", _node: Node, inputs: list[Value]) -> list[Value]:
    held, index, shape = inputs
    item = held.items[_index(index)]
    return [_zeros(held, shape) if item is None else item]


@handles("TensorListPushBack")
def _push(_walk: "GraphWalk", _node: Node, inputs: list[Value]) -> list[Value]:
    held, value = inputs
    return [replace(held, items=(*held.items, value))]


@handles("TensorListPopBack")
def _pop(_walk: "GraphWalk", _node: Node, inputs: list[Value]) -> list[Value]:
    held, shape = inputs
    last = held.items[-1]
    value = _zeros(held, shape) if last is None else last
    return [replace(held, items=held.items[:-1]), value]


@handles("TensorListStack")
def _stack(_walk: "GraphWalk", _node: Node, inputs: list[Value]) -> list[Value]:
    held, shape = inputs
    known = next((item for item in held.items if item is not None), None)
    sides = static_shape(known).as_list() if known is not None else shape
    items = [full(sides, _zero(held)) if item is None else item for item in held.items]
    return [tf.stack([tensor(item) for item in items])]


@handles("TensorListConcatV2", "TensorListConcat")
def _concatenate(_walk: "GraphWalk", _node: Node, inputs: list[Value]) -> list[Value]:
    items = [tensor(item) for item in inputs[0].items]
    lengths = np.array([static_shape(item)[0] for item in items], np.int64)
    return [tf.concat(items, axis=0), lengths]


@handles("TensorListLength")
def _length(_walk: "GraphWalk", _node: Node, inputs: list[Value]) -> list[Value]:
    return [np.array(len(inputs[0].items), np.int32)]


@handles("TensorListElementShape")
def _element_shape(_walk: "GraphWalk", _node: Node, inputs: list[Value]) -> list[Value]:
    held = inputs[0]
    known = next((item for item in held.items if item is not None), None)
    if known is not None:
        return [np.array(static_shape(known).as_list(), np.int32)]
    return [np.asarray(held.element_shape)]


@handles("TensorListResize")
def _resize(_walk: "GraphWalk", _node: Node, inputs: list[Value]) -> list[Value]:
    held, length = inputs
    items = (*held.items, *(None,) * _index(length))[: _index(length)]
    return [replace(held, items=items)]


@handles("AddN", "AddV2", "Add")
def _add(_walk: "GraphWalk", _node: Node, inputs: list[Value]) -> list[Value] | None:
    if isinstance(inputs[0], TensorList):
        return [add_lists(inputs)]
    return None


def _zeros(held: TensorList, shape: Value) -> Value:
    for candidate in (shape, held.element_shape):
        sides = [int(side) for side in np.atleast_1d(candidate)]
        if np.ndim(candidate) == 1 and all(side >= 0 for side in sides):
            return full(sides, _zero(held))
    known = next((item for item in held.items if item is not None), None)
    if known is None:
        raise LoweringError("a recurrent layer reads a step that was never written")
    return full(static_shape(known).as_list(), _zero(held))


def _zero(held: TensorList) -> Value:
    return np.zeros((), held.dtype.as_numpy_dtype)


def _index(value: Value) -> int:
    if not is_constant(value):
        raise LoweringError(
            "a loop over time has a length or an index that depends on the data; "
            "give the recurrent layer a fixed number of steps"
        )
    return int(value)
