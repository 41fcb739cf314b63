"""Small Keras models drawn at random from the layers that convert.

A model is a chain of steps. Each step is drawn among those that the rank of what
there is so far allows, with sizes that fit it. All draws of a model come from one
generator, so (seed, number) says which model it is, however often it is made.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.tflite_models.case import Feature, Input, LayerCase

#: Most entries that one example has anywhere in a model.
MOST = 1500
ACTIVATIONS = (
    *("relu", "relu6", "elu", "selu", "gelu", "sigmoid", "tanh", "softplus", "softsign"),
    *("swish", "hard_sigmoid", "exponential", "softmax", "linear", "mish", "leaky_relu"),
)
#: Those that do not let values grow, for layers that feed themselves.
BOUNDED = ("tanh", "sigmoid", "softsign", "hard_sigmoid")


@dataclass
class Draw:
    """One draw of a model: the source of its random choices, and a record of them.

    Attributes:
        rng: Where choices come from.
        tf: TensorFlow.
        steps: What was drawn so far, for people.
    """

    rng: np.random.Generator
    tf: Any
    steps: list[str]

    @property
    def k(self) -> Any:
        return self.tf.keras.layers

    def one_of(self, *choices: Any) -> Any:
        return choices[int(self.rng.integers(len(choices)))]

    def size(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def activation(self) -> Any:
        """A layer, for Keras has no name for some of them."""
        name = self.one_of(*ACTIVATIONS)
        if name == "relu6":
            return self.layer("ReLU", 6.0)
        if name == "leaky_relu":
            return self.layer("LeakyReLU", 0.2)
        return self.layer("Activation", name)

    def layer(self, kind: str, *arguments: Any, **options: Any) -> Any:
        """A new layer, noted."""
        shown = [str(a) for a in arguments] + [f"{key}={value}" for key, value in options.items()]
        self.steps.append(f"{kind}({', '.join(shown)})")
        return getattr(self.k, kind)(*arguments, **options)


Step = Callable[[Draw, Any], Any]


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
            hidden = _recurrent(draw, hidden, sequences=along_time)
    for _ in range(draw.size(1, 5)):
        steps = _KEEPING_TIME if along_time else _STEPS[hidden.shape.rank]
        hidden = steps[draw.size(0, len(steps) - 1)](draw, hidden)
        if int(np.prod(hidden.shape[1:])) > MOST:
            hidden = draw.layer("Flatten")(hidden) if not along_time else hidden
            hidden = draw.layer("Dense", draw.size(3, 8))(hidden)
    if hidden.shape.rank > 2 and not along_time:
        hidden = _flattened(draw, hidden)
    hidden = draw.layer("Dense", outputs, activation=last)(hidden)
    model = tf.keras.Model(inputs, hidden)
    model.drawn_steps = draw.steps
    return model, draw.steps


def _flattened(draw: Draw, hidden: Any) -> Any:
    sides = hidden.shape.rank - 2
    pooling = f"{draw.one_of('Max', 'Average')}Pooling{sides}D"
    return draw.layer("Flatten" if draw.chance(0.5) else f"Global{pooling}")(hidden)


# Steps on any rank.


def _dense(draw: Draw, hidden: Any) -> Any:
    hidden = draw.layer("Dense", draw.size(2, 9), use_bias=draw.chance(0.8))(hidden)
    return draw.activation()(hidden)


def _dropout(draw: Draw, hidden: Any) -> Any:
    return draw.layer("Dropout", draw.one_of(0.1, 0.3, 0.5))(hidden)


def _normalization(draw: Draw, hidden: Any) -> Any:
    kind = draw.one_of("BatchNormalization", "LayerNormalization", "GroupNormalization")
    if kind == "GroupNormalization":
        channels = int(hidden.shape[-1])
        groups = draw.one_of(*[g for g in range(1, channels + 1) if channels % g == 0])
        # One value a group would be normalised to zero, which no runtime does exactly.
        if hidden.shape.rank == 2 and groups == channels:
            groups = 1
        return draw.layer(kind, groups)(hidden)
    return draw.layer(kind)(hidden)


def _merge(draw: Draw, hidden: Any) -> Any:
    kind = draw.one_of("Add", "Subtract", "Multiply", "Average", "Maximum", "Concatenate")
    units = draw.size(2, 6)
    branches = []
    for _ in range(2):
        branch = draw.layer("Dense", units)(hidden)
        branches.append(draw.activation()(branch))
    return draw.layer(kind)(branches)


def _residual(draw: Draw, hidden: Any) -> Any:
    inner = draw.activation()(draw.layer("Dense", int(hidden.shape[-1]))(hidden))
    draw.steps.append("+")
    return inner + hidden


def _slice(draw: Draw, hidden: Any) -> Any:
    """Along the first side of an example, with a step of either sign."""
    side = int(hidden.shape[1])
    if side < 3:
        return _dense(draw, hidden)
    begin, step = draw.size(0, 1), draw.one_of(1, 1, 2)
    end = draw.size(begin + 2, side)
    draw.steps.append(f"[:, {begin}:{end}:{step}]")
    hidden = hidden[:, begin:end:step]
    if draw.chance(0.3):
        draw.steps.append("[:, ::-1]")
        hidden = hidden[:, ::-1]
    return hidden


# Steps on vectors.


def _to_sequence(draw: Draw, hidden: Any) -> Any:
    units = int(hidden.shape[-1])
    if units % 2 == 0 and draw.chance(0.6):
        return draw.layer("Reshape", (-1, 2))(hidden)
    return draw.layer("RepeatVector", draw.size(2, 4))(hidden)


def _to_image(draw: Draw, hidden: Any) -> Any:
    height, width = draw.size(3, 5), draw.size(3, 5)
    hidden = draw.layer("Dense", height * width * 2)(hidden)
    return draw.layer("Reshape", (height, width, 2))(hidden)


# Steps on sequences.


def _convolution_1d(draw: Draw, hidden: Any) -> Any:
    length = int(hidden.shape[1])
    kernel = draw.size(1, min(3, length))
    options: dict[str, Any] = {"padding": draw.one_of("valid", "same", "causal")}
    if draw.chance(0.4):
        options["strides"] = 2
    elif draw.chance(0.3) and (options["padding"] != "valid" or 2 * (kernel - 1) < length):
        options["dilation_rate"] = 2
    hidden = draw.layer("Conv1D", draw.size(1, 6), kernel, **options)(hidden)
    return draw.activation()(hidden)


def _pooling_1d(draw: Draw, hidden: Any) -> Any:
    pool = draw.size(1, min(3, int(hidden.shape[1])))
    kind = draw.one_of("MaxPooling1D", "AveragePooling1D")
    padding = draw.one_of("valid", "same")
    return draw.layer(kind, pool, strides=draw.size(1, 2), padding=padding)(hidden)


def _recurrent(draw: Draw, hidden: Any, *, sequences: bool = True) -> Any:
    kind = draw.one_of("SimpleRNN", "LSTM", "GRU")
    options: dict[str, Any] = {"return_sequences": sequences}
    for option, chance in (("unroll", 0.4), ("go_backwards", 0.15)):
        if draw.chance(chance):
            options[option] = True
    if draw.chance(0.3):
        options["activation"] = draw.one_of(*BOUNDED)
    if kind == "GRU" and draw.chance(0.3):
        options["reset_after"] = False
    if draw.chance(0.25):
        options.pop("go_backwards", None)
        inner = draw.layer(kind, draw.size(2, 5), **options)
        return draw.k.Bidirectional(inner, name=None)(_noted(draw, hidden, "Bidirectional"))
    return draw.layer(kind, draw.size(2, 6), **options)(hidden)


def _noted(draw: Draw, hidden: Any, what: str) -> Any:
    draw.steps.append(what)
    return hidden


def _recurrent_sequences(draw: Draw, hidden: Any) -> Any:
    return _recurrent(draw, hidden)


def _recurrent_last(draw: Draw, hidden: Any) -> Any:
    return _recurrent(draw, hidden, sequences=False)


def _attention(draw: Draw, hidden: Any) -> Any:
    heads, size = draw.size(1, 2), draw.size(2, 4)
    options = {"use_causal_mask": True} if draw.chance(0.3) else {}
    dropout = draw.one_of(0.0, 0.0, 0.2)
    attended = draw.layer("MultiHeadAttention", heads, size, dropout=dropout)(
        hidden, hidden, **options
    )
    draw.steps.append("+")
    return draw.layer("LayerNormalization")(hidden + attended)


def _sequence_sides(draw: Draw, hidden: Any) -> Any:
    length = int(hidden.shape[1])
    kind = draw.one_of("Permute", "ZeroPadding1D", "Cropping1D", "UpSampling1D")
    if kind == "Permute":
        return draw.layer(kind, (2, 1))(hidden)
    if kind == "Cropping1D" and length < 4:
        kind = "ZeroPadding1D"
    return draw.layer(kind, 2 if kind == "UpSampling1D" else (1, draw.size(0, 1)))(hidden)


def _sequence_to_image(draw: Draw, hidden: Any) -> Any:
    sides = [int(side) for side in hidden.shape[1:]]
    return draw.layer("Reshape", (*sides, 1))(hidden)


def _along_time(draw: Draw, hidden: Any) -> Any:
    """Two sequences, one after the other."""
    other = draw.layer("Dense", int(hidden.shape[-1]))(hidden)
    return draw.layer("Concatenate", axis=1)([hidden, other])


# Steps on images.


def _sides(hidden: Any) -> int:
    """The smaller side of an image."""
    return int(min(hidden.shape[1], hidden.shape[2]))


def _convolution_2d(draw: Draw, hidden: Any) -> Any:
    most = min(3, _sides(hidden))
    kernel = (draw.size(1, most), draw.size(1, most))
    kind = draw.one_of("Conv2D", "Conv2D", "DepthwiseConv2D", "SeparableConv2D")
    options: dict[str, Any] = {"padding": draw.one_of("valid", "same")}
    channels = int(hidden.shape[-1])
    if draw.chance(0.4):
        options["strides"] = draw.size(2, 3)
    elif draw.chance(0.3) and 2 * (max(kernel) - 1) < _sides(hidden):
        options["dilation_rate"] = 2
    if kind == "Conv2D" and channels % 2 == 0 and draw.chance(0.2):
        options["groups"] = 2
    if kind == "DepthwiseConv2D":
        options["depth_multiplier"] = draw.size(1, 2)
        hidden = draw.layer(kind, kernel, **options)(hidden)
    else:
        hidden = draw.layer(kind, 2 * draw.size(1, 3), kernel, **options)(hidden)
    return draw.activation()(hidden)


def _transposed(draw: Draw, hidden: Any) -> Any:
    hidden = draw.layer(
        "Conv2DTranspose",
        draw.size(1, 4),
        draw.size(1, 3),
        strides=draw.size(1, 2),
        padding=draw.one_of("valid", "same"),
    )(hidden)
    return draw.activation()(hidden)


def _pooling_2d(draw: Draw, hidden: Any) -> Any:
    most = min(3, _sides(hidden))
    kind = draw.one_of("MaxPooling2D", "AveragePooling2D")
    pool = (draw.size(1, most), draw.size(1, most))
    padding = draw.one_of("valid", "same")
    return draw.layer(kind, pool, strides=draw.size(1, 3), padding=padding)(hidden)


def _image_sides(draw: Draw, hidden: Any) -> Any:
    kind = draw.one_of("ZeroPadding2D", "Cropping2D", "UpSampling2D", "bilinear")
    if kind == "bilinear":
        return draw.layer("UpSampling2D", 2, interpolation="bilinear")(hidden)
    if kind == "UpSampling2D":
        return draw.layer(kind, (draw.size(1, 2), 2))(hidden)
    if kind == "Cropping2D" and _sides(hidden) < 4:
        kind = "ZeroPadding2D"
    return draw.layer(kind, ((1, draw.size(0, 1)), (draw.size(0, 1), 1)))(hidden)


def _shortcut(draw: Draw, hidden: Any) -> Any:
    """A residual block (He et al. 2016)."""
    channels = draw.size(2, 4)
    inner = draw.layer("Conv2D", channels, 3, padding="same", use_bias=False)(hidden)
    inner = draw.layer("ReLU")(draw.layer("BatchNormalization")(inner))
    return draw.layer("Add")([inner, draw.layer("Conv2D", channels, 1)(hidden)])


def _image_to_sequence(draw: Draw, hidden: Any) -> Any:
    height, width, channels = (int(side) for side in hidden.shape[1:])
    return draw.layer("Reshape", (height, width * channels))(hidden)


_ANY: Sequence[Step] = (_dense, _dropout, _normalization, _merge, _residual, _slice)
_STEPS: dict[int, Sequence[Step]] = {
    2: (*_ANY, _dense, _to_sequence, _to_image),
    3: (
        *_ANY,
        *(_convolution_1d, _pooling_1d, _recurrent_sequences, _recurrent_last, _attention),
        *(_sequence_sides, _sequence_to_image, _along_time, _flattened),
    ),
    4: (
        *_ANY,
        *(_convolution_2d, _convolution_2d, _transposed, _pooling_2d, _image_sides),
        *(_shortcut, _image_to_sequence, _flattened),
    ),
}
_KEEPING_TIME: Sequence[Step] = (
    *(_dense, _dropout, _normalization, _merge, _residual),
    *(_recurrent_sequences, _attention),
)

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
