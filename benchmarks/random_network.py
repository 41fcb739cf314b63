"""Small Keras models drawn at random from the layers that convert.

A model is a chain of steps. Each step is drawn among those that the rank of what
there is so far allows, with sizes that fit it. All draws of a model come from one
generator, so (seed, number) says which model it is, however often it is made.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.random_steps import KEEPING_TIME, STEPS, Draw, flattened, recurrent
from tests.tflite_models.case import Feature, Input, LayerCase

#: Most entries that one example has anywhere in a model.
MOST = 1500


def random_case(seed: int, number: int) -> LayerCase:
    """The model of that number among those of a seed, and how it learns."""
    rng = np.random.default_rng([seed, number])
    x = _input(rng)
    loss = str(rng.choice(sorted(_LOSSES)))
    y, outputs, last = _LABELS[loss]
    along_time = loss == "sparse logits" and _rank(x) == 3 and rng.random() < 0.3
    draws = int(rng.integers(2**31))

    def network(tf: Any, x: Input) -> Any:
        return random_model(tf, x, draws, outputs, last, along_time=along_time)[0]

    if along_time:
        assert isinstance(x, Feature)
        y = Feature((x.shape[0],), outputs)
    optimizer = str(rng.choice(sorted(_OPTIMIZERS)))
    proximal = float(rng.choice([0.0, 0.0, 0.0, 0.1]))
    return LayerCase(
        name=f"{loss}, {optimizer}{', FedProx' if proximal else ''}",
        network=network,
        x=x,
        y=y,
        loss=_LOSSES[loss],
        metrics=lambda _: [],
        process=_process(optimizer, proximal),
        batch_size=int(rng.integers(2, 7)),
        epochs=2,
    )


def description(case: LayerCase) -> str:
    """The model's steps, one after another."""
    import tensorflow as tf

    model = case.network(tf, case.x)
    return " > ".join([*model.drawn_steps, case.name])


def _input(rng: np.random.Generator) -> Feature:
    kind = rng.integers(4)
    if kind == 0:
        return Feature((int(rng.integers(3, 11)),))
    if kind == 1:
        return Feature((int(rng.integers(4, 10)), int(rng.integers(2, 5))))
    if kind == 2:
        return Feature(
            (int(rng.integers(5, 11)), int(rng.integers(5, 11)), int(rng.integers(1, 4)))
        )
    return Feature((int(rng.integers(4, 9)),), int(rng.integers(8, 40)))


def _rank(x: Feature) -> int:
    return 3 if x.high else 1 + len(x.shape)


def random_model(
    tf: Any, x: Input, seed: int, outputs: int, last: str | None, *, along_time: bool
) -> tuple[Any, list[str]]:
    """A tf.keras.Model.

    Args:
        x: Its input.
        seed: Of all its choices.
        outputs: Size of the last dimension.
        last: The last layer's activation.
        along_time: Whether there is an output at each place of a sequence.
    """
    assert isinstance(x, Feature)
    draw = Draw(np.random.default_rng(seed), tf, [f"input {x.dtype} {list(x.shape)}"])
    inputs = draw.k.Input(x.shape, dtype=x.dtype)
    hidden = inputs
    if x.high:
        masked = draw.chance(0.3)
        options = {"mask_zero": True} if masked else {}
        hidden = draw.layer("Embedding", x.high, draw.size(2, 6), **options)(hidden)
        if masked:
            # Few layers pass a mask on; what consumes it follows at once.
            hidden = recurrent(draw, hidden, sequences=along_time)
    for _ in range(draw.size(1, 5)):
        steps = KEEPING_TIME if along_time else STEPS[hidden.shape.rank]
        hidden = steps[draw.size(0, len(steps) - 1)](draw, hidden)
        if int(np.prod(hidden.shape[1:])) > MOST:
            hidden = draw.layer("Flatten")(hidden) if not along_time else hidden
            hidden = draw.layer("Dense", draw.size(3, 8))(hidden)
    if hidden.shape.rank > 2 and not along_time:
        hidden = flattened(draw, hidden)
    hidden = draw.layer("Dense", outputs, activation=last)(hidden)
    model = tf.keras.Model(inputs, hidden)
    model.drawn_steps = draw.steps
    return model, draw.steps


_LOSSES: dict[str, Callable[[Any], Any]] = {
    "sparse logits": lambda tf: tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    "sparse": lambda tf: tf.keras.losses.SparseCategoricalCrossentropy(),
    "categorical": lambda tf: tf.keras.losses.CategoricalCrossentropy(from_logits=True),
    "binary": lambda tf: tf.keras.losses.BinaryCrossentropy(from_logits=True),
    "squared error": lambda tf: tf.keras.losses.MeanSquaredError(),
    "absolute error": lambda tf: tf.keras.losses.MeanAbsoluteError(),
    "Huber": lambda tf: tf.keras.losses.Huber(),
}

#: For each loss the label, the size of the model's output and its activation.
_LABELS: dict[str, tuple[Feature, int, str | None]] = {
    "sparse logits": (Feature((), 5), 5, None),
    "sparse": (Feature((), 5), 5, "softmax"),
    "categorical": (Feature((5,), values="distribution"), 5, None),
    "binary": (Feature((1,), values="binary"), 1, None),
    "squared error": (Feature((2,)), 2, None),
    "absolute error": (Feature((2,)), 2, None),
    "Huber": (Feature((2,)), 2, None),
}

_OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "SGD": lambda made: made.build_sgdm(0.05),
    "momentum": lambda made: made.build_sgdm(0.05, 0.9),
    "Adam": lambda made: made.build_adam(0.01),
    "Adagrad": lambda made: made.build_adagrad(0.01),
    "RMSprop": lambda made: made.build_rmsprop(0.01),
    "Yogi": lambda made: made.build_yogi(0.01),
}


def _process(optimizer: str, proximal: float) -> Callable[[Any, Any], Any]:
    def process(tff: Any, model_fn: Any) -> Any:
        client = _OPTIMIZERS[optimizer](tff.learning.optimizers)
        if proximal:
            return tff.learning.algorithms.build_weighted_fed_prox(model_fn, proximal, client)
        return tff.learning.algorithms.build_weighted_fed_avg(model_fn, client)

    return process
