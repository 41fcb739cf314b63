"""Resource variables as an environment: a mapping that assignments replace.

A graph with variables becomes a function from environments to environments, so
that training state can be passed in and out of a TFLite signature instead of
living in resource tensors, which would embed initial values in the file.
"""

from collections.abc import Iterable, Sequence

from tflite_models.lowering.errors import LoweringError
from tflite_models.lowering.values import Value, VariableHandle


class Environment:
    """The current value of each variable."""

    def __init__(self) -> None:
        self._values: dict[VariableHandle, Value] = {}

    def read(self, variable: VariableHandle) -> Value:
        try:
            return self._values[variable]
        except KeyError:
            raise LoweringError(
                f"variable {variable.name!r} is read before it is assigned: "
                "create it inside model_fn with an initial value"
            ) from None

    def assign(self, variable: VariableHandle, value: Value) -> None:
        self._values[variable] = value

    def read_all(self, variables: Iterable[VariableHandle]) -> list[Value]:
        return [self.read(variable) for variable in variables]

    def assign_all(self, variables: Sequence[VariableHandle], values: Sequence[Value]) -> None:
        for variable, value in zip(variables, values, strict=True):
            self.assign(variable, value)

    def is_assigned(self, variable: VariableHandle) -> bool:
        return variable in self._values

    def snapshot(self) -> dict[VariableHandle, Value]:
        return dict(self._values)

    def restore(self, snapshot: dict[VariableHandle, Value]) -> None:
        self._values = dict(snapshot)
