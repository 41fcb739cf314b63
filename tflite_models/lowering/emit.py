"""Operations of the source graph, evaluated now or built again in the traced graph."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import op_def_registry

from tflite_models.lowering import batch
from tflite_models.lowering.node import Node
from tflite_models.lowering.rules.many_axes import broadcast
from tflite_models.lowering.values import Value, is_constant

#: Elements above which a folded result would cost more than the operation.
MAX_FOLDED_ELEMENTS = 4096


#: Operations that make shapes from shapes: known even where the batch enters.
SHAPE_ARITHMETIC = frozenset(
    {
        *("Add", "AddV2", "Sub", "Mul", "FloorDiv", "Div", "FloorMod", "Neg", "Abs"),
        *("Maximum", "Minimum", "Prod", "Sum", "Max", "Min", "Cast"),
        *("Pack", "Unpack", "ConcatV2", "Split", "SplitV", "StridedSlice", "Slice", "GatherV2"),
        *(
            "Reshape",
            "ExpandDims",
            "Squeeze",
            "Transpose",
            "ReverseV2",
            "Select",
            "SelectV2",
            "Where",
        ),
        *("Equal", "NotEqual", "Less", "LessEqual", "Greater", "GreaterEqual"),
        *("LogicalAnd", "LogicalOr", "LogicalNot", "All", "Any", "BroadcastArgs"),
    }
)


#: Operations on two tensors, element by element, with axes of size 1 repeated.
ELEMENTWISE = frozenset(
    {
        *("Sub", "Mul", "RealDiv", "Div", "DivNoNan", "SquaredDifference", "Maximum", "Minimum"),
        *("Equal", "NotEqual", "Less", "LessEqual", "Greater", "GreaterEqual"),
    }
)


def emit(node: Node, inputs: Sequence[Value]) -> list[tf.Tensor]:
    """The same operation on `inputs`, in the graph being traced."""
    tensors = [
        tensor(value, dtype) for value, dtype in zip(inputs, _input_dtypes(node), strict=True)
    ]
    if node.op in ELEMENTWISE:
        return [broadcast(lambda *joined: _create(node, joined)[0], *tensors)]
    return _create(node, tensors)


def _create(node: Node, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    operation = tf.compat.v1.get_default_graph().create_op(
        node.op,
        list(tensors),
        attrs=node.attribute_protos(),
        name=node.name.rsplit("/", 1)[-1].lstrip("_"),
    )
    return list(operation.outputs)


def tensor(value: Value, dtype: tf.DType | None = None) -> tf.Tensor:
    """A value as a tensor of the graph being traced.

    Args:
        dtype: Which a known integer shall have; None leaves it its own.
    """
    if is_constant(value) and value.dtype.kind in "iu" and dtype is not None and dtype.is_integer:
        limits = np.iinfo(dtype.as_numpy_dtype)
        if not np.all((value >= limits.min) & (value <= limits.max)):
            return _large_sizes(value, dtype)
        value = value.astype(dtype.as_numpy_dtype)
    return tf.convert_to_tensor(value)


def _large_sizes(value: np.ndarray, dtype: tf.DType) -> tf.Tensor:
    """Multiples of the batch size that fit `dtype` only with the real one put in."""
    factors, generic = [], []
    for side in np.ravel(value):
        one = batch.times_batch(int(side), 1)
        factors.append(one)
        generic.append(batch.one() if one != int(side) else 1)
    sides = tf.constant(generic, dtype) * tf.constant(factors, dtype)
    return tf.reshape(sides, value.shape)


def _input_dtypes(node: Node) -> list[tf.DType | None]:
    """The dtype of each input as the operation's definition and attributes say."""
    definition: Any = op_def_registry.get(node.op)
    dtypes: list[tf.DType | None] = []
    for argument in definition.input_arg:
        if argument.type_list_attr:
            dtypes += list(node.attributes[argument.type_list_attr])
            continue
        dtype = node.attributes.get(argument.type_attr) if argument.type_attr else None
        if dtype is None and argument.type:
            dtype = tf.as_dtype(argument.type)
        repeat = int(node.attributes[argument.number_attr]) if argument.number_attr else 1
        dtypes += [dtype] * repeat
    return dtypes


def fold(node: Node, inputs: Sequence[Value]) -> list[np.ndarray] | None:
    """The operation's value now, or None if it is not known or too large to embed."""
    definition = op_def_registry.get(node.op)
    function = getattr(tf.raw_ops, node.op, None)
    if definition is None or function is None or definition.is_stateful:
        return None
    if not all(is_constant(value) for value in inputs):
        return None
    generic = any(batch.holds_generic(value) for value in inputs)
    if generic:
        if node.op not in SHAPE_ARITHMETIC or _leaves_integers(node):
            return None
        # A multiple of the generic size may pass 32 bits before it is divided again.
        inputs = [v.astype(np.int64) if v.dtype.kind in "iu" else v for v in inputs]
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
    if generic and not all(result.dtype.kind in "iub" for result in results):
        return None
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


def _leaves_integers(node: Node) -> bool:
    """Whether a cast makes a number of a size, which is not known, of a shape, which is."""
    return node.op == "Cast" and not node.attributes["DstT"].is_integer
