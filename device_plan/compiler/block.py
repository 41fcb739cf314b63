"""One TensorFlow block of a TFF computation: its graph and its named inputs and outputs."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from device_plan.checkpoint import DTYPES
from device_plan.plan_pb2 import TensorSpec
from device_plan.task_file import InvalidTask


@dataclass(frozen=True)
class Leaf:
    """A tensor of a TFF struct.

    Attributes:
        path: Names, or positions where TFF has no name, from the struct's root.
        tensor: The tensor in the block's graph.
        dtype: numpy's name; "" for a data set.
        shape: None for a dimension that is not known.
    """

    path: tuple[str, ...]
    tensor: str
    dtype: str
    shape: tuple[int | None, ...]

    @property
    def name(self) -> str:
        return "/".join(self.path)

    @property
    def is_dataset(self) -> bool:
        return not self.dtype

    def spec(self, name: str | None = None) -> TensorSpec:
        """The leaf as a plan's tensor.

        Raises:
            InvalidTask: a dtype or a shape that plans do not have.
        """
        name = name or self.name
        if self.dtype == "string":
            raise InvalidTask(
                f"tensor {name!r} of the learning process is a string, as TFF's differential "
                "privacy keeps them; that is not supported yet"
            )
        if self.dtype not in DTYPES.values():
            raise InvalidTask(
                f"tensor {name!r} of the learning process is of dtype {self.dtype}; plans have "
                + ", ".join(DTYPES.values())
            )
        if None in self.shape:
            raise InvalidTask(
                f"tensor {name!r} of the learning process has the shape {list(self.shape)}; "
                "all dimensions must be known"
            )
        return TensorSpec(
            name=name, dtype=self.dtype, shape=[s for s in self.shape if s is not None]
        )


class Block:
    """A compiled TFF computation that is plain TensorFlow.

    Args:
        computation: A tff.Computation whose proto is a TensorFlow block.
    """

    def __init__(self, computation: Any) -> None:
        self.computation = computation
        self.type = computation.type_signature
        self._proto = type(computation).get_proto(computation).tensorflow

    @cached_property
    def graph(self) -> Any:
        graph = tf.compat.v1.GraphDef()
        self._proto.graph_def.Unpack(graph)
        return graph

    @property
    def initialize(self) -> str:
        return str(self._proto.initialize_op)

    @cached_property
    def inputs(self) -> list[Leaf]:
        if self.type.parameter is None:
            return []
        return list(_leaves(self.type.parameter, self._proto.parameter, ()))

    @cached_property
    def outputs(self) -> list[Leaf]:
        return list(_leaves(self.type.result, self._proto.result, ()))

    def source(self, tensor: str) -> tuple[str, str]:
        """The (node, operation) a tensor comes from, through identities."""
        nodes = self._nodes
        name = tensor.removeprefix("^").split(":")[0]
        while nodes[name].op == "Identity":
            name = nodes[name].input[0].split(":")[0]
        return name, nodes[name].op

    @cached_property
    def _nodes(self) -> dict[str, Any]:
        return {node.name: node for node in self.graph.node}

    def node(self, name: str) -> Any:
        return self._nodes[name]


def _leaves(type_: Any, binding: Any, path: tuple[str, ...]) -> Iterator[Leaf]:
    kind = binding.WhichOneof("binding")
    if kind == "tensor":
        yield Leaf(path, binding.tensor.tensor_name, dtype_name(type_), _shape(type_))
    elif kind == "sequence":
        yield Leaf(path, binding.sequence.variant_tensor_name, "", ())
    else:
        elements = tff.structure.iter_elements(type_)
        for index, ((name, inner), part) in enumerate(
            zip(elements, binding.struct.element, strict=True)
        ):
            yield from _leaves(inner, part, (*path, name or str(index)))


def dtype_name(type_: Any) -> str:
    """numpy's name of a tff.TensorType's dtype; "string" for strings."""
    dtype = getattr(type_.dtype, "as_numpy_dtype", type_.dtype)
    try:
        kind = np.dtype(dtype)
    except TypeError:
        return "string"
    return "string" if kind.kind in "OSU" else str(kind.name)


def _shape(type_: Any) -> tuple[int | None, ...]:
    shape = tf.TensorShape(type_.shape)
    if shape.rank is None:
        raise InvalidTask("the learning process has a tensor of unknown rank: give it a shape")
    return tuple(shape.as_list())


def arrays(type_: Any, value: Any) -> list[np.ndarray]:
    """A value that TFF's runtime gave, flat in the struct's order (tf.nest sorts names)."""
    if not isinstance(type_, tff.StructType):
        return [np.asarray(value)]
    flat: list[np.ndarray] = []
    for index, (name, inner) in enumerate(tff.structure.iter_elements(type_)):
        flat.extend(arrays(inner, _element(value, name, index)))
    return flat


def _element(value: Any, name: str | None, index: int) -> Any:
    if name is None:
        return value[index]
    if isinstance(value, dict):
        return value[name]
    return getattr(value, name)
