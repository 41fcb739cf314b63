"""One node of a GraphDef, with its attributes as Python values."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2, node_def_pb2


class Node:
    """A node whose double precision is single precision, as TFLite kernels want it."""

    def __init__(self, definition: node_def_pb2.NodeDef, function: str = "") -> None:
        self.definition = definition
        #: The node's identity in the whole graph: its function, "" for none, and its name.
        self.site = f"{function}/{definition.name}"
        self.name: str = definition.name
        self.op: str = definition.op
        self.data_inputs = [ref for ref in definition.input if not ref.startswith("^")]
        self.predecessors = [node_name(ref) for ref in definition.input]

    @cached_property
    def attributes(self) -> Mapping[str, Any]:
        return {
            name: _python_value(value)
            for name, value in self.definition.attr.items()
            if not name.startswith("_")
        }

    def attribute_protos(self) -> dict[str, attr_value_pb2.AttrValue]:
        """The attributes for building the same operation again."""
        protos = {}
        for name, value in self.definition.attr.items():
            if name.startswith("_"):
                continue
            copy = attr_value_pb2.AttrValue()
            copy.CopyFrom(value)
            if copy.type == tf.float64.as_datatype_enum:
                copy.type = tf.float32.as_datatype_enum
            for index, dtype in enumerate(copy.list.type):
                if dtype == tf.float64.as_datatype_enum:
                    copy.list.type[index] = tf.float32.as_datatype_enum
            protos[name] = copy
        return protos


def node_name(reference: str) -> str:
    """The node of an input reference: "^name", "name", "name:0" or "name:output:0"."""
    return reference.removeprefix("^").split(":")[0]


def _python_value(value: attr_value_pb2.AttrValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "type":
        return _single_precision(tf.as_dtype(value.type))
    if kind == "shape":
        return tf.TensorShape(value.shape)
    if kind == "s":
        return value.s.decode("utf-8", "replace")
    if kind == "func":
        return value.func.name
    if kind == "list":
        if value.list.type:
            return [_single_precision(tf.as_dtype(dtype)) for dtype in value.list.type]
        if value.list.shape:
            return [tf.TensorShape(shape) for shape in value.list.shape]
        if value.list.func:
            return [func.name for func in value.list.func]
        return list(value.list.i or value.list.f or value.list.b or value.list.s)
    return getattr(value, kind) if kind else None


def _single_precision(dtype: tf.DType) -> tf.DType:
    return tf.float32 if dtype == tf.float64 else dtype
