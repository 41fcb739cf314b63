"""The client's work, split where it reads its examples into begin, batch and finish.

    state = begin(parameters)
    for each batch: state = batch(parameters, state, batch)
    results = finish(parameters, state)

Each part re-walks the graph up to the loop over batches, so that what the loop
captures is computed anew from the parameters and only what a batch changes is
state. Parts that a function does not need are pruned when it is converted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import tensorflow as tf
from tensorflow.core.framework import graph_pb2
from tensorflow.python.framework.func_graph import FuncGraph

from tflite_models.lowering.dataset import Reduction, ReductionPolicy
from tflite_models.lowering.errors import LoweringError
from tflite_models.lowering.graph_walk import GraphWalk
from tflite_models.lowering.node import node_name
from tflite_models.lowering.values import DatasetHandle, Value


class _Reached(Exception):
    """Ends a walk at the loop over batches."""

    def __init__(self, reduction: Reduction) -> None:
        super().__init__()
        self.reduction = reduction


@dataclass(frozen=True)
class _State:
    """Which of the loop's values a batch changes, and their specs."""

    varying: tuple[int, ...]
    specs: tuple[tf.TensorSpec, ...]


class ClientWork:
    """A client computation over a data set, as functions of tensors.

    Call the methods while tracing a tf.function; tensors in, tensors out.

    Args:
        graph: The computation.
        initialize: Name of the operation that initialises variables, or "".
        dataset: Placeholder of the examples' variant tensor.
        parameters: Placeholders of the other inputs.
        results: Tensors that the computation gives.
        batch: Specs of the tensors of one batch, in tf.data's order, first dimension None.

    Raises:
        LoweringError: the computation cannot be split or lowered.
    """

    def __init__(
        self,
        *,
        graph: graph_pb2.GraphDef,
        initialize: str,
        dataset: str,
        parameters: Sequence[str],
        results: Sequence[str],
        batch: Sequence[tf.TensorSpec],
    ) -> None:
        self._graph = graph
        self._first = [initialize] if initialize else []
        self._dataset = node_name(dataset)
        self._parameters = [node_name(reference) for reference in parameters]
        self._results = list(results)
        self.batch_specs = list(batch)
        #: For each kind of operation built so far, the source nodes behind it.
        self.origins: dict[str, list[str]] = {}

    @cached_property
    def parameter_specs(self) -> list[tf.TensorSpec]:
        nodes = {node.name: node for node in self._graph.node}
        return [
            tf.TensorSpec(
                tf.TensorShape(nodes[name].attr["shape"].shape), nodes[name].attr["dtype"].type
            )
            for name in self._parameters
        ]

    @property
    def state_specs(self) -> list[tf.TensorSpec]:
        return list(self._state.specs)

    def begin(self, parameters: Sequence[Value]) -> list[Value]:
        """The state before the first batch."""
        initial = self._reach(parameters).initial()
        return [tf.convert_to_tensor(initial[index]) for index in self._state.varying]

    def batch(
        self, parameters: Sequence[Value], state: Sequence[Value], batch: Sequence[Value]
    ) -> list[Value]:
        """The state after one more batch."""
        reduction = self._reach(parameters)
        after = reduction.step(self._complete(reduction, state), batch)
        return [tf.convert_to_tensor(after[index]) for index in self._state.varying]

    def finish(self, parameters: Sequence[Value], state: Sequence[Value]) -> list[Value]:
        """The computation's results after the last batch."""
        return self._run(
            parameters, lambda reduction: reduction.leave(self._complete(reduction, state))
        )

    def single(self, parameters: Sequence[Value], batch: Sequence[Value]) -> list[Value]:
        """The computation's results on a data set of one batch."""
        return self._run(
            parameters,
            lambda reduction: reduction.leave(reduction.step(reduction.initial(), batch)),
        )

    @cached_property
    def _state(self) -> _State:
        # A function's graph, so that constants can be evaluated outside it.
        with FuncGraph("state").as_default():
            parameters = [_placeholder(spec) for spec in self.parameter_specs]
            reduction = self._reach(parameters)
            initial = [tf.convert_to_tensor(value) for value in reduction.initial()]
            before = [_placeholder(tf.TensorSpec(v.shape, v.dtype)) for v in initial]
            after = reduction.step(before, [_placeholder(spec) for spec in self.batch_specs])
            varying = [i for i, value in enumerate(after) if value is not before[i]]
            for index in varying:
                old, new = initial[index], tf.convert_to_tensor(after[index])
                if old.dtype != new.dtype or not old.shape.is_fully_defined():
                    raise LoweringError(
                        f"the state of the training loop changes from {old.dtype.name} "
                        f"{old.shape} to {new.dtype.name} {new.shape} in a batch; "
                        "it must keep one dtype and a fixed shape"
                    )
            return _State(
                tuple(varying),
                tuple(tf.TensorSpec(initial[i].shape, initial[i].dtype) for i in varying),
            )

    def _complete(self, reduction: Reduction, state: Sequence[Value]) -> list[Value]:
        values = reduction.initial()
        for index, value in zip(self._state.varying, state, strict=True):
            values[index] = value
        return values

    def _reach(self, parameters: Sequence[Value]) -> Reduction:
        def stop(reduction: Reduction) -> list[Value]:
            raise _Reached(reduction)

        try:
            self._run(parameters, stop)
        except _Reached as reached:
            return reached.reduction
        raise LoweringError("the client computation does not read its examples")

    def _run(self, parameters: Sequence[Value], policy: ReductionPolicy) -> list[Value]:
        walk = GraphWalk(self._graph, reduction=policy)
        # Shared, so that what was built before an early end is not lost.
        for op, nodes in self.origins.items():
            walk.origins[op] = nodes
        self.origins = walk.origins
        feeds: dict[str, Value] = dict(zip(self._parameters, parameters, strict=True))
        feeds[self._dataset] = DatasetHandle()
        results = walk.run(feeds, self._results, first=self._first)
        return [tf.convert_to_tensor(value) for value in results]


def _placeholder(spec: tf.TensorSpec) -> tf.Tensor:
    return tf.compat.v1.placeholder(spec.dtype, spec.shape)
