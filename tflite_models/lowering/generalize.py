"""Turns a graph that was traced with a generic batch into one for any batch.

Every integer constant that stands for the batch (see `batch`) is computed from
the shape of an example tensor instead; in the shape of a Reshape and in the
size of a Slice a single such entry becomes -1, which needs no computation.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import graph_pb2

from tflite_models.lowering.batch import MAX_SHAPE_ENTRIES
from tflite_models.lowering.errors import LoweringError

#: Operations whose integer input at a position may have one -1 for "the rest".
_REST = {"Reshape": 1, "Slice": 2}

_INTEGERS = (tf.int32.as_datatype_enum, tf.int64.as_datatype_enum)


def generalize(graph: graph_pb2.GraphDef, *, size: int, example: str) -> graph_pb2.GraphDef:
    """The graph for a batch of any size.

    Args:
        graph: Traced with a batch of `size`.
        size: The generic size.
        example: Name of a placeholder whose first dimension is the batch; "" if
            the graph has none, and so must not depend on it.

    Raises:
        LoweringError: the graph has data of the batch's size that is not a shape.
    """
    generalized = graph_pb2.GraphDef()
    generalized.CopyFrom(graph)
    return _Generalization(generalized, size, example).done()


class _Generalization:
    def __init__(self, graph: graph_pb2.GraphDef, size: int, example: str) -> None:
        self._graph = graph
        self._size = size
        self._example = example
        self._consumers: Mapping[str, list[tuple[Any, int]]] = _consumers(graph)
        self._sides: dict[tuple[int, int], str] = {}

    def done(self) -> graph_pb2.GraphDef:
        for node in list(self._graph.node):
            if node.op != "Const":
                continue
            shape = [side.size for side in node.attr["value"].tensor.tensor_shape.dim]
            if any(side and side % self._size == 0 for side in shape):
                self._fill(node, shape)
            elif node.attr["dtype"].type in _INTEGERS:
                value = tf.make_ndarray(node.attr["value"].tensor)
                if value.size <= MAX_SHAPE_ENTRIES and np.any(self._generic(value)):
                    self._replace(node, value)
        return self._graph

    def _generic(self, value: np.ndarray) -> np.ndarray:
        """Which entries stand for the batch, flat."""
        flat = np.ravel(value)
        generic: np.ndarray = (flat % self._size == 0) & (flat != 0)
        return generic

    def _replace(self, node: Any, value: np.ndarray) -> None:
        """Gives each consumer of a constant shape the shape of the real batch."""
        generic = self._generic(value)
        rest: str | None = None
        for consumer, position in list(self._consumers[node.name]):
            # A Reshape may leave one side open; the author's layer may have done so already.
            open_already = consumer.op == "Reshape" and np.any(value == -1)
            if _REST.get(consumer.op) == position and generic.sum() == 1 and not open_already:
                if rest is None:
                    rest = self._constant(
                        f"{node.name}/rest",
                        np.where(generic, -1, np.ravel(value)).astype(value.dtype),
                    )
                consumer.input[position] = rest
        dtype = node.attr["dtype"].type
        sides = [self._side(int(side), dtype) for side in np.ravel(value)]
        name = node.name
        if value.ndim == 0:
            self._become(node, "Identity", sides, T=dtype)
        elif value.ndim == 1:
            self._become(node, "Pack", sides, T=dtype, N=len(sides), axis=0)
        else:
            flat = self._node(f"{name}/flat", "Pack", sides, T=dtype, N=len(sides), axis=0)
            shape = self._constant(f"{name}/shape", np.array(value.shape, np.int32))
            self._become(node, "Reshape", [flat, shape], T=dtype, Tshape=_INTEGERS[0])

    def _fill(self, node: Any, shape: list[int]) -> None:
        """A constant of the batch's size and equal entries is filled on the device."""
        value = tf.make_ndarray(node.attr["value"].tensor)
        if value.size and not np.all(value == value.flat[0]):
            raise LoweringError(
                "the computation has a constant with a different entry for each example of a "
                "batch; make such values from the examples instead"
            )
        dtype = node.attr["dtype"].type
        dimensions = [self._side(side, _INTEGERS[0]) for side in shape]
        sides = self._node(
            f"{node.name}/shape", "Pack", dimensions, T=_INTEGERS[0], N=len(shape), axis=0
        )
        entry = self._constant(f"{node.name}/entry", np.asarray(value.flat[0]))
        self._become(node, "Fill", [sides, entry], T=dtype, index_type=_INTEGERS[0])

    def _side(self, side: int, dtype: int) -> str:
        """The node that gives one side of a shape, as a scalar."""
        key = (side, dtype)
        if key not in self._sides:
            factor = side // self._size if side % self._size == 0 else 0
            self._sides[key] = self._new_side(side, factor, dtype)
        return self._sides[key]

    def _new_side(self, side: int, factor: int, dtype: int) -> str:
        numpy = tf.as_dtype(dtype).as_numpy_dtype
        name = f"batch/{tf.as_dtype(dtype).name}/{'times' if factor else 'side'}_{factor or side}"
        name = name.replace("-", "minus")
        if not factor:
            return self._constant(name, np.array(side, numpy))
        if factor > 1:
            one = self._side(self._size, dtype)
            times = self._constant(f"{name}/factor", np.array(factor, numpy))
            return self._node(name, "Mul", [one, times], T=dtype)
        if dtype != _INTEGERS[0]:
            one = self._side(self._size, _INTEGERS[0])
            return self._node(name, "Cast", [one], SrcT=_INTEGERS[0], DstT=dtype)
        if not self._example:
            raise LoweringError(
                "the computation needs the size of a batch before the first or after the last one"
            )
        placeholder = next(node for node in self._graph.node if node.name == self._example)
        shape = self._node(
            f"{name}/shape",
            "Shape",
            [self._example],
            T=placeholder.attr["dtype"].type,
            out_type=_INTEGERS[0],
        )
        begin, end, stride = (
            self._constant(f"{name}/{part}", np.array([number], np.int32))
            for part, number in (("begin", 0), ("end", 1), ("stride", 1))
        )
        masks = {"begin_mask": 0, "end_mask": 0, "ellipsis_mask": 0, "new_axis_mask": 0}
        return self._node(
            name,
            "StridedSlice",
            [shape, begin, end, stride],
            T=_INTEGERS[0],
            Index=_INTEGERS[0],
            shrink_axis_mask=1,
            **masks,
        )

    def _constant(self, name: str, value: np.ndarray) -> str:
        node = self._graph.node.add(name=name, op="Const")
        node.attr["dtype"].type = tf.as_dtype(value.dtype).as_datatype_enum
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
        return name

    def _node(self, name: str, op: str, inputs: list[str], **attributes: int) -> str:
        self._become(self._graph.node.add(name=name), op, inputs, **attributes)
        return name

    def _become(self, node: Any, op: str, inputs: list[str], **attributes: int) -> None:
        node.op = op
        del node.input[:]
        node.input.extend(inputs)
        node.attr.clear()
        for key, value in attributes.items():
            if key in ("T", "Tshape", "Index", "SrcT", "DstT", "out_type", "index_type"):
                node.attr[key].type = value
            else:
                node.attr[key].i = value


def _consumers(graph: graph_pb2.GraphDef) -> dict[str, list[tuple[Any, int]]]:
    consumers: dict[str, list[tuple[Any, int]]] = defaultdict(list)
    for node in graph.node:
        for position, reference in enumerate(node.input):
            consumers[reference.removeprefix("^").split(":")[0]].append((node, position))
    return consumers
