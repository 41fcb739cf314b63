"""What a layer case is: a small model and how it learns, made into a federated task.

TensorFlow and TFF are imported when a task is made, not with this module.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from device_plan.cohort import CohortPolicy
from device_plan.task import ExampleSelector, FederatedTask

#: Classes that the models tell apart.
CLASSES = 4


@dataclass(frozen=True)
class Feature:
    """One tensor of an example.

    Attributes:
        shape: Of one example's.
        high: Of whole numbers, one more than the largest; the smallest is 0.
        values: What its entries are. "distribution" adds up to 1 along the last side.
    """

    shape: tuple[int, ...]
    high: int = 0
    values: Literal["normal", "binary", "distribution"] = "normal"

    @property
    def dtype(self) -> str:
        return "int32" if self.high else "float32"

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        shape = (count, *self.shape)
        if self.high:
            return rng.integers(0, self.high, shape).astype(np.int32)
        if self.values == "binary":
            return rng.integers(0, 2, shape).astype(np.float32)
        if self.values == "distribution":
            return rng.dirichlet(np.ones(shape[-1]), shape[:-1]).astype(np.float32)
        return rng.standard_normal(shape, dtype=np.float32)


VECTOR = Feature((6,))
SERIES = Feature((8, 3))
IMAGE = Feature((8, 8, 2))
TOKENS = Feature((6,), 20)
LABEL = Feature((), CLASSES)

#: What a model takes, or a loss: one tensor, or several by name.
Input: TypeAlias = Feature | Mapping[str, Feature]

#: Given tf and the input, a new tf.keras.Model.
Network: TypeAlias = Callable[[Any, Input], Any]

#: Given tff and the model function, a learning process.
Process: TypeAlias = Callable[[Any, Any], Any]


def stack(
    body: Callable[[Any], list[Any]], *, head: Callable[[Any], list[Any]] | None = None
) -> Network:
    """A Sequential model.

    Args:
        body: Given tf.keras.layers, the layers after the input.
        head: Likewise, the last ones; None: what makes logits of the classes.
    """

    def network(tf: Any, x: Input) -> Any:
        layers = tf.keras.layers
        assert isinstance(x, Feature)
        model = tf.keras.Sequential([layers.InputLayer(x.shape, dtype=x.dtype), *body(layers)])
        for layer in (head or _logits(model.output))(layers):
            model.add(layer)
        return model

    return network


def graph(body: Callable[..., Any], *, outputs: int = CLASSES) -> Network:
    """A functional model.

    Args:
        body: Given tf.keras.layers and the symbolic input (by name, if there are several),
            what the last layer takes.
        outputs: Units of the last layer.
    """

    def network(tf: Any, x: Input) -> Any:
        layers = tf.keras.layers
        if isinstance(x, Feature):
            inputs = layers.Input(x.shape, dtype=x.dtype)
            hidden = body(layers, inputs)
        else:
            inputs = {
                name: layers.Input(f.shape, dtype=f.dtype, name=name) for name, f in x.items()
            }
            hidden = body(layers, **inputs)
        for layer in _logits(hidden, outputs)(layers):
            hidden = layer(hidden)
        return tf.keras.Model(inputs, hidden)

    return network


def _logits(hidden: Any, outputs: int = CLASSES) -> Callable[[Any], list[Any]]:
    flat = hidden.shape.rank == 2
    return lambda k: [*([] if flat else [k.Flatten()]), k.Dense(outputs)]


def averaging(tff: Any, model_fn: Any) -> Any:
    """Weighted federated averaging with plain SGD."""
    return tff.learning.algorithms.build_weighted_fed_avg(
        model_fn,
        client_optimizer_fn=tff.learning.optimizers.build_sgdm(0.1),
        server_optimizer_fn=tff.learning.optimizers.build_sgdm(1.0),
    )


def cross_entropy(tf: Any) -> Any:
    return tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def accuracy(tf: Any) -> list[Any]:
    return [tf.keras.metrics.SparseCategoricalAccuracy(name="accuracy")]


#: No layer but the last.
LINEAR = stack(lambda _: [])


@dataclass(frozen=True, kw_only=True)
class LayerCase:
    """A small model and how it learns.

    Attributes:
        name: As the documentation shows it.
        network: Makes the Keras model.
        x, y: Its input and its label.
        loss, metrics, process: As `Network`.
        batch_size, epochs: Of a session.
        functional: Given tff, tf and the case, a tff.learning.models.FunctionalModel, instead
            of a model of network, loss and metrics.
    """

    name: str
    network: Network = LINEAR
    x: Input = VECTOR
    y: Input = LABEL
    loss: Callable[[Any], Any] = cross_entropy
    metrics: Callable[[Any], list[Any]] = accuracy
    process: Process = averaging
    batch_size: int = 4
    epochs: int = 2
    functional: Callable[[Any, Any, "LayerCase"], Any] | None = None

    def task(self) -> FederatedTask:
        """A task that trains the model by the process."""
        return FederatedTask(
            name=self.name,
            population="layers",
            model_fn=self.model_fn if self.functional is None else self._functional_fn(),
            process_fn=self.process_fn,
            batch_size=self.batch_size,
            epochs=self.epochs,
            examples=ExampleSelector(collection="examples"),
            cohort=CohortPolicy(goal_count=2),
            rounds=1,
            sample_fn=self.sample,
        )

    def model_fn(self) -> Any:
        import tensorflow as tf
        import tensorflow_federated as tff

        return tff.learning.models.from_keras_model(
            self.network(tf, self.x),
            loss=self.loss(tf),
            input_spec=self.input_spec(tf),
            metrics=self.metrics(tf),
        )

    def _functional_fn(self) -> Callable[[], Any]:
        import tensorflow as tf
        import tensorflow_federated as tff

        assert self.functional is not None
        # TFF makes it eagerly, out of any graph, and all models share it.
        model = self.functional(tff, tf, self)
        return lambda: tff.learning.models.model_from_functional(model)

    def process_fn(self, model_fn: Any) -> Any:
        import tensorflow_federated as tff

        return self.process(tff, model_fn)

    def features(self) -> OrderedDict:
        """Nested as the input_spec."""
        return OrderedDict(
            (name, OrderedDict(part) if isinstance(part, Mapping) else part)
            for name, part in (("x", self.x), ("y", self.y))
        )

    def input_spec(self, tf: Any) -> Any:
        return tf.nest.map_structure(
            lambda f: tf.TensorSpec((None, *f.shape), f.dtype), self.features()
        )

    def sample(self, rng: np.random.Generator, count: int) -> Any:
        def draw(feature: Any) -> Any:
            if isinstance(feature, Mapping):
                return OrderedDict((name, draw(part)) for name, part in feature.items())
            return feature.draw(rng, count)

        return draw(self.features())
