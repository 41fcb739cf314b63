"""The client's work, split where it reads its examples into begin, batch and finish.

    state = begin(parameters)
    for each batch: state = batch(parameters, state, batch)
    results = finish(parameters, state)

Each part re-walks the graph up to the loop over batches, so that what the loop
captures is computed anew from the parameters and only what a batch changes is
state. Parts that a function does not need are pruned when it is converted.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import tensorflow as tf
from tensorflow.core.framework import graph_pb2
from tensorflow.python.framework.func_graph import FuncGraph

from tflite_models.lowering import batch as generic_batch
from tflite_models.lowering import random_numbers
from tflite_models.lowering.dataset import Reduction, ReductionPolicy
from tflite_models.lowering.errors import LoweringError
from tflite_models.lowering.graph_walk import GraphWalk
from tflite_models.lowering.lowered import Lowered, Profile, lower
from tflite_models.lowering.node import node_name
from tflite_models.lowering.source import generic_size, random_sites
from tflite_models.lowering.values import DatasetHandle, Value


class _Reached(Exception):
    """Ends a walk at the loop over batches."""

    def __init__(self, reduction: Reduction) -> None:
        super().__init__()
        self.reduction = reduction


@dataclass(frozen=True)
class _State:
    """Which of the loop's values a batch changes, their specs, and whether it draws."""

    varying: tuple[int, ...]
    specs: tuple[tf.TensorSpec, ...]
    seeded: bool


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
        max_batch: The most examples in a batch; only random numbers need to know.
        profile: Which substitutions to make (see `lowered`).

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
        max_batch: int = 0,
        profile: Profile = "modern",
    ) -> None:
        self._graph = graph
        self._first = [initialize] if initialize else []
        self._dataset = node_name(dataset)
        self._parameters = [node_name(reference) for reference in parameters]
        self._results = list(results)
        self._max_batch = max_batch
        self._profile: Profile = profile
        self.batch_specs = list(batch)
        self._lowered: dict[str, Lowered] = {}
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

    @property
    def seeded(self) -> bool:
        """Whether `begin` takes a seed, int32 [3] with entries from 1 to MAX_SEED."""
        return self._state.seeded

    def begin(self, parameters: Sequence[Value], seed: Value = None) -> list[Value]:
        """The state before the first batch; the seed is needed if the work is `seeded`."""
        if self.seeded != (seed is not None):
            raise ValueError("a seed is given to a computation exactly if it is seeded")
        seeds = [tf.TensorSpec([3], tf.int32)] if self.seeded else []

        def body(parameters: Sequence[Value], *seed: Value) -> list[Value]:
            initial = self._reach(parameters).initial()
            chosen = [tf.convert_to_tensor(initial[index]) for index in self._state.varying]
            # The first state of the random numbers is the seed itself.
            return [*chosen, *seed]

        arguments = [seed] if self.seeded else []
        return self._call("begin", body, parameters, seeds, arguments)

    def batch(
        self, parameters: Sequence[Value], state: Sequence[Value], batch: Sequence[Value]
    ) -> list[Value]:
        """The state after one more batch."""

        def body(parameters: Sequence[Value], *values: Value) -> list[Value]:
            size = len(self.state_specs)
            reduction = self._reach(parameters)
            current = self._complete(reduction, values[:size])
            after = self._step(reduction, current, values[size:], values[size - 1])
            chosen = [tf.convert_to_tensor(after[index]) for index in self._state.varying]
            if self.seeded:
                chosen.append(self._draws.advance(values[size - 1]))
            return chosen

        return self._call(
            "batch",
            body,
            parameters,
            [*self.state_specs, *self.batch_specs],
            [*state, *batch],
        )

    def finish(self, parameters: Sequence[Value], state: Sequence[Value]) -> list[Value]:
        """The computation's results after the last batch."""

        def body(parameters: Sequence[Value], *values: Value) -> list[Value]:
            return self._run(
                parameters, lambda reduction: reduction.leave(self._complete(reduction, values))
            )

        return self._call("finish", body, parameters, self.state_specs, state)

    def single(self, parameters: Sequence[Value], batch: Sequence[Value]) -> list[Value]:
        """The computation's results on a data set of one batch."""

        def body(parameters: Sequence[Value], *values: Value) -> list[Value]:
            return self._run(
                parameters,
                lambda reduction: reduction.leave(reduction.step(reduction.initial(), values)),
            )

        return self._call("single", body, parameters, self.batch_specs, batch)

    def _call(
        self,
        name: str,
        body: Callable[..., list[Value]],
        parameters: Sequence[Value],
        specs: Sequence[tf.TensorSpec],
        values: Sequence[Value],
    ) -> list[Value]:
        """Lowers a function of the parameters and other tensors once, and calls it."""
        if name not in self._lowered:
            size = len(self._parameters)
            self._lowered[name] = lower(
                lambda *inputs: body(inputs[:size], *inputs[size:]),
                [*self.parameter_specs, *specs],
                generic=self._generic,
                profile=self._profile,
            )
        return self._lowered[name](*parameters, *values)

    @cached_property
    def _state(self) -> _State:
        # A function's graph, so that constants can be evaluated outside it.
        with generic_batch.generic(self._generic), FuncGraph("state").as_default():
            parameters = [_placeholder(spec) for spec in self.parameter_specs]
            reduction = self._reach(parameters)
            initial = [tf.convert_to_tensor(value) for value in reduction.initial()]
            before = [_placeholder(tf.TensorSpec(v.shape, v.dtype)) for v in initial]
            batch = [
                _placeholder(tf.TensorSpec([self._generic, *spec.shape[1:]], spec.dtype))
                for spec in self.batch_specs
            ]
            seed = _placeholder(tf.TensorSpec([3], tf.int32))
            after = self._step(reduction, before, batch, seed)
            varying = [i for i, value in enumerate(after) if value is not before[i]]
            for index in varying:
                old, new = initial[index], tf.convert_to_tensor(after[index])
                if old.dtype != new.dtype or old.shape != new.shape:
                    raise LoweringError(
                        f"the state of the training loop changes from {old.dtype.name} "
                        f"{old.shape} to {new.dtype.name} {new.shape} in a batch; "
                        "it must keep one dtype and a fixed shape"
                    )
            specs = [tf.TensorSpec(initial[i].shape, initial[i].dtype) for i in varying]
            seeded = self._draws.any
            return _State(
                tuple(varying),
                tuple([*specs, tf.TensorSpec([3], tf.int32)] if seeded else specs),
                seeded,
            )

    def _step(
        self, reduction: Reduction, current: Sequence[Value], batch: Sequence[Value], random: Value
    ) -> list[Value]:
        """The loop's values after a batch, whose random numbers begin at a state."""
        self._draws.begin_batch()
        environment = reduction.walk.environment
        before = environment.snapshot()
        environment.assign(random_numbers.STATE, random)
        after = reduction.step(current, batch)
        environment.restore(before)
        return after

    def _complete(self, reduction: Reduction, state: Sequence[Value]) -> list[Value]:
        values = reduction.initial()
        for index, value in zip(self._state.varying, state, strict=False):
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
        reached: list[Reduction] = []

        def once(reduction: Reduction) -> list[Value]:
            if reached:
                raise LoweringError(
                    "the client computation reads its examples twice, in two loops over batches "
                    "(as MimeLite does, for the gradient at the first weights); a device reads "
                    "them in one: use FedAvg, FedProx or FedSGD"
                )
            reached.append(reduction)
            return policy(reduction)

        walk = GraphWalk(self._graph, reduction=once, draws=self._draws)
        # Shared, so that what was built before an early end is not lost.
        for op, nodes in self.origins.items():
            walk.origins[op] = nodes
        self.origins = walk.origins
        feeds: dict[str, Value] = dict(zip(self._parameters, parameters, strict=True))
        feeds[self._dataset] = DatasetHandle()
        results = walk.run(feeds, self._results, first=self._first)
        return [tf.convert_to_tensor(value) for value in results]

    @cached_property
    def _generic(self) -> int:
        """The number that stands for the batch size."""
        return generic_size(self._graph)

    @cached_property
    def _draws(self) -> random_numbers.Draws:
        return random_numbers.Draws(random_sites(self._graph), self._max_batch)


def _placeholder(spec: tf.TensorSpec) -> tf.Tensor:
    return tf.compat.v1.placeholder(spec.dtype, spec.shape)
