"""Small tasks to build plans from, by what is peculiar about them."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
import tensorflow_federated as tff

from device_plan.cohort import CohortPolicy
from device_plan.task import ExampleSelector, FederatedTask

FEATURES = 6
CLASSES = 4
X = tf.TensorSpec([None, FEATURES], tf.float32)
Y = tf.TensorSpec([None], tf.int64)

Optimizers = tff.learning.optimizers
Algorithms = tff.learning.algorithms


def network(*activations: Any, outputs: int = CLASSES) -> Callable[[], Any]:
    """A function that makes a dense network with one layer of 8 units per activation."""
    layers = tf.keras.layers

    def make() -> Any:
        return tf.keras.Sequential(
            [
                layers.InputLayer((FEATURES,)),
                *[layers.Dense(8, activation=activation) for activation in activations],
                layers.Dense(outputs),
            ]
        )

    return make


def model_fn(
    make: Callable[[], Any],
    *,
    loss: Callable[[], Any] = lambda: tf.keras.losses.SparseCategoricalCrossentropy(
        from_logits=True
    ),
    x: Any = X,
    y: Any = Y,
    metrics: Callable[[], Sequence[Any]] = tuple,
) -> Callable[[], Any]:
    def make_model() -> Any:
        return tff.learning.models.from_keras_model(
            make(), loss=loss(), input_spec=OrderedDict(x=x, y=y), metrics=list(metrics())
        )

    return make_model


def fed_avg(model: Any) -> Any:
    return Algorithms.build_weighted_fed_avg(
        model, Optimizers.build_sgdm(0.1), Optimizers.build_sgdm(1.0)
    )


def task(
    model: Callable[[], Any] | None = None,
    process_fn: Callable[[Any], Any] = fed_avg,
    **changes: Any,
) -> FederatedTask:
    settings: dict[str, Any] = {
        "name": "small",
        "population": "small/test",
        "model_fn": model or model_fn(network("relu")),
        "process_fn": process_fn,
        "batch_size": 4,
        "epochs": 2,
        "examples": ExampleSelector(collection="rows", max_examples=50),
        "cohort": CohortPolicy(goal_count=2),
        "rounds": 1,
    }
    return FederatedTask(**{**settings, **changes})


class LargestOfAll(tff.aggregators.UnweightedAggregationFactory):
    """An aggregator that is no sum: the elementwise maximum."""

    def create(self, value_type: Any) -> Any:
        @tff.federated_computation
        def initialize() -> Any:
            return tff.federated_value((), tff.SERVER)

        @tff.tensorflow.computation
        def zero() -> Any:
            return tf.nest.map_structure(lambda t: tf.zeros(t.shape, t.dtype), _specs(value_type))

        @tff.tensorflow.computation(value_type, value_type)
        def largest(left: Any, right: Any) -> Any:
            return tf.nest.map_structure(tf.maximum, left, right)

        @tff.tensorflow.computation(value_type)
        def identity(value: Any) -> Any:
            return value

        @tff.federated_computation(
            initialize.type_signature.result, tff.FederatedType(value_type, tff.CLIENTS)
        )
        def compute(state: Any, value: Any) -> Any:
            result = tff.federated_aggregate(value, zero(), largest, largest, identity)
            return tff.templates.MeasuredProcessOutput(
                state, result, tff.federated_value((), tff.SERVER)
            )

        return tff.templates.AggregationProcess(initialize, compute)


def _specs(value_type: Any) -> list[Any]:
    return [tf.TensorSpec(t.shape, t.dtype) for t in tff.structure.flatten(value_type)]
