"""The one process of a running server that imports TensorFlow. Started by `ModelUpdater`.

It runs the server parts of plans: `report`, `update` and `prepare` of
tff.backends.mapreduce.MapReduceForm as plain TensorFlow graphs, without TFF.
It holds no state of a task: each request brings the server state along.

    load   {key} + [ServerPart]                 -> loaded
    apply  {key, computation} + [state, sums]   -> applied {metrics} + [state, checkpoint]
                                                 | unknown
    anything that goes wrong                    -> failed {message}
"""

import math
import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from device_plan import checkpoint
from device_plan.plan_pb2 import Binding, GraphFunction, ServerPart, TensorSpec
from server.model_update.child import connect, failure, serve
from server.model_update.messages import Message, send

#: Server parts kept loaded; the one unused for longest makes room.
MAX_LOADED = 16

#: tff.learning.algorithms.build_fed_eval reports each metric for this round and
#: for all rounds so far. Every evaluation starts anew, so they are the same.
_THIS_ROUND = "current_round_metrics/"


class NotANumber(ArithmeticError):
    """The sums are not finite, or what they would make of the model is not."""


class Graph:
    """A plan's GraphFunction as a function of arrays.

    Args:
        tf: The tensorflow module.
        function: Its initialize_op is run here, once.
    """

    def __init__(self, tf: Any, function: GraphFunction) -> None:
        graph_def = tf.compat.v1.GraphDef.FromString(function.graph_def)
        whole = tf.compat.v1.wrap_function(
            lambda: tf.compat.v1.import_graph_def(graph_def, name=""), []
        )
        if function.initialize_op:
            whole.prune([], whole.graph.get_operation_by_name(function.initialize_op))()
        tensor = whole.graph.get_tensor_by_name
        self._tf = tf
        self._inputs = tuple(function.inputs)
        self._outputs = tuple(function.outputs)
        self._run = whole.prune(
            [tensor(binding.tensor) for binding in self._inputs],
            [tensor(binding.tensor) for binding in self._outputs],
        )

    def __call__(self, values: Sequence[np.ndarray]) -> list[tuple[str, np.ndarray]]:
        """The named outputs of inputs given in the function's order."""
        tensors = [
            self._tf.constant(_fitting(value, binding))
            for value, binding in zip(values, self._inputs, strict=True)
        ]
        results = self._run(*tensors)
        return [
            (binding.spec.name, result.numpy())
            for binding, result in zip(self._outputs, results, strict=True)
        ]


class ServerComputation:
    """A loaded ServerPart."""

    def __init__(self, tf: Any, part: ServerPart) -> None:
        self._state = tuple(part.state)
        self._sums = tuple(part.sums)
        self._metrics = tuple(part.metrics)
        self._report = Graph(tf, part.report)
        self._update = Graph(tf, part.update)
        self._prepare = Graph(tf, part.prepare)

    def train(self, state: bytes, sums: bytes) -> tuple[bytes, bytes, dict[str, Any]]:
        """The next state, its checkpoint, and the round's metrics.

        Raises:
            NotANumber: the sums or the checkpoint have NaN or infinity, or the
                new state has NaN.
            ValueError: the tensors are not those of the plan.
        """
        # TFF's finalizers replace an update that is not finite by none at all; the
        # round would be committed, and be of no effect.
        for name, value in checkpoint.decode(sums).items():
            if not _is_finite(value):
                raise NotANumber(f"the sums are not finite in {name!r}")
        before = _in_order(checkpoint.decode(state), self._state, "server state")
        after, metrics = self._step(before, sums)
        for spec, value in zip(self._state, after, strict=True):
            if value.dtype.kind == "f" and np.isnan(value).any():
                raise NotANumber(f"the new server state has NaN in {spec.name!r}")
        weights = dict(self._prepare(after))
        for name, value in weights.items():
            if not _is_finite(value):
                raise NotANumber(f"the new model is not finite in {name!r}")
        named = {spec.name: value for spec, value in zip(self._state, after, strict=True)}
        return checkpoint.encode(named), checkpoint.encode(weights), metrics

    def evaluate(self, sums: bytes) -> dict[str, Any]:
        """The metrics of one evaluation round, which begins from a state of zeros.

        Raises:
            ValueError: the tensors are not those of the plan.
        """
        zeros = [np.zeros(tuple(spec.shape), spec.dtype) for spec in self._state]
        _, metrics = self._step(zeros, sums)
        this_round = {
            name.split(_THIS_ROUND, 1)[1]: value
            for name, value in metrics.items()
            if _THIS_ROUND in name
        }
        return this_round or metrics

    def _step(
        self, state: Sequence[np.ndarray], sums: bytes
    ) -> tuple[list[np.ndarray], dict[str, Any]]:
        ordered = _in_order(checkpoint.decode(sums), self._sums, "sums")
        reported = [value for _, value in self._report(ordered)]
        results = [value for _, value in self._update([*state, *reported])]
        after, measured = results[: len(self._state)], results[len(self._state) :]
        names = (spec.name for spec in self._metrics)
        return after, {name: _json(value) for name, value in zip(names, measured, strict=True)}


class Process:
    """The answers to the parent's requests."""

    def __init__(self, tf: Any) -> None:
        self._tf = tf
        self._loaded: OrderedDict[str, ServerComputation] = OrderedDict()

    def handle(self, request: Message) -> Message:
        key = request.fields["key"]
        if request.kind == "load":
            part = ServerPart.FromString(request.attachments[0])
            self._loaded[key] = ServerComputation(self._tf, part)
            if len(self._loaded) > MAX_LOADED:
                self._loaded.popitem(last=False)
            return Message("loaded")
        if request.kind != "apply":
            raise ValueError(f"unknown request {request.kind!r}")
        if key not in self._loaded:
            return Message("unknown")
        self._loaded.move_to_end(key)
        computation = self._loaded[key]
        state, sums = request.attachments
        if request.fields["computation"] == "evaluation":
            return Message("applied", {"metrics": computation.evaluate(sums)})
        new_state, weights, metrics = computation.train(state, sums)
        return Message("applied", {"metrics": metrics}, (new_state, weights))


def _in_order(
    tensors: Mapping[str, np.ndarray], specs: Sequence[TensorSpec], what: str
) -> list[np.ndarray]:
    names = {spec.name for spec in specs}
    if set(tensors) != names:
        raise ValueError(
            f"the {what} should have the tensors {sorted(names)}, not {sorted(tensors)}"
        )
    return [tensors[spec.name] for spec in specs]


def _fitting(value: np.ndarray, binding: Binding) -> np.ndarray:
    spec = binding.spec
    fits = value.dtype == np.dtype(spec.dtype) and value.shape == tuple(spec.shape)
    if not fits:
        raise ValueError(
            f"tensor {spec.name!r} is {value.dtype}{list(value.shape)}, "
            f"the plan says {spec.dtype}{list(spec.shape)}"
        )
    return value


def _is_finite(value: np.ndarray) -> bool:
    return value.dtype.kind != "f" or bool(np.isfinite(value).all())


def _json(value: np.ndarray) -> Any:
    """A metric as JSON; what is not finite, which JSON cannot say, as null."""
    if value.ndim:
        return [_json(item) for item in value]
    scalar = value.item()
    return None if isinstance(scalar, float) and not math.isfinite(scalar) else scalar


def main() -> None:
    stream = connect(sys.argv[1:])
    try:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(2)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except Exception as error:
        send(stream, failure(error))
        return
    serve(stream, Process(tf).handle)


if __name__ == "__main__":
    main()
