"""Conditionals as selections, loops as repetition.

TFLite graphs that run in one pass have no branches: both sides are computed and
`where` selects. Version 1 control flow (Switch and Merge, into which TensorFlow's
optimizer turns every conditional) marks each value with the conditions under
which it exists; a Merge of two values whose conditions oppose is a selection.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import tensorflow as tf

from tflite_models.lowering import batch
from tflite_models.lowering.errors import LoweringError, UnsupportedOperation
from tflite_models.lowering.handlers import handles
from tflite_models.lowering.node import Node
from tflite_models.lowering.shapes import full
from tflite_models.lowering.values import Optional, Value, is_constant

if TYPE_CHECKING:
    from tflite_models.lowering.graph_walk import GraphWalk

#: For each predicate, by identity: the predicate's value and the side taken.
Conditions: TypeAlias = dict[int, tuple[Value, bool]]

#: Repetitions above which a loop would give a graph too large for a device.
MAX_REPETITIONS = 2000


def select(predicate: Value, if_true: Value, if_false: Value) -> Value:
    """One of two values, by a scalar predicate."""
    if if_true is if_false:
        return if_true
    if isinstance(if_true, Optional):
        # Read only where the branch that gave it was taken, and a selection follows there.
        return if_false if if_true.values is None else if_true
    if is_constant(predicate):
        return if_true if bool(predicate) else if_false
    if not (is_constant(if_true) and is_constant(if_false)):
        if_true, if_false = _narrow(if_true), _narrow(if_false)
    return tf.where(predicate, tf.convert_to_tensor(if_true), tf.convert_to_tensor(if_false))


def _narrow(value: Value) -> Value:
    """A constant of equal entries as a scalar: `where` broadcasts it, and the file stays small."""
    if is_constant(value) and np.size(value) > 1:
        flat = np.ravel(value)
        if (flat == flat[0]).all():
            return np.asarray(flat[0])
    return value


def select_under(conditions: Conditions, value: Value, otherwise: Value) -> Value:
    """`value` where all conditions hold."""
    for predicate, side in conditions.values():
        value = select(predicate, value, otherwise) if side else select(predicate, otherwise, value)
    return value


def merge(
    inputs: Sequence[Value], conditions: Sequence[Conditions]
) -> tuple[list[Value], Conditions]:
    """The outputs of a Merge and the conditions that remain."""
    if len(inputs) == 2:
        first, second = conditions
        for key, (predicate, side) in first.items():
            if key in second and second[key][1] != side:
                if_true, if_false = inputs if side else reversed(inputs)
                remaining = {k: v for k, v in first.items() if k != key and k in second}
                return [select(predicate, if_true, if_false), np.int32(0)], remaining
    raise LoweringError(
        "the computation has a conditional whose branches cannot be told apart; "
        "use tf.where in the model or the loss instead of a Python or TensorFlow condition"
    )


@handles("Switch")
def _switch(_walk: "GraphWalk", _node: Node, inputs: list[Value]) -> list[Value]:
    return [inputs[0], inputs[0]]


@handles("If", "StatelessIf")
def _if(walk: "GraphWalk", node: Node, inputs: list[Value]) -> list[Value]:
    predicate, *arguments = inputs
    branches = node.attributes["then_branch"], node.attributes["else_branch"]
    if is_constant(predicate):
        return walk.call(branches[0] if bool(predicate) else branches[1], arguments)
    before = walk.environment.snapshot()
    if_true = walk.call(branches[0], arguments)
    after_true = walk.environment.snapshot()
    walk.environment.restore(before)
    if_false = walk.call(branches[1], arguments)
    after_false = walk.environment.snapshot()
    for variable, value in after_true.items():
        if value is not after_false.get(variable):
            other = walk.environment.read(variable)
            walk.environment.assign(variable, select(predicate, value, other))
    return [select(predicate, a, b) for a, b in zip(if_true, if_false, strict=True)]


@handles("While", "StatelessWhile")
def _while(walk: "GraphWalk", node: Node, inputs: list[Value]) -> list[Value] | None:
    state = list(inputs)
    for repetition in range(MAX_REPETITIONS):
        (condition,) = walk.call(node.attributes["cond"], state)
        if not is_constant(condition):
            if repetition == 0:
                return None
            break
        if not bool(condition):
            return state
        state = walk.call(node.attributes["body"], state)
    raise UnsupportedOperation(
        op=node.op,
        node=node.name,
        advice=f"a loop must have a fixed length of at most {MAX_REPETITIONS}",
    )


@handles("OptionalFromValue")
def _optional(_walk: "GraphWalk", _node: Node, inputs: list[Value]) -> list[Value]:
    return [Optional(tuple(inputs))]


@handles("OptionalNone")
def _no_optional(_walk: "GraphWalk", _node: Node, _inputs: list[Value]) -> list[Value]:
    return [Optional(None)]


@handles("OptionalGetValue")
def _optional_values(_walk: "GraphWalk", node: Node, inputs: list[Value]) -> list[Value]:
    """In a branch that is computed but not taken any value will do."""
    if inputs[0].values is not None:
        return list(inputs[0].values)
    shapes, dtypes = node.attributes["output_shapes"], node.attributes["output_types"]
    return [
        full([side or batch.one() for side in shape.as_list()], np.zeros((), dtype.as_numpy_dtype))
        for shape, dtype in zip(shapes, dtypes, strict=True)
    ]


@handles("PartitionedCall", "StatefulPartitionedCall")
def _call(walk: "GraphWalk", node: Node, inputs: list[Value]) -> list[Value]:
    return walk.call(node.attributes["f"], inputs)


@handles("NoOp", "Assert", "DestroyResourceOp")
def _nothing(_walk: "GraphWalk", _node: Node, _inputs: list[Value]) -> list[Value]:
    return []


@handles("Identity", "StopGradient", "PreventGradient", "Snapshot", "CheckNumerics", "EnsureShape")
def _same(_walk: "GraphWalk", _node: Node, inputs: list[Value]) -> list[Value]:
    return [inputs[0]]


@handles("IdentityN")
def _same_each(_walk: "GraphWalk", _node: Node, inputs: list[Value]) -> list[Value]:
    return list(inputs)
