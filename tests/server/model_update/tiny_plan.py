"""Writes a plan whose server part is made by hand; run as a program, because it needs TensorFlow.

The model is kernel [2, 3] and bias [3]. The next weights are the old ones plus
a rate times the weighted mean of the updates; the rate is in a hash table, so
that the graph has something to initialize.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from device_plan.archive import DevicePart, write_archive
from device_plan.checkpoint import encode
from device_plan.plan_pb2 import Binding, GraphFunction, PlanManifest, ServerPart, TensorSpec

Spec = tuple[str, str, tuple[int, ...]]

WEIGHTS: list[Spec] = [("kernel", "float32", (2, 3)), ("bias", "float32", (3,))]
STATE: list[Spec] = [
    ("model/0", "float32", (2, 3)),
    ("model/1", "float32", (3,)),
    ("rounds", "int64", ()),
]
SUMS: list[Spec] = [*WEIGHTS, ("weight", "float32", ()), ("loss", "float32", ())]
METRICS: list[Spec] = [("loss", "float32", ()), ("bias", "float32", (3,)), ("rounds", "int64", ())]
COUNTS: list[Spec] = [("correct", "float32", ()), ("count", "int64", ())]
ACCURACY: list[Spec] = [
    ("eval/current_round_metrics/accuracy", "float32", ()),
    ("eval/total_rounds_metrics/accuracy", "float32", ()),
]


def specs(listed: Sequence[Spec]) -> list[TensorSpec]:
    return [TensorSpec(name=n, dtype=d, shape=s) for n, d, s in listed]


def graph_function(
    tf: Any,
    inputs: Sequence[Spec],
    outputs: Sequence[Spec],
    compute: Callable[..., Sequence[Any]],
) -> GraphFunction:
    with tf.Graph().as_default() as graph:
        fed = [tf.compat.v1.placeholder(d, s) for _, d, s in inputs]
        results = compute(*fed)
        initializers = tf.compat.v1.get_collection("table_initializer")
        initialize = tf.group(initializers, name="initialize").name if initializers else ""
    return GraphFunction(
        graph_def=graph.as_graph_def().SerializeToString(),
        initialize_op=initialize,
        inputs=[Binding(spec=s, tensor=t.name) for s, t in zip(specs(inputs), fed, strict=True)],
        outputs=[
            Binding(spec=s, tensor=t.name) for s, t in zip(specs(outputs), results, strict=True)
        ],
    )


def training_part(tf: Any) -> ServerPart:
    def update(k: Any, b: Any, rounds: Any, dk: Any, db: Any, weight: Any, loss: Any) -> Any:
        rates = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(["rate"], [0.5]), default_value=0.0
        )
        rate = rates.lookup(tf.constant("rate"))
        bias = b + rate * db / weight
        return k + rate * dk / weight, bias, rounds + 1, loss / weight, bias, rounds + 1

    return ServerPart(
        prepare=graph_function(tf, STATE, WEIGHTS, lambda kernel, bias, _: (kernel, bias)),
        report=graph_function(tf, SUMS, SUMS, lambda *sums: sums),
        update=graph_function(tf, [*STATE, *SUMS], [*STATE, *METRICS], update),
        state=specs(STATE),
        sums=specs(SUMS),
        metrics=specs(METRICS),
    )


def evaluation_part(tf: Any) -> ServerPart:
    def update(correct: Any, count: Any, more: Any, of: Any) -> Any:
        total, all_of = correct + more, count + of
        this_round = more / tf.cast(of, tf.float32)
        return total, all_of, this_round, total / tf.cast(all_of, tf.float32)

    return ServerPart(
        prepare=graph_function(tf, COUNTS, COUNTS, lambda *state: state),
        report=graph_function(tf, COUNTS, COUNTS, lambda *sums: sums),
        update=graph_function(tf, [*COUNTS, *COUNTS], [*COUNTS, *ACCURACY], update),
        state=specs(COUNTS),
        sums=specs(COUNTS),
        metrics=specs(ACCURACY),
    )


def weights() -> Mapping[str, np.ndarray]:
    return {
        "kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
        "bias": np.array([1, 2, 3], np.float32),
    }


def plan(training: ServerPart, evaluation: ServerPart) -> bytes:
    start = weights()
    state = {"model/0": start["kernel"], "model/1": start["bias"], "rounds": np.int64(0)}
    return write_archive(
        variants=[DevicePart(manifest=PlanManifest(name="tiny"), graph=b"a graph for devices")],
        training=training,
        evaluation=evaluation,
        initial_state=encode({name: np.asarray(value) for name, value in state.items()}),
        initial_checkpoint=encode(start),
        checks={},
        schedule={},
    )


if __name__ == "__main__":
    import tensorflow

    Path(sys.argv[1]).write_bytes(plan(training_part(tensorflow), evaluation_part(tensorflow)))
