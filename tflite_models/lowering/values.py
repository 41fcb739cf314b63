"""The values that flow along the edges of a graph while it is walked.

A value is known now (a numpy array), known on the device (a symbolic tensor of
the graph being traced), or a handle: a resource variable, the data set, a list or an optional.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf


@dataclass(frozen=True)
class VariableHandle:
    """A resource variable, known by the name that its reads and assignments share."""

    name: str


@dataclass(frozen=True)
class DatasetHandle:
    """The client's examples; only ReduceDataset may read them."""


@dataclass(frozen=True, eq=False)
class TensorList:
    """A list of tensors of one shape; None stands for an element that was never set.

    Attributes:
        element_shape: As TensorFlow keeps it: rank-1 integers, -1 for an unknown side.
    """

    items: tuple["Value | None", ...]
    element_shape: "Value"
    dtype: tf.DType


@dataclass(frozen=True, eq=False)
class Optional:
    """Values that only one branch of a conditional gives; None in the other."""

    values: tuple["Value", ...] | None


Handle: TypeAlias = VariableHandle | DatasetHandle | TensorList | Optional
Value: TypeAlias = Any  # np.ndarray | tf.Tensor | Handle; tf is untyped here


def is_constant(value: Value) -> bool:
    return isinstance(value, np.ndarray | np.generic)


def is_handle(value: Value) -> bool:
    return isinstance(value, VariableHandle | DatasetHandle | TensorList | Optional)


def static_shape(value: Value) -> tf.TensorShape:
    return tf.TensorShape(value.shape)


def has_static_shape(value: Value) -> bool:
    return not is_handle(value) and bool(static_shape(value).is_fully_defined())


def known_dimensions(shape_tensor: Value) -> list[int | None]:
    """The entries of a shape tensor; None where the entry is known only on the device."""
    if is_constant(shape_tensor):
        return [int(side) for side in shape_tensor]
    # The symbolic counterpart: TensorFlow's own inference through Shape, Pack, StridedSlice.
    from tensorflow.python.framework import tensor_util

    return list(tensor_util.constant_value_as_shape(shape_tensor).as_list())


def known_sides(shape_tensor: Value) -> list[int]:
    """The entries of a shape tensor that are all known, a filter's or an image's."""
    return [int(side) for side in known_dimensions(shape_tensor)]  # type: ignore[arg-type]
