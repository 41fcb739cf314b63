"""Small models of every layer, loss and algorithm learn on the device as in TFF.

What runs always are models that have many layers each; a case for every single
one is slow. Both go through the compiler as an author's task does: the reference is
TFF's own execution of the client's work.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from device_plan.matrix.case import MAX_DIFFERENCE
from tests.tflite_models import layer_cases, learning_cases, sequence_cases
from tests.tflite_models.case import IMAGE, SERIES, TOKENS, Feature, LayerCase, graph, stack
from tests.tflite_models.learning_cases import BINARY, DISTRIBUTION, ONE

#: A build is seconds of work, and minutes where the machine has other work.
pytestmark = pytest.mark.timeout(600)

GROUPS = {**layer_cases.GROUPS, **sequence_cases.GROUPS, **learning_cases.GROUPS}
CASES = {case.name: case for made in GROUPS.values() for case in made()}


def averaging(client: Any, **options: Any) -> Any:
    """Weighted averaging; the client's optimizer and the options are made from tff."""

    def process(tff: Any, model_fn: Any) -> Any:
        return tff.learning.algorithms.build_weighted_fed_avg(
            model_fn,
            client_optimizer_fn=client(tff.learning.optimizers),
            **{name: make(tff) for name, make in options.items()},
        )

    return process


def combined() -> Iterator[LayerCase]:
    yield LayerCase(
        name="convolutions, batch normalization and pooling",
        x=IMAGE,
        network=stack(
            lambda k: [
                k.Conv2D(4, 3, strides=2, padding="same", use_bias=False),
                k.BatchNormalization(),
                k.ReLU(),
                k.DepthwiseConv2D(3, padding="same"),
                k.MaxPooling2D(2),
                k.GlobalAveragePooling2D(),
            ]
        ),
    )
    yield LayerCase(
        name="dilated, separable and transposed convolutions with momentum",
        x=IMAGE,
        network=stack(
            lambda k: [
                k.Conv2D(4, 3, dilation_rate=2, activation="tanh"),
                k.SeparableConv2D(4, 3, padding="same"),
                k.GroupNormalization(2),
                k.Conv2DTranspose(2, 3, strides=2, padding="same", activation="elu"),
                k.AveragePooling2D(3, 2, padding="same"),
                k.SpatialDropout2D(0.2),
            ]
        ),
        y=DISTRIBUTION,
        loss=lambda tf: tf.keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=lambda tf: [tf.keras.metrics.CategoricalAccuracy()],
        process=averaging(lambda made: made.build_sgdm(0.1, 0.9)),
    )
    yield LayerCase(
        name="sequences with Adam, clipped and zeroed",
        x=SERIES,
        network=stack(
            lambda k: [
                k.Conv1D(4, 3, padding="causal", dilation_rate=2, activation="relu"),
                k.MaxPooling1D(2),
                k.LayerNormalization(),
                k.LSTM(4, return_sequences=True, dropout=0.2),
                k.GRU(3, unroll=True),
            ]
        ),
        process=averaging(
            lambda made: made.build_adam(0.01),
            model_aggregator=lambda tff: tff.learning.robust_aggregator(),
        ),
    )
    yield LayerCase(
        name="masked words, both ways, label at each place",
        x=TOKENS,
        y=Feature((6,), 5),
        network=stack(
            lambda k: [
                k.Embedding(20, 4, mask_zero=True),
                k.Bidirectional(k.GRU(3, return_sequences=True)),
                k.SimpleRNN(4, return_sequences=True),
            ],
            head=lambda k: [k.Dense(5)],
        ),
        process=averaging(lambda made: made.build_adagrad(0.05)),
    )
    yield LayerCase(
        name="activations one after another, Huber loss, RMSprop",
        network=stack(
            lambda k: [
                *(k.Dense(5, name) for name in ("elu", "gelu", "selu", "softplus", "softsign")),
                *(k.Dense(5, name) for name in ("swish", "hard_sigmoid", "mish", "softmax")),
                k.LeakyReLU(),
                k.PReLU("random_uniform"),
            ],
            head=lambda k: [k.Dense(1)],
        ),
        y=ONE,
        loss=lambda tf: tf.keras.losses.Huber(0.5),
        metrics=lambda tf: [tf.keras.metrics.MeanAbsoluteError()],
        process=averaging(lambda made: made.build_rmsprop(0.01)),
    )
    yield LayerCase(
        name="merges, slices and two inputs, Yogi on both sides",
        x={"item": Feature((), 20), "series": SERIES},
        y=BINARY,
        network=graph(_merges, outputs=1),
        loss=lambda tf: tf.keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=lambda tf: [tf.keras.metrics.BinaryAccuracy()],
        process=averaging(
            lambda made: made.build_yogi(0.01),
            server_optimizer_fn=lambda tff: tff.learning.optimizers.build_yogi(0.1),
        ),
    )
    yield LayerCase(
        name="attention with the term of FedProx",
        x=TOKENS,
        network=CASES["transformer block"].network,
        process=lambda tff, model_fn: tff.learning.algorithms.build_weighted_fed_prox(
            model_fn, 0.5, tff.learning.optimizers.build_sgdm(0.1)
        ),
    )


def _merges(k: Any, item: Any, series: Any) -> Any:
    embedded = k.Embedding(20, 4)(item)
    summary = k.Dense(4, "tanh")(series)[:, 1::2]
    summary = k.Concatenate()([k.Flatten()(summary[:, ::-1]), series[:, -1]])
    gate = k.Multiply()([k.Dense(4, "sigmoid")(summary), embedded])
    return k.Maximum()(
        [k.Add()([gate, embedded]), k.Reshape((4,))(k.Permute((2, 1))(gate[:, None]))]
    )


COMBINED = [
    *combined(),
    *(
        CASES[name]
        for name in (
            "sample weights",
            "subclassed model",
            "FedSGD",
            "learning-rate schedule",
            "unweighted federated averaging",
            "functional model, written by hand, with example weights",
        )
    ),
]


def assert_learns_as_in_tff(case: LayerCase) -> None:
    from device_plan.compiler.build import build_plan

    plan = build_plan(case.task(), simulate=False)
    assert not [check.summary for check in plan.checks if not check.passed]
    equality = {c.name: c.figures["median"] for c in plan.checks if "equality" in c.name}
    assert {
        "equality: one batch",
        "equality: a partial last batch",
        f"equality: {case.epochs} epochs",
        "equality: evaluation, one batch",
        "equality: evaluation, summed over batches",
    } <= set(equality)
    assert max(equality.values()) <= MAX_DIFFERENCE


@pytest.mark.parametrize("case", COMBINED, ids=lambda case: case.name)
def test_a_model_of_many_layers_learns_on_the_device_as_in_tff(case: LayerCase) -> None:
    assert_learns_as_in_tff(case)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES.values(), ids=lambda case: case.name)
def test_every_layer_learns_on_the_device_as_in_tff(case: LayerCase) -> None:
    assert_learns_as_in_tff(case)


def test_every_case_has_a_name_of_its_own() -> None:
    assert len(CASES) == sum(len(list(made())) for made in GROUPS.values())
