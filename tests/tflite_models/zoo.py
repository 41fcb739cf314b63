"""The models of the zoo as tests need them: with their data, and trained by TensorFlow alone."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tflite_models import activity, digits, emnist, next_word, ranking, shakespeare
from tflite_models.data import activity as activity_data
from tflite_models.data import digits as digits_data
from tflite_models.data import emnist as emnist_data
from tflite_models.data import next_word as next_word_data
from tflite_models.data import ranking as ranking_data
from tflite_models.data import shakespeare as shakespeare_data
from tflite_models.data.federated_data import Features, FederatedData, draw, pool


@dataclass(frozen=True)
class Model:
    make: Callable[[], Any]
    data: Callable[[], FederatedData]
    sample: Callable[[np.random.Generator, int], Features]


MODELS = {
    "digits": Model(digits.model_fn, digits_data.scans, digits_data.sample),
    "emnist": Model(emnist.model_fn, emnist_data.synthetic, emnist_data.sample),
    "next word": Model(
        next_word.model_fn, lambda: next_word_data.synthetic()[0], next_word_data.sample
    ),
    "shakespeare": Model(shakespeare.model_fn, shakespeare_data.speeches, shakespeare_data.sample),
    "ranking, deep": Model(ranking.deep_model_fn, ranking_data.synthetic, ranking_data.sample),
    "ranking, logistic": Model(
        ranking.logistic_model_fn, ranking_data.synthetic, ranking_data.sample
    ),
    "activity": Model(activity.model_fn, activity_data.synthetic, activity_data.sample),
}


def batch(features: Mapping[str, np.ndarray]) -> OrderedDict[str, Any]:
    """Features by their flat names, nested as the model's input_spec is."""
    nested = OrderedDict(
        (name.removeprefix("x/"), value) for name, value in features.items() if name != "y"
    )
    x = nested.get("x", nested)
    return OrderedDict(x=x, y=features["y"])


def train(
    model: Any, data: FederatedData, *, steps: int, batch_size: int, learning_rate: float
) -> dict[str, float]:
    """The metrics on held-out devices after steps of Adam on everybody else's examples."""
    import tensorflow as tf

    optimizer = tf.keras.optimizers.legacy.Adam(learning_rate)

    @tf.function
    def step(examples: Any) -> None:
        with tf.GradientTape() as tape:
            loss = model.forward_pass(examples).loss
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))

    tf.random.set_seed(0)
    rng = np.random.default_rng(0)
    for _ in range(steps):
        step(batch(draw(data.clients, rng, batch_size)))
    return evaluate(model, batch(pool(data.held_out.values())))


def evaluate(model: Any, examples: Any) -> dict[str, float]:
    """The model's metrics on one batch."""
    model.reset_metrics()
    model.forward_pass(examples, training=False)
    return {metric.name: float(metric.result()) for metric in model.get_metrics()}
