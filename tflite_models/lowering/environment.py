"""Resource variables as an environment: a mapping that assignments replace.

A graph with variables becomes a function from environments to environments, so
that training state can be passed in and out of a TFLite signature instead of
living in resource tensors, which would embed initial values in the file.
"""

from collections.abc import Callable, Iterable, Sequence

from tflite_models.lowering.errors import LoweringError
from tflite_models.lowering.values import Value, VariableHandle


class _Deferred:
    """A value that is computed when it is first read."""

    def __init__(self, compute: Callable[[], Value]) -> None:
        self.compute = compute


class Environment:
    """The current value of each variable."""

    def __init__(self) -> None:
        self._values: dict[VariableHandle, Value | _Deferred] = {}

    def read(self, variable: VariableHandle) -> Value:
        try:
            value = self._values[variable]
            if isinstance(value, _Deferred):
                value = self._values[variable] = value.compute()
            return value
        except KeyError:
            raise LoweringError(
                f"variable {variable.name!r} is read before it is assigned: "
                "create it inside model_fn with an initial value"
            ) from None

    def assign(self, variable: VariableHandle, value: Value) -> None:
        self._values[variable] = value

    def defer(self, variable: VariableHandle, compute: Callable[[], Value]) -> None:
        """Assigns a value that may never be needed, such as an initial weight."""
        self._values[variable] = _Deferred(compute)

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
