"""One operation and what is known of its inputs."""

from collections.abc import Sequence

import numpy as np

from device_plan.report.value import Shape, Value
from device_plan.tflite_file import Operator


class UnknownShape(Exception):
    """A result's shape depends on values that are known only at run time, or has no rule."""


class Call:
    """One operation with its inputs: what a shape rule looks at."""

    def __init__(self, operator: Operator, inputs: Sequence[Value | None]) -> None:
        self.operator = operator
        self._inputs = inputs

    def has(self, index: int) -> bool:
        return index < len(self._inputs) and self._inputs[index] is not None

    @property
    def shapes(self) -> list[Shape]:
        return [value.shape for value in self._inputs if value is not None]

    def shape(self, index: int) -> Shape:
        value = self._inputs[index] if index < len(self._inputs) else None
        if value is None:
            raise UnknownShape(f"{self.operator.name} lacks input {index}")
        return value.shape

    def ints(self, index: int) -> list[int]:
        """The elements of an input that says axes, sizes or a shape."""
        value = self._inputs[index] if index < len(self._inputs) else None
        if value is None or value.known is None:
            raise UnknownShape(f"{self.operator.name}: input {index} is known only at run time")
        return [int(element) for element in value.known.reshape(-1)]

    def option(self, name: str) -> int:
        value = self.operator.options[name]
        assert isinstance(value, int)
        return value

    def sizes(self, name: str) -> tuple[int, ...]:
        value = self.operator.options[name]
        assert isinstance(value, tuple)
        return value


def broadcast(*shapes: Shape) -> Shape:
    """As numpy broadcasts."""
    return tuple(int(side) for side in np.broadcast_shapes(*shapes))
