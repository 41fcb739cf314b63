"""Small models, one for each loss, client optimizer and learning algorithm that converts."""

from collections.abc import Callable, Iterator
from typing import Any

from tests.tflite_models.case import CLASSES, VECTOR, Feature, LayerCase, stack

ONE = Feature((1,))
BINARY = Feature((1,), values="binary")
DISTRIBUTION = Feature((CLASSES,), values="distribution")


def _hidden(k: Any) -> list[Any]:
    return [k.Dense(5, activation="tanh")]


def losses() -> Iterator[LayerCase]:
    for name, loss in (
        ("MeanSquaredError", lambda tf: tf.keras.losses.MeanSquaredError()),
        ("MeanAbsoluteError", lambda tf: tf.keras.losses.MeanAbsoluteError()),
        ("Huber", lambda tf: tf.keras.losses.Huber(0.7)),
        ("LogCosh", lambda tf: tf.keras.losses.LogCosh()),
        ("mean squared error, summed", lambda tf: tf.keras.losses.MeanSquaredError("sum")),
    ):
        yield LayerCase(
            name=name,
            network=stack(_hidden, head=lambda k: [k.Dense(1)]),
            y=ONE,
            loss=loss,
            metrics=_regression_metrics,
        )
    for name, loss, last in (
        ("BinaryCrossentropy, logits", lambda tf: _binary(tf, from_logits=True), None),
        ("BinaryCrossentropy", lambda tf: _binary(tf, from_logits=False), "sigmoid"),
        ("Hinge", lambda tf: tf.keras.losses.Hinge(), None),
    ):
        yield LayerCase(
            name=name,
            network=stack(_hidden, head=lambda k, last=last: [k.Dense(1, last)]),
            y=BINARY,
            loss=loss,
            metrics=lambda tf: [tf.keras.metrics.BinaryAccuracy(threshold=0.3)],
        )
    for name, loss, y, last in (
        ("CategoricalCrossentropy, logits", _categorical(from_logits=True), DISTRIBUTION, None),
        ("CategoricalCrossentropy", _categorical(from_logits=False), DISTRIBUTION, "softmax"),
        (
            "CategoricalCrossentropy, smoothed labels",
            _categorical(from_logits=True, label_smoothing=0.1),
            DISTRIBUTION,
            None,
        ),
        (
            "KLDivergence",
            lambda tf: tf.keras.losses.KLDivergence(),
            DISTRIBUTION,
            "softmax",
        ),
        ("CosineSimilarity", lambda tf: tf.keras.losses.CosineSimilarity(), DISTRIBUTION, None),
    ):
        yield LayerCase(
            name=name,
            network=stack(_hidden, head=lambda k, last=last: [k.Dense(CLASSES, last)]),
            y=y,
            loss=loss,
            metrics=lambda tf: [tf.keras.metrics.CategoricalAccuracy()],
        )
    yield LayerCase(
        name="SparseCategoricalCrossentropy, logits",
        network=stack(_hidden),
        metrics=lambda tf: [
            tf.keras.metrics.SparseCategoricalAccuracy(),
            tf.keras.metrics.SparseTopKCategoricalAccuracy(2),
            tf.keras.metrics.SparseCategoricalCrossentropy(from_logits=True),
        ],
    )
    yield LayerCase(
        name="SparseCategoricalCrossentropy",
        network=stack(_hidden, head=lambda k: [k.Dense(CLASSES, "softmax")]),
        loss=lambda tf: tf.keras.losses.SparseCategoricalCrossentropy(),
    )
    yield LayerCase(
        name="SparseCategoricalCrossentropy, along time",
        x=Feature((6,), 20),
        y=Feature((6,), CLASSES),
        network=stack(
            lambda k: [k.Embedding(20, 3), k.GRU(4, return_sequences=True)],
            head=lambda k: [k.Dense(CLASSES)],
        ),
    )
    yield LayerCase(
        name="sample weights",
        network=stack(_hidden),
        # The label and the weight of an example, side by side.
        y=Feature((2,), CLASSES),
        loss=_weighted_loss,
        metrics=lambda _: [],
    )


def _binary(tf: Any, *, from_logits: bool) -> Any:
    return tf.keras.losses.BinaryCrossentropy(from_logits=from_logits)


def _categorical(**options: Any) -> Callable[[Any], Any]:
    return lambda tf: tf.keras.losses.CategoricalCrossentropy(**options)


def _regression_metrics(tf: Any) -> list[Any]:
    return [
        tf.keras.metrics.MeanSquaredError(),
        tf.keras.metrics.MeanAbsoluteError(),
        tf.keras.metrics.RootMeanSquaredError(),
    ]


def _weighted_loss(tf: Any) -> Any:
    cross_entropy = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    class Weighted(tf.keras.losses.Loss):  # type: ignore[misc]
        def call(self, y_true: Any, y_pred: Any) -> Any:
            weights = tf.cast(y_true[:, 1], tf.float32)
            return cross_entropy(y_true[:, 0], y_pred, sample_weight=weights)

    return Weighted()


def client_optimizers() -> Iterator[LayerCase]:
    for name, make in (
        ("SGD", lambda o: o.build_sgdm(0.1)),
        ("SGD with momentum", lambda o: o.build_sgdm(0.1, 0.9)),
        ("Adam", lambda o: o.build_adam(0.01)),
        ("AdamW", lambda o: o.build_adamw(0.01)),
        ("Adagrad", lambda o: o.build_adagrad(0.05)),
        ("RMSprop", lambda o: o.build_rmsprop(0.01)),
        ("Yogi", lambda o: o.build_yogi(0.01)),
    ):
        yield LayerCase(
            name=f"{name} on the client",
            network=stack(_hidden),
            epochs=3,
            process=lambda tff, model_fn, make=make: tff.learning.algorithms.build_weighted_fed_avg(
                model_fn, client_optimizer_fn=make(tff.learning.optimizers)
            ),
        )


def _averaging(name: str, **options: Callable[[Any], Any]) -> LayerCase:
    """A case of weighted averaging whose options are made from tff."""

    def process(tff: Any, model_fn: Any) -> Any:
        made = {option: make(tff) for option, make in options.items()}
        client = tff.learning.optimizers.build_sgdm(0.1)
        return tff.learning.algorithms.build_weighted_fed_avg(
            model_fn, client_optimizer_fn=client, **made
        )

    return LayerCase(name=name, network=stack(_hidden), process=process)


def algorithms() -> Iterator[LayerCase]:
    def client(tff: Any) -> Any:
        return tff.learning.optimizers.build_sgdm(0.1)

    for name, process in (
        (
            "unweighted federated averaging",
            lambda tff, m: tff.learning.algorithms.build_unweighted_fed_avg(m, client(tff)),
        ),
        (
            "FedProx",
            lambda tff, m: tff.learning.algorithms.build_weighted_fed_prox(m, 0.5, client(tff)),
        ),
        (
            "unweighted FedProx",
            lambda tff, m: tff.learning.algorithms.build_unweighted_fed_prox(m, 0.5, client(tff)),
        ),
        ("FedSGD", lambda tff, m: tff.learning.algorithms.build_fed_sgd(m)),
        (
            "learning-rate schedule",
            lambda tff, m: tff.learning.algorithms.build_weighted_fed_avg_with_optimizer_schedule(
                m,
                client_learning_rate_fn=_halved,
                client_optimizer_fn=tff.learning.optimizers.build_sgdm,
                server_optimizer_fn=tff.learning.optimizers.build_sgdm(1.0),
            ),
        ),
    ):
        yield LayerCase(name=name, network=stack(_hidden), process=process)
    yield LayerCase(
        name="FedProx with Adam on a recurrent model",
        x=Feature((6,), 20),
        network=stack(lambda k: [k.Embedding(20, 3), k.LSTM(4)]),
        process=lambda tff, m: tff.learning.algorithms.build_weighted_fed_prox(
            m, 0.5, tff.learning.optimizers.build_adam(0.01)
        ),
    )
    for name, server in (
        ("Adam", lambda tff: tff.learning.optimizers.build_adam(0.01)),
        ("Adagrad", lambda tff: tff.learning.optimizers.build_adagrad(0.1)),
        ("Yogi", lambda tff: tff.learning.optimizers.build_yogi(0.01)),
        ("SGD with momentum", lambda tff: tff.learning.optimizers.build_sgdm(1.0, 0.9)),
    ):
        yield _averaging(f"{name} on the server", server_optimizer_fn=server)
    for name, options in (
        ("zeroing and clipping", {}),
        ("zeroing", {"clipping": False}),
        ("clipping", {"zeroing": False}),
    ):
        yield _averaging(
            f"aggregator: {name}",
            model_aggregator=lambda tff, options=options: tff.learning.robust_aggregator(**options),
        )
    yield _averaging(
        "client weighting: uniform",
        client_weighting=lambda tff: tff.learning.ClientWeighting.UNIFORM,
    )


def _halved(round_number: Any) -> Any:
    import tensorflow as tf

    return 0.1 * tf.pow(0.5, tf.cast(round_number, tf.float32))


def functional_models() -> Iterator[LayerCase]:
    yield LayerCase(name="functional model of a Keras model", functional=_functional_of_keras)
    yield LayerCase(
        name="functional model, written by hand, with example weights",
        y={"value": ONE, "weight": Feature((1,), 3)},
        functional=_functional_by_hand,
    )


def _functional_of_keras(tff: Any, tf: Any, case: LayerCase) -> Any:
    return tff.learning.models.functional_model_from_keras(
        stack(lambda k: [k.Dense(5, "tanh", bias_initializer="ones")])(tf, VECTOR),
        tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        case.input_spec(tf),
    )


def _functional_by_hand(tff: Any, tf: Any, case: LayerCase) -> Any:
    import numpy as np

    rng = np.random.default_rng(0)
    first = rng.standard_normal((6, 5), dtype=np.float32)
    second = rng.standard_normal((5, 1), dtype=np.float32)

    @tf.function
    def predict(weights: Any, x: Any, training: bool = True) -> Any:
        del training
        (first, second), _ = weights
        return tf.tanh(x @ first) @ second

    @tf.function
    def loss(output: Any, label: Any, sample_weight: Any = None) -> Any:
        del sample_weight
        weight = tf.cast(label["weight"], tf.float32)
        return tf.reduce_sum(weight * tf.square(label["value"] - output))

    return tff.learning.models.FunctionalModel(
        initial_weights=((first, second), ()),
        predict_on_batch_fn=predict,
        loss_fn=loss,
        input_spec=case.input_spec(tf),
    )


#: What the documentation's table is divided into.
GROUPS = {
    "losses": losses,
    "client optimizers": client_optimizers,
    "algorithms and aggregators": algorithms,
    "functional models": functional_models,
}
