"""What a plan's device part costs: its signatures at a batch size, and whole sessions."""

from dataclasses import dataclass
from functools import cached_property

from device_plan.archive import DevicePart
from device_plan.report.execution import Execution, execute
from device_plan.report.memory import Activations, activations
from device_plan.report.value import Value
from device_plan.report.work import (
    Work,
    operations_without_a_cost,
    work_by_operation,
    work_of,
)
from device_plan.tflite_file import TfliteFile

#: What a training session executes, in this order.
TRAINING = ("begin", "batch", "finish")


@dataclass(frozen=True)
class SignatureCost:
    """One call of a signature.

    Attributes:
        operators: How often each (name, version) stands in its graph.
        work: What the call does.
        by_operation: Likewise by the operations' names.
        activations: The memory of what it computes.
        assumed: Shapes that do not follow from the batch size, one sentence each.
        uncounted: Operations whose arithmetic is not known here, with their number.
    """

    operators: dict[tuple[str, int], int]
    work: Work
    by_operation: dict[str, Work]
    activations: Activations
    assumed: tuple[str, ...]
    uncounted: dict[str, int]


class DeviceCost:
    """The costs of one variant of a plan.

    Raises:
        MalformedGraph: its graph cannot be read.
    """

    def __init__(self, part: DevicePart) -> None:
        self.manifest = part.manifest
        self.file = TfliteFile.from_bytes(part.graph)
        self._executions: dict[tuple[str, int], Execution] = {}

    @cached_property
    def is_static(self) -> bool:
        """Whether the graph takes full batches only."""
        return all(-1 not in self._shape(spec.name) for spec in self.manifest.examples)

    def _shape(self, example: str) -> tuple[int, ...]:
        defined = self.file.signatures["batch"]
        graph = self.file.subgraphs[defined.subgraph]
        return graph.tensors[defined.inputs[example]].shape if example in defined.inputs else ()

    def signature(self, name: str, rows: int) -> SignatureCost:
        """One call with a batch of so many examples."""
        execution = self._execution(name, rows)
        subgraph = self.file.signatures[name].subgraph
        return SignatureCost(
            operators=dict(sorted(self.file.operators(subgraph).items())),
            work=work_of(execution.steps),
            by_operation=work_by_operation(execution.steps),
            activations=activations(self.file, subgraph, execution),
            assumed=tuple(execution.assumed),
            uncounted=dict(operations_without_a_cost(execution.steps)),
        )

    def training(self, examples: int) -> Work:
        """A session's work: begin, every epoch's batches with a smaller last one, finish."""
        size = self.manifest.batch_size or examples
        full, rest = divmod(examples, size)
        epoch = self._work("batch", size) * full
        if rest:
            epoch += self._work("batch", size if self.is_static else rest)
        begin, finish = (self._work(name, size) for name in ("begin", "finish"))
        return begin + epoch * max(1, self.manifest.epochs) + finish

    def steps(self, examples: int) -> int:
        """Calls of `batch` in a session."""
        size = self.manifest.batch_size or examples
        return -(-examples // size) * max(1, self.manifest.epochs)

    def state_bytes(self) -> int:
        """Bytes of what `begin` makes and `batch` carries from one batch to the next."""
        if "begin" not in self.file.signatures:
            return 0
        execution = self._execution("begin", self.manifest.batch_size or 1)
        defined = self.file.signatures["begin"]
        graph = self.file.subgraphs[defined.subgraph]
        known = execution.tensors
        return sum(
            known[index].bytes
            if index in known
            else Value(graph.tensors[index].dtype, graph.tensors[index].shape).bytes
            for index in defined.outputs.values()
        )

    def _work(self, name: str, rows: int) -> Work:
        if name not in self.file.signatures:
            return Work()
        return work_of(self._execution(name, rows).steps)

    def _execution(self, name: str, rows: int) -> Execution:
        if (name, rows) not in self._executions:
            defined = self.file.signatures[name]
            graph = self.file.subgraphs[defined.subgraph]
            shapes = {
                index: tuple(rows if side < 0 else side for side in graph.tensors[index].shape)
                for index in graph.inputs
            }
            self._executions[name, rows] = execute(
                self.file, defined.subgraph, shapes, open_side=rows
            )
        return self._executions[name, rows]
