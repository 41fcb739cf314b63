"""TFF's simulation of the digits task on the fixed cohorts, with nothing of ours in between.

    python -m tests.equality.simulation DIRECTORY

reads DIRECTORY/initial.safetensors, the author's weights before round 1, and
writes DIRECTORY/tff.json, the metrics, and DIRECTORY/tff-N.safetensors, the
weights after round N. It ends without waiting for the executors that TFF
leaves running.
"""

import json
import os
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import tensorflow as tf
import tensorflow_federated as tff

from examples.digits_task import process_fn
from tests.equality.cohorts import (
    BATCH_SIZE,
    COHORTS,
    EPOCHS,
    HELD_OUT_DEVICES,
    Examples,
    contributors,
    held_out_examples,
    training_examples,
)
from tflite_models import digits


def dataset(examples: Examples, *, epochs: int = 1) -> Any:
    """Batches of consecutive examples, the last of each epoch smaller."""
    rows = OrderedDict((name, examples[name]) for name in ("x", "y"))
    return tf.data.Dataset.from_tensor_slices(rows).batch(BATCH_SIZE).repeat(epochs)


def numbers(metrics: Any) -> dict[str, float]:
    return {name: float(np.asarray(value)) for name, value in metrics.items()}


def simulate(directory: Path) -> None:
    names = [variable.name.removesuffix(":0") for variable in digits.model_fn().trainable_variables]
    initial = safetensors.numpy.load_file(directory / "initial.safetensors")
    process = process_fn(digits.model_fn)
    evaluation = tff.learning.algorithms.build_fed_eval(digits.model_fn)
    held_out = [dataset(held_out_examples(device)) for device in range(len(HELD_OUT_DEVICES))]

    def evaluated(weights: Any) -> dict[str, float]:
        state = evaluation.set_model_weights(evaluation.initialize(), weights)
        measured = evaluation.next(state, held_out).metrics["client_work"]["eval"]
        return numbers(measured["current_round_metrics"])

    state = process.set_model_weights(
        process.initialize(),
        tff.learning.models.ModelWeights([initial[name] for name in names], []),
    )
    training = []
    evaluations = {0: evaluated(process.get_model_weights(state))}
    for number in range(1, len(COHORTS) + 1):
        cohort = [
            dataset(training_examples(device), epochs=EPOCHS) for device in contributors(number)
        ]
        output = process.next(state, cohort)
        state = output.state
        training.append(numbers(output.metrics["client_work"]["train"]))
        weights = process.get_model_weights(state)
        safetensors.numpy.save_file(
            {name: np.asarray(w) for name, w in zip(names, weights.trainable, strict=True)},
            directory / f"tff-{number}.safetensors",
        )
    evaluations[len(COHORTS)] = evaluated(process.get_model_weights(state))
    (directory / "tff.json").write_text(
        json.dumps({"training": training, "evaluations": evaluations})
    )


if __name__ == "__main__":
    simulate(Path(sys.argv[1]))
    os._exit(0)
