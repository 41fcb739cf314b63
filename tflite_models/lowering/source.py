"""What must be known of a source graph before it is walked."""

from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import graph_pb2

from tflite_models.lowering import batch
from tflite_models.lowering.batch import MAX_SHAPE_ENTRIES
from tflite_models.lowering.errors import LoweringError
from tflite_models.lowering.node import Node
from tflite_models.lowering.random_numbers import NORMAL, UNIFORM


def nodes(graph: graph_pb2.GraphDef) -> Iterator[Node]:
    """All nodes of a graph and of the functions in its library."""
    for definition in graph.node:
        yield Node(definition)
    for function in graph.library.function:
        for definition in function.node_def:
            yield Node(definition, function.signature.name)


def random_sites(graph: graph_pb2.GraphDef) -> list[str]:
    """The identities of the operations that draw random numbers."""
    return [node.site for node in nodes(graph) if node.op in (*UNIFORM, *NORMAL)]


def generic_size(graph: graph_pb2.GraphDef) -> int:
    """The number that stands for the batch size in a graph. Raises LoweringError."""
    try:
        return batch.choose(integers(graph))
    except ValueError as error:
        raise LoweringError(str(error)) from error


def integers(graph: graph_pb2.GraphDef) -> set[int]:
    """The integers in a graph that are, or could become, sizes."""
    found: set[int] = set()
    for node in nodes(graph):
        for value in node.definition.attr.values():
            found |= set(_sizes(value))
    return found


def _sizes(value: Any) -> Iterator[int]:
    kind = value.WhichOneof("value")
    if kind == "shape":
        yield from (side.size for side in value.shape.dim)
    elif kind == "list":
        for shape in value.list.shape:
            yield from (side.size for side in shape.dim)
    elif kind == "tensor":
        sides = [side.size for side in value.tensor.tensor_shape.dim]
        yield from sides
        if tf.as_dtype(value.tensor.dtype).is_integer:
            array = tf.make_ndarray(value.tensor)
            if array.size <= MAX_SHAPE_ENTRIES:
                yield from (int(entry) for entry in array.ravel())
