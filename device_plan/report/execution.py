"""Walks a TFLite graph as the runtime would, with shapes instead of elements."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from device_plan.report.call import UnknownShape
from device_plan.report.folding import fold
from device_plan.report.shapes import result_shapes
from device_plan.report.value import FOLLOWED_ELEMENTS, Shape, Value
from device_plan.tflite_file import Operator, Subgraph, Tensor, TfliteFile

#: Turns of a loop above which it is not followed further.
MOST_TURNS = 10_000


@dataclass(frozen=True)
class Step:
    """One operation as it is executed.

    Attributes:
        operator: The operation.
        inputs: Its inputs; None for an optional one left out.
        outputs: Its results.
    """

    operator: Operator
    inputs: tuple[Value | None, ...]
    outputs: tuple[Value, ...]


@dataclass
class Execution:
    """A graph's course for inputs of given shapes.

    Attributes:
        steps: The operations in their order; those of loops and branches as
            often as they are executed.
        tensors: What is known of each tensor of the graph itself, by index.
        assumed: What could not be followed and was taken as the file declares
            it, one sentence each.
        inner: The executions of the graphs that loops and branches call, by
            subgraph; the last one of each.
    """

    steps: list[Step] = field(default_factory=list)
    tensors: dict[int, Value] = field(default_factory=dict)
    assumed: list[str] = field(default_factory=list)
    inner: dict[int, "Execution"] = field(default_factory=dict)


def execute(
    file: TfliteFile, subgraph: int, inputs: Mapping[int, Shape], *, open_side: int
) -> Execution:
    """Follows a signature's graph.

    Args:
        file: The parsed TFLite file.
        subgraph: Which of its graphs.
        inputs: The shapes of its inputs by tensor index.
        open_side: What stands for a side that the file leaves open and that
            does not follow from the inputs: the batch size.
    """
    graph = file.subgraphs[subgraph]
    values = [Value(graph.tensors[index].dtype, inputs[index]) for index in graph.inputs]
    return _Walk(file, open_side).run(subgraph, values)


class _Walk:
    def __init__(self, file: TfliteFile, open_side: int) -> None:
        self._file = file
        self._open_side = open_side

    def run(self, subgraph: int, inputs: Sequence[Value]) -> Execution:
        graph = self._file.subgraphs[subgraph]
        execution = Execution(tensors=dict(zip(graph.inputs, inputs, strict=True)))
        for operator in graph.operators:
            given = tuple(
                None if index < 0 else self._value(execution, graph, index)
                for index in operator.inputs
            )
            if operator.name == "WHILE":
                results = self._loop(execution, operator, given)
            elif operator.name == "IF":
                results = self._branch(execution, operator, given)
            else:
                results = self._results(execution, graph, operator, given)
                execution.steps.append(Step(operator, given, tuple(results)))
            execution.tensors.update(zip(operator.outputs, results, strict=True))
        return execution

    def _value(self, execution: Execution, graph: Subgraph, index: int) -> Value:
        if index not in execution.tensors:
            execution.tensors[index] = self._constant(graph.tensors[index])
        return execution.tensors[index]

    def _constant(self, tensor: Tensor) -> Value:
        shape = self._declared(tensor)
        value = Value(tensor.dtype, shape)
        known = tensor.constant() if value.elements <= FOLLOWED_ELEMENTS else None
        return Value(tensor.dtype, shape, known)

    def _declared(self, tensor: Tensor) -> Shape:
        return tuple(self._open_side if side < 0 else side for side in tensor.shape)

    def _results(
        self,
        execution: Execution,
        graph: Subgraph,
        operator: Operator,
        inputs: tuple[Value | None, ...],
    ) -> list[Value]:
        tensors = [graph.tensors[index] for index in operator.outputs]
        try:
            shapes = [tensor.shape for tensor in tensors]
            # A file has the empty shape for scalars and for what it knows nothing of.
            if any(not shape or min(shape) < 0 for shape in shapes):
                shapes = result_shapes(operator, inputs)
        except UnknownShape as error:
            shapes = [self._declared(tensor) for tensor in tensors]
            if any(-1 in tensor.shape for tensor in tensors):
                execution.assumed.append(f"{error}; its results are taken as {shapes}")
        known = fold(operator, inputs, shapes)
        return [
            Value(tensor.dtype, shape, elements)
            for tensor, shape, elements in zip(tensors, shapes, known, strict=True)
        ]

    def _loop(
        self, execution: Execution, operator: Operator, inputs: Sequence[Value | None]
    ) -> list[Value]:
        condition, body = _graphs(operator, "cond", "body")
        values = [value for value in inputs if value is not None]
        for turn in range(MOST_TURNS + 1):
            (holds,) = self._called(execution, condition, values)
            if holds.known is not None and not holds.known.all():
                return values
            if holds.known is None and turn:
                execution.assumed.append("a WHILE whose turns depend on the data is taken as one")
                return values
            values = self._called(execution, body, values)
        execution.assumed.append(f"a WHILE is followed for its first {MOST_TURNS} turns only")
        return values

    def _branch(
        self, execution: Execution, operator: Operator, inputs: Sequence[Value | None]
    ) -> list[Value]:
        holds, *values = [value for value in inputs if value is not None]
        branches = _graphs(operator, "then", "else")
        if holds.known is None:
            execution.assumed.append("an IF that depends on the data is taken as its first branch")
        taken = branches[0] if holds.known is None or holds.known.all() else branches[1]
        return self._called(execution, taken, values)

    def _called(self, execution: Execution, subgraph: int, values: Sequence[Value]) -> list[Value]:
        graph = self._file.subgraphs[subgraph]
        called = self.run(subgraph, values)
        execution.steps += called.steps
        execution.assumed += [told for told in called.assumed if told not in execution.assumed]
        execution.inner |= {**called.inner, subgraph: called}
        return [self._value(called, graph, index) for index in graph.outputs]


def _graphs(operator: Operator, *names: str) -> tuple[int, ...]:
    found = tuple(operator.options[name] for name in names)
    assert all(isinstance(index, int) for index in found)
    return found  # type: ignore[return-value]
