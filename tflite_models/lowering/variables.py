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
