"""The steps of which random models are made: each takes what there is so far one layer on.

A step draws its layer's sizes so that they fit its input, and notes what it drew.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

#: What activation layers are drawn from.
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


def flattened(draw: Draw, hidden: Any) -> Any:
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


def recurrent(draw: Draw, hidden: Any, *, sequences: bool = True) -> Any:
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
    return recurrent(draw, hidden)


def _recurrent_last(draw: Draw, hidden: Any) -> Any:
    return recurrent(draw, hidden, sequences=False)


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
STEPS: dict[int, Sequence[Step]] = {
    2: (*_ANY, _dense, _to_sequence, _to_image),
    3: (
        *_ANY,
        *(_convolution_1d, _pooling_1d, _recurrent_sequences, _recurrent_last, _attention),
        *(_sequence_sides, _sequence_to_image, _along_time, flattened),
    ),
    4: (
        *_ANY,
        *(_convolution_2d, _convolution_2d, _transposed, _pooling_2d, _image_sides),
        *(_shortcut, _image_to_sequence, flattened),
    ),
}
KEEPING_TIME: Sequence[Step] = (
    *(_dense, _dropout, _normalization, _merge, _residual),
    *(_recurrent_sequences, _attention),
)
