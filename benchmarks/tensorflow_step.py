"""TensorFlow's own training step, the baseline of `training-steps`, in a process of its own.

    python -m benchmarks.tensorflow_step MODEL WORK

A tf.function of forward pass, backward pass and the update of plain SGD, on one
thread, without metrics, on the first batch of the work directory that `runner` has.
TFF is not imported: a stand-in catches what the model function would give it. The
last line of the output is one JSON object:

    {"import_s", "rss_bytes", "seconds_per_step"}
"""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from types import ModuleType, SimpleNamespace
from typing import Any

from benchmarks import zoo
from device_plan.matrix.runner import FEWEST_CALLS, MOST_CALLS, TIMED_S, WARM_UP, Work, peak_rss


def keras_model(chosen: Any) -> Any:
    """What the task's model function gives to TFF: keras_model, loss, input_spec."""
    caught: dict[str, Any] = {}

    def from_keras_model(keras_model: Any, loss: Any, input_spec: Any, **_: Any) -> None:
        caught.update(keras_model=keras_model, loss=loss, input_spec=input_spec)

    stand_in: Any = ModuleType("tensorflow_federated")
    stand_in.learning = SimpleNamespace(models=SimpleNamespace(from_keras_model=from_keras_model))
    sys.modules["tensorflow_federated"] = stand_in
    chosen.model_fn()
    del sys.modules["tensorflow_federated"]
    return SimpleNamespace(**caught)


def seconds_per_step(tf: Any, name: str, directory: Path) -> float:
    """The median over calls of the step on one full batch."""
    model = keras_model(zoo.task(name))
    network = model.keras_model
    work = Work(directory)
    drawn = work.tensors(work.cases[0]["batches"][0])
    fed = {key: _tensors(tf, part, key, drawn) for key, part in model.input_spec.items()}

    @tf.function
    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = model.loss(y, network(x, training=True))
        weights = network.trainable_variables
        for weight, gradient in zip(weights, tape.gradient(loss, weights), strict=True):
            if isinstance(gradient, tf.IndexedSlices):
                weight.scatter_sub(tf.IndexedSlices(0.01 * gradient.values, gradient.indices))
            else:
                weight.assign_sub(0.01 * gradient)
        return loss

    for _ in range(WARM_UP):
        step(fed["x"], fed["y"])
    taken: list[float] = []
    while len(taken) < FEWEST_CALLS or (len(taken) < MOST_CALLS and sum(taken) < TIMED_S):
        began = time.perf_counter()
        step(fed["x"], fed["y"]).numpy()
        taken.append(time.perf_counter() - began)
    return median(taken)


def _tensors(tf: Any, spec: Any, name: str, drawn: Mapping[str, Any]) -> Any:
    """One of the model's arguments, nested as its spec is."""
    if not isinstance(spec, Mapping):
        return tf.constant(drawn[name])
    return {key: tf.constant(drawn[f"{name}/{key}"]) for key in spec}


def main(name: str, directory: Path) -> None:
    began = time.perf_counter()
    import tensorflow as tf

    import_s = time.perf_counter() - began
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    step = seconds_per_step(tf, name, directory)
    found = {"import_s": import_s, "rss_bytes": peak_rss(), "seconds_per_step": step}
    sys.stdout.write("\n" + json.dumps(found) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
