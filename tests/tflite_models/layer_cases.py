"""Small models, one for each layer that converts and each way of using it."""

from collections.abc import Iterator
from typing import Any

from tests.tflite_models.case import (
    IMAGE,
    SERIES,
    VECTOR,
    LayerCase,
    graph,
    stack,
)

#: By the name that tf.keras.activations has.
ACTIVATIONS = (
    "elu",
    "exponential",
    "gelu",
    "hard_sigmoid",
    "linear",
    "mish",
    "relu",
    "selu",
    "sigmoid",
    "softmax",
    "softplus",
    "softsign",
    "swish",
    "tanh",
)


def activations() -> Iterator[LayerCase]:
    for name in ACTIVATIONS:
        yield LayerCase(
            name=f"activation {name}",
            network=stack(lambda k, name=name: [k.Dense(5, activation=name)]),
        )
    yield LayerCase(
        name="activation relu6, in a Lambda",
        network=stack(lambda k: [k.Dense(5), k.Lambda(_relu6)]),
    )
    for name, body in (
        ("ReLU, with slope, threshold and maximum", lambda k: k.ReLU(1.0, 0.1, 0.2)),
        ("LeakyReLU", lambda k: k.LeakyReLU()),
        ("PReLU", lambda k: k.PReLU("random_uniform")),
        ("ELU", lambda k: k.ELU(0.7)),
        ("ThresholdedReLU", lambda k: k.ThresholdedReLU(0.3)),
        ("Softmax", lambda k: k.Softmax()),
    ):
        yield LayerCase(name=name, network=stack(lambda k, body=body: [k.Dense(5), body(k)]))


def _relu6(x: Any) -> Any:
    import tensorflow as tf

    return tf.nn.relu6(4.0 * x)


def dense() -> Iterator[LayerCase]:
    yield LayerCase(name="Dense", network=stack(lambda k: [k.Dense(5)]))
    yield LayerCase(name="Dense, no bias", network=stack(lambda k: [k.Dense(5, use_bias=False)]))
    for activation in ("relu", "relu6", "softplus"):
        yield LayerCase(
            name=f"Dense, no bias, {activation}",
            network=stack(
                lambda k, activation=activation: [
                    k.Dense(5, use_bias=False),
                    k.Activation(activation),
                ]
            ),
        )
    yield LayerCase(name="Dense on sequences", x=SERIES, network=stack(lambda k: [k.Dense(5)]))
    yield LayerCase(
        name="Dense, L1 and L2 regularized",
        network=stack(lambda k: [k.Dense(5, kernel_regularizer="l1_l2")]),
    )
    yield LayerCase(
        name="EinsumDense",
        x=SERIES,
        network=stack(lambda k: [k.EinsumDense("abc,cd->abd", output_shape=(None, 5))]),
    )
    yield LayerCase(
        name="TimeDistributed(Dense)",
        x=SERIES,
        network=stack(lambda k: [k.TimeDistributed(k.Dense(5))]),
    )
    yield LayerCase(name="Dropout", network=stack(lambda k: [k.Dense(20, "relu"), k.Dropout(0.3)]))
    yield LayerCase(
        name="Dropout, twice, other layers between",
        x=IMAGE,
        network=stack(
            lambda k: [k.Conv2D(3, 3), k.Dropout(0.2), k.Flatten(), k.Dense(8), k.Dropout(0.5)]
        ),
    )
    yield LayerCase(
        name="SpatialDropout1D", x=SERIES, network=stack(lambda k: [k.SpatialDropout1D(0.3)])
    )
    yield LayerCase(name="GaussianNoise", network=stack(lambda k: [k.GaussianNoise(0.2)]))
    yield LayerCase(name="GaussianDropout", network=stack(lambda k: [k.GaussianDropout(0.2)]))


def convolutions() -> Iterator[LayerCase]:
    for name, body in (
        ("Conv2D", lambda k: k.Conv2D(3, 3)),
        ("Conv2D, no bias, relu", lambda k: k.Conv2D(3, 3, use_bias=False, activation="relu")),
        ("Conv2D, same", lambda k: k.Conv2D(3, 3, padding="same")),
        ("Conv2D, 1x1", lambda k: k.Conv2D(3, 1)),
        # TensorFlow's oneDNN kernels fail at this one (device_plan.reference_kernels).
        ("Conv2D, 1x1, strides 2", lambda k: k.Conv2D(3, 1, strides=2)),
        ("Conv2D, 5x5, same", lambda k: k.Conv2D(3, 5, padding="same")),
        ("Conv2D, 2x3", lambda k: k.Conv2D(3, (2, 3), padding="same")),
        ("Conv2D, strides 2", lambda k: k.Conv2D(3, 3, strides=2)),
        ("Conv2D, strides 2, same", lambda k: k.Conv2D(3, 3, strides=2, padding="same")),
        ("Conv2D, strides (2, 1)", lambda k: k.Conv2D(3, 3, strides=(2, 1), padding="same")),
        ("Conv2D, dilation 2", lambda k: k.Conv2D(3, 3, dilation_rate=2)),
        ("Conv2D, dilation 2, same", lambda k: k.Conv2D(3, 3, dilation_rate=2, padding="same")),
        ("Conv2D, groups", lambda k: k.Conv2D(4, 3, groups=2)),
        ("Conv2DTranspose", lambda k: k.Conv2DTranspose(3, 3)),
        ("Conv2DTranspose, strides 2", lambda k: k.Conv2DTranspose(3, 3, strides=2)),
        ("Conv2DTranspose, 1x1, strides 2", lambda k: k.Conv2DTranspose(3, 1, strides=2)),
        (
            "Conv2DTranspose, strides 2, same",
            lambda k: k.Conv2DTranspose(3, 3, strides=2, padding="same"),
        ),
        ("DepthwiseConv2D", lambda k: k.DepthwiseConv2D(3)),
        (
            "DepthwiseConv2D, strides 2, same, multiplier 2",
            lambda k: k.DepthwiseConv2D(3, strides=2, padding="same", depth_multiplier=2),
        ),
        ("DepthwiseConv2D, dilation 2", lambda k: k.DepthwiseConv2D(3, dilation_rate=2)),
        ("SeparableConv2D", lambda k: k.SeparableConv2D(4, 3)),
        (
            "SeparableConv2D, strides 2, same",
            lambda k: k.SeparableConv2D(4, 3, strides=2, padding="same"),
        ),
        ("UpSampling2D", lambda k: k.UpSampling2D(2)),
        ("UpSampling2D, bilinear", lambda k: k.UpSampling2D(2, interpolation="bilinear")),
        ("ZeroPadding2D", lambda k: k.ZeroPadding2D(((1, 2), (0, 1)))),
        ("Cropping2D", lambda k: k.Cropping2D(((1, 2), (0, 1)))),
    ):
        # The first convolution asks of the second the gradient for its input.
        yield LayerCase(
            name=name,
            x=IMAGE,
            network=stack(lambda k, body=body: [k.Conv2D(2, 1, activation="tanh"), body(k)]),
        )
    for name, body in (
        ("Conv1D", lambda k: k.Conv1D(4, 3)),
        ("Conv1D, same, strides 2", lambda k: k.Conv1D(4, 3, strides=2, padding="same")),
        ("Conv1D, causal", lambda k: k.Conv1D(4, 3, padding="causal")),
        (
            "Conv1D, causal, dilation 2",
            lambda k: k.Conv1D(4, 3, padding="causal", dilation_rate=2),
        ),
        ("Conv1D, groups", lambda k: k.Conv1D(4, 3, groups=2)),
        ("Conv1DTranspose, strides 2", lambda k: k.Conv1DTranspose(4, 3, strides=2)),
        ("DepthwiseConv1D", lambda k: k.DepthwiseConv1D(3)),
        ("SeparableConv1D", lambda k: k.SeparableConv1D(4, 3)),
    ):
        yield LayerCase(
            name=name,
            x=SERIES,
            network=stack(lambda k, body=body: [k.Conv1D(4, 1, activation="tanh"), body(k)]),
        )


def pooling() -> Iterator[LayerCase]:
    for name, body in (
        ("MaxPooling2D", lambda k: k.MaxPooling2D()),
        ("MaxPooling2D, 3, strides 2, same", lambda k: k.MaxPooling2D(3, 2, padding="same")),
        ("MaxPooling2D, 3, strides 1", lambda k: k.MaxPooling2D(3, 1)),
        ("AveragePooling2D", lambda k: k.AveragePooling2D()),
        (
            "AveragePooling2D, 3, strides 2, same",
            lambda k: k.AveragePooling2D(3, 2, padding="same"),
        ),
        ("GlobalMaxPooling2D", lambda k: k.GlobalMaxPooling2D()),
        ("GlobalAveragePooling2D", lambda k: k.GlobalAveragePooling2D()),
        (
            "GlobalAveragePooling2D, keeping sides",
            lambda k: k.GlobalAveragePooling2D(keepdims=True),
        ),
    ):
        yield LayerCase(
            name=name, x=IMAGE, network=stack(lambda k, body=body: [k.Conv2D(3, 3), body(k)])
        )
    for name, body in (
        ("MaxPooling1D", lambda k: k.MaxPooling1D()),
        ("AveragePooling1D", lambda k: k.AveragePooling1D(3, 2, padding="same")),
        ("GlobalMaxPooling1D", lambda k: k.GlobalMaxPooling1D()),
        ("GlobalAveragePooling1D", lambda k: k.GlobalAveragePooling1D()),
    ):
        yield LayerCase(
            name=name, x=SERIES, network=stack(lambda k, body=body: [k.Conv1D(3, 3), body(k)])
        )


def normalization() -> Iterator[LayerCase]:
    for name, x, body in (
        ("BatchNormalization on images", IMAGE, lambda k: k.BatchNormalization()),
        ("BatchNormalization on vectors", VECTOR, lambda k: k.BatchNormalization()),
        ("BatchNormalization on sequences", SERIES, lambda k: k.BatchNormalization()),
        (
            "BatchNormalization, no scale or center",
            IMAGE,
            lambda k: k.BatchNormalization(scale=False, center=False),
        ),
        ("LayerNormalization on vectors", VECTOR, lambda k: k.LayerNormalization()),
        ("LayerNormalization on sequences", SERIES, lambda k: k.LayerNormalization()),
        ("LayerNormalization on images", IMAGE, lambda k: k.LayerNormalization()),
        (
            "LayerNormalization over all sides",
            IMAGE,
            lambda k: k.LayerNormalization(axis=[1, 2, 3]),
        ),
        ("GroupNormalization on images", IMAGE, lambda k: k.GroupNormalization(2)),
        ("GroupNormalization on sequences", SERIES, lambda k: k.GroupNormalization(2)),
        ("UnitNormalization", VECTOR, lambda k: k.UnitNormalization()),
    ):
        first = {VECTOR: "Dense", SERIES: "Conv1D", IMAGE: "Conv2D"}[x]
        sizes = (4,) if x is VECTOR else (4, 3)
        yield LayerCase(
            name=name,
            x=x,
            network=stack(
                lambda k, body=body, first=first, sizes=sizes: [getattr(k, first)(*sizes), body(k)]
            ),
        )
    yield LayerCase(
        name="Normalization and Rescaling",
        network=stack(
            lambda k: [k.Normalization(mean=[0.5] * 6, variance=[2.0] * 6), k.Rescaling(0.5, 1.0)]
        ),
    )


def shapes() -> Iterator[LayerCase]:
    for name, x, body in (
        ("Flatten", IMAGE, lambda k: [k.Conv2D(2, 3), k.Flatten()]),
        ("Reshape", VECTOR, lambda k: [k.Dense(6), k.Reshape((3, 2)), k.Conv1D(2, 2)]),
        ("Reshape, with -1", IMAGE, lambda k: [k.Conv2D(2, 1), k.Reshape((-1, 4))]),
        ("Permute", SERIES, lambda k: [k.Dense(4), k.Permute((2, 1)), k.Dense(3)]),
        ("RepeatVector", VECTOR, lambda k: [k.Dense(4), k.RepeatVector(3), k.SimpleRNN(3)]),
        ("ZeroPadding1D", SERIES, lambda k: [k.Dense(4), k.ZeroPadding1D(2)]),
        ("Cropping1D", SERIES, lambda k: [k.Dense(4), k.Cropping1D((1, 2))]),
        ("UpSampling1D", SERIES, lambda k: [k.Dense(4), k.UpSampling1D(2)]),
    ):
        yield LayerCase(name=name, x=x, network=stack(body))
    for name in ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate"):
        yield LayerCase(
            name=name,
            network=graph(
                lambda k, x, name=name: getattr(k, name)()([k.Dense(5)(x), k.Dense(5, "tanh")(x)])
            ),
        )
    yield LayerCase(
        name="Concatenate, along time",
        x=SERIES,
        network=graph(lambda k, x: k.Concatenate(axis=1)([k.Dense(3)(x), x])),
    )
    yield LayerCase(
        name="Dot",
        x=SERIES,
        network=graph(lambda k, x: k.Dot(axes=2, normalize=True)([k.Dense(4)(x), k.Dense(4)(x)])),
    )
    yield LayerCase(
        name="slicing with steps",
        x=SERIES,
        network=graph(lambda k, x: k.Dense(4)(x)[:, 1:7:2, :3]),
    )
    yield LayerCase(
        name="slicing backwards and one place",
        x=SERIES,
        network=graph(
            lambda k, x: k.Concatenate()(
                [k.Flatten()(k.Dense(4)(x)[:, ::-1]), k.Dense(4)(x)[:, -1]]
            )
        ),
    )
    yield LayerCase(
        name="broadcasting",
        x=SERIES,
        network=graph(lambda k, x: k.Dense(4)(x) * k.Dense(1)(x) + k.Dense(4)(x[:, :1])),
    )


#: What the documentation's table is divided into.
GROUPS = {
    "dense layers": dense,
    "activations": activations,
    "convolutions": convolutions,
    "pooling": pooling,
    "normalization": normalization,
    "shapes and merging": shapes,
}
