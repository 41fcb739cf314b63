"""Writes a plan from TFF's own MapReduceForm, and what TFF itself computes with that process.

Run as a program: it needs TensorFlow Federated, and ends without waiting for
the executors that TFF leaves running.
"""

import collections
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from device_plan.archive import DevicePart, write_archive
from device_plan.checkpoint import encode
from device_plan.plan_pb2 import Binding, GraphFunction, PlanManifest, ServerPart, TensorSpec

ROUNDS = 3
CLIENTS = 4


def graph_function(tf: Any, computation: Any, inputs: str, outputs: str) -> GraphFunction:
    """TFF's block as it is; its tensors are named inputs/0, inputs/1, … and outputs/0, …"""
    proto = computation.to_building_block().proto.tensorflow
    graph_def = tf.compat.v1.GraphDef()
    proto.graph_def.Unpack(graph_def)
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name="")

    def bindings(binding: Any, name: str) -> list[Binding]:
        tensors = [graph.get_tensor_by_name(t) for t in tensor_names(binding)]
        return [
            Binding(
                spec=TensorSpec(
                    name=f"{name}/{i}", dtype=tensor.dtype.name, shape=tensor.shape.as_list()
                ),
                tensor=tensor.name,
            )
            for i, tensor in enumerate(tensors)
        ]

    return GraphFunction(
        graph_def=graph_def.SerializeToString(),
        initialize_op=proto.initialize_op,
        inputs=bindings(proto.parameter, inputs),
        outputs=bindings(proto.result, outputs),
    )


def tensor_names(binding: Any) -> list[str]:
    if binding.WhichOneof("binding") == "struct":
        return [name for element in binding.struct.element for name in tensor_names(element)]
    return [binding.tensor.tensor_name]


def specs(bindings: Any, name: str) -> list[TensorSpec]:
    listed = [TensorSpec() for _ in bindings]
    for index, (spec, binding) in enumerate(zip(listed, bindings, strict=True)):
        spec.CopyFrom(binding.spec)
        spec.name = f"{name}/{index}"
    return listed


def server_part(tf: Any, form: Any, metrics: list[str]) -> ServerPart:
    prepare = graph_function(tf, form.prepare, "state", "checkpoint")
    report = graph_function(tf, form.report, "sum", "reported")
    update = graph_function(tf, form.update, "input", "output")
    states = len(prepare.inputs)
    named = specs(update.outputs[states:], "metric")
    for spec, name in zip(named, metrics, strict=True):
        spec.name = name
    return ServerPart(
        prepare=prepare,
        report=report,
        update=update,
        state=specs(update.inputs[:states], "state"),
        sums=specs(report.inputs, "sum"),
        metrics=named,
    )


def write(directory: Path) -> None:
    import tensorflow as tf
    import tensorflow_federated as tff

    def model_fn() -> Any:
        return tff.learning.models.from_keras_model(
            tf.keras.Sequential(
                [
                    tf.keras.Input((8,)),
                    tf.keras.layers.Dense(5, activation="tanh"),
                    tf.keras.layers.Dense(3),
                ]
            ),
            input_spec=collections.OrderedDict(
                x=tf.TensorSpec((None, 8)), y=tf.TensorSpec((None,), tf.int32)
            ),
            loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=[tf.keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        )

    def leaves(value: Any, prefix: str) -> dict[str, np.ndarray]:
        flat = tff.structure.flatten(tff.structure.from_container(value, recursive=True))
        return {f"{prefix}/{i}": np.asarray(leaf) for i, leaf in enumerate(flat)}

    process = tff.learning.algorithms.build_weighted_fed_avg(
        model_fn,
        tff.learning.optimizers.build_sgdm(0.1),
        tff.learning.optimizers.build_adam(0.05),
    )
    evaluation = tff.learning.algorithms.build_fed_eval(model_fn)
    form = tff.backends.mapreduce.get_map_reduce_form_for_computation(process.next)
    eval_form = tff.backends.mapreduce.get_map_reduce_form_for_computation(evaluation.next)
    random = np.random.default_rng(3)
    clients = [
        tf.data.Dataset.from_tensor_slices(
            collections.OrderedDict(
                x=random.normal(size=(n, 8)).astype(np.float32),
                y=random.integers(0, 3, size=n).astype(np.int32),
            )
        ).batch(4)
        for n in range(5, 5 + CLIENTS)
    ]

    def added(a_form: Any, state: Any) -> dict[str, np.ndarray]:
        """What the aggregators add up natively: the first element of each client's work."""
        updates = [leaves(a_form.work(c, a_form.prepare(state))[0], "sum") for c in clients]
        return {
            name: np.asarray(sum(update[name] for update in updates), updates[0][name].dtype)
            for name in updates[0]
        }

    names = [f"train/{m}" for m in ("accuracy", "loss", "num_examples", "num_batches")]
    measured = [
        f"client_work/eval/{which}/{m}"
        for which in ("current_round_metrics", "total_rounds_metrics")
        for m in ("accuracy", "loss", "num_examples", "num_batches")
    ]
    state = process.initialize()
    plan = write_archive(
        variants=[DevicePart(manifest=PlanManifest(name="tff"), graph=b"a graph for devices")],
        training=server_part(tf, form, [*names, "finalizer/update_non_finite"]),
        evaluation=server_part(tf, eval_form, measured),
        initial_state=encode(leaves(state, "state")),
        initial_checkpoint=encode(leaves(form.prepare(state), "checkpoint")),
        checks={},
        schedule={},
    )
    (directory / "tff.plan").write_bytes(plan)
    for number in range(1, ROUNDS + 1):
        (directory / f"sums{number}").write_bytes(encode(added(form, state)))
        output = process.next(state, clients)
        state = output.state
        (directory / f"state{number}").write_bytes(encode(leaves(state, "state")))
        train = output.metrics["client_work"]["train"]
        (directory / f"train{number}").write_bytes(
            encode({f"train/{name}": np.asarray(value) for name, value in train.items()})
        )
    eval_state = evaluation.set_model_weights(
        evaluation.initialize(), process.get_model_weights(state)
    )
    (directory / "eval_sums").write_bytes(encode(added(eval_form, eval_state)))
    metrics = evaluation.next(eval_state, clients).metrics["client_work"]["eval"]
    current = metrics["current_round_metrics"]
    (directory / "eval").write_bytes(encode({n: np.asarray(v) for n, v in current.items()}))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
    os._exit(0)
