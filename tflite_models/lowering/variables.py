"""Operations on resource variables, as reads and replacements in the environment."""

from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from tflite_models.lowering.handlers import handles
from tflite_models.lowering.node import Node
from tflite_models.lowering.values import Value, VariableHandle, is_constant, static_shape

if TYPE_CHECKING:
    from tflite_models.lowering.graph_walk import GraphWalk


@handles("VarHandleOp")
def _handle(_walk: "GraphWalk", node: Node, _inputs: list[Value]) -> list[Value]:
    return [VariableHandle(node.attributes.get("shared_name") or node.name)]


@handles("ReadVariableOp")
def _read(walk: "GraphWalk", _node: Node, inputs: list[Value]) -> list[Value]:
    return [walk.environment.read(inputs[0])]


@handles("AssignVariableOp")
def _assign(walk: "GraphWalk", _node: Node, inputs: list[Value]) -> list[Value]:
    walk.environment.assign(inputs[0], inputs[1])
    return []


@handles("AssignAddVariableOp")
def _assign_add(walk: "GraphWalk", _node: Node, inputs: list[Value]) -> list[Value]:
    variable, change = inputs
    value = walk.environment.read(variable)
    both = is_constant(value) and is_constant(change)
    walk.environment.assign(variable, np.add(value, change) if both else tf.add(value, change))
    return []


@handles("AssignSubVariableOp")
def _assign_sub(walk: "GraphWalk", _node: Node, inputs: list[Value]) -> list[Value]:
    variable, change = inputs
    value = walk.environment.read(variable)
    both = is_constant(value) and is_constant(change)
    difference = np.subtract(value, change) if both else tf.subtract(value, change)
    walk.environment.assign(variable, difference)
    return []


@handles("VarIsInitializedOp")
def _is_initialized(walk: "GraphWalk", _node: Node, inputs: list[Value]) -> list[Value]:
    return [np.array(walk.environment.is_assigned(inputs[0]))]


@handles("VariableShape")
def _variable_shape(walk: "GraphWalk", _node: Node, inputs: list[Value]) -> list[Value]:
    return [np.array(static_shape(walk.environment.read(inputs[0])).as_list(), np.int32)]


@handles("ResourceGather")
def _gather(walk: "GraphWalk", _node: Node, inputs: list[Value]) -> list[Value]:
    """The rows of a table at some indices: what an embedding looks up."""
    return [tf.gather(walk.environment.read(inputs[0]), inputs[1])]


@handles("ResourceScatterAdd")
def _scatter_add(walk: "GraphWalk", _node: Node, inputs: list[Value]) -> list[Value]:
    variable, indices, changes = inputs
    table = walk.environment.read(variable)
    walk.environment.assign(variable, table + sum_rows(indices, changes, table.shape))
    return []


@handles("ResourceScatterSub")
def _scatter_sub(walk: "GraphWalk", _node: Node, inputs: list[Value]) -> list[Value]:
    variable, indices, changes = inputs
    table = walk.environment.read(variable)
    walk.environment.assign(variable, table - sum_rows(indices, changes, table.shape))
    return []


def sum_rows(indices: Value, rows: Value, shape: tf.TensorShape) -> Value:
    """A table of `shape` whose entry i is the sum of the rows with index i."""
    flat = tf.reshape(rows, [-1, *shape[1:]])
    return tf.math.unsorted_segment_sum(flat, tf.reshape(indices, [-1]), shape[0])
