"""Operations of the source graph, evaluated now or built again in the traced graph."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import op_def_registry

from tflite_models.lowering.node import Node
from tflite_models.lowering.values import Value, is_constant

#: Elements above which a folded result would cost more than the operation.
MAX_FOLDED_ELEMENTS = 4096


def emit(node: Node, inputs: Sequence[Value]) -> list[tf.Tensor]:
    """The same operation on `inputs`, in the graph being traced."""
    graph = tf.compat.v1.get_default_graph()
    operation = graph.create_op(
        node.op,
        [tf.convert_to_tensor(value) for value in inputs],
        attrs=node.attribute_protos(),
        name=node.name.rsplit("/", 1)[-1].lstrip("_"),
    )
    return list(operation.outputs)


def fold(node: Node, inputs: Sequence[Value]) -> list[np.ndarray] | None:
    """The operation's value now, or None if it is not known or too large to embed."""
    definition = op_def_registry.get(node.op)
    function = getattr(tf.raw_ops, node.op, None)
    if definition is None or function is None or definition.is_stateful:
        return None
    if not all(is_constant(value) for value in inputs):
        return None
    try:
        # Out of the graph being traced, where the operation runs at once.
        with tf.init_scope():
            outputs = function(**_arguments(node, definition, inputs))
    except TypeError:
        # A few raw ops rename arguments that are Python keywords: leave those to the converter.
        return None
    results: list[np.ndarray] = []
    for output in outputs if isinstance(outputs, list | tuple) else [outputs]:
        results.extend(
            tensor.numpy() for tensor in (output if isinstance(output, list) else [output])
        )
    limit = max(MAX_FOLDED_ELEMENTS, 4 * sum(np.size(value) for value in inputs))
    if any(np.size(result) > limit for result in results):
        return None
    return [np.asarray(result) for result in results]


def _arguments(node: Node, definition: Any, inputs: Sequence[Value]) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    position = 0
    inferred: set[str] = set()
    for argument in definition.input_arg:
        inferred |= {argument.type_attr, argument.number_attr, argument.type_list_attr}
        if argument.number_attr or argument.type_list_attr:
            count = (
                int(node.attributes[argument.number_attr])
                if argument.number_attr
                else len(node.attributes[argument.type_list_attr])
            )
            arguments[argument.name] = list(inputs[position : position + count])
            position += count
        else:
            arguments[argument.name] = inputs[position]
            position += 1
    for attribute in definition.attr:
        if attribute.name not in inferred and attribute.name in node.attributes:
            arguments[attribute.name] = node.attributes[attribute.name]
    return arguments
