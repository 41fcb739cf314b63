"""The one read of the client's examples: ReduceDataset, where the graph is split."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from tflite_models.lowering.errors import LoweringError
from tflite_models.lowering.handlers import handles
from tflite_models.lowering.node import Node
from tflite_models.lowering.values import DatasetHandle, Value, VariableHandle

if TYPE_CHECKING:
    from tflite_models.lowering.graph_walk import GraphWalk


@dataclass(frozen=True)
class Reduction:
    """A loop over batches that the walk has come to.

    Attributes:
        walk: The walk, standing before the loop.
        state: The loop's own state before the first batch.
        variables: The variables that the loop's body can read or assign.
    """

    walk: "GraphWalk"
    function: str
    state: list[Value]
    captured: list[Value]
    variables: list[VariableHandle]

    def initial(self) -> list[Value]:
        """State and variables before the first batch, in one list."""
        return [*self.state, *self.walk.environment.read_all(self.variables)]

    def step(self, current: Sequence[Value], batch: Sequence[Value]) -> list[Value]:
        """State and variables after one batch; the walk's own variables do not change."""
        before = self.walk.environment.snapshot()
        size = len(self.state)
        self.walk.environment.assign_all(self.variables, current[size:])
        outputs = self.walk.call(self.function, [*current[:size], *batch, *self.captured])
        values = self.walk.environment.read_all(self.variables)
        self.walk.environment.restore(before)
        return [*outputs, *values]

    def leave(self, current: Sequence[Value]) -> list[Value]:
        """Sets the variables as after the last batch; returns the loop's outputs."""
        size = len(self.state)
        self.walk.environment.assign_all(self.variables, current[size:])
        return list(current[:size])


#: Given a reduction, the values with which the walk goes on; may raise to end it.
ReductionPolicy: TypeAlias = Callable[[Reduction], list[Value]]


@handles("ReduceDataset")
def _reduce_dataset(walk: "GraphWalk", node: Node, inputs: list[Value]) -> list[Value]:
    size = len(node.attributes["Tstate"])
    if not isinstance(inputs[0], DatasetHandle) or walk.reduction is None:
        raise LoweringError("the client computation reads a data set that is not its examples")
    captured = inputs[1 + size :]
    reduction = Reduction(
        walk=walk,
        function=node.attributes["f"],
        state=inputs[1 : 1 + size],
        captured=captured,
        variables=[value for value in captured if isinstance(value, VariableHandle)],
    )
    return walk.reduction(reduction)
