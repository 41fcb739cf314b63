"""Small models with recurrent layers, embeddings and attention, and whole models."""

from collections.abc import Iterator
from typing import Any

from tests.tflite_models.case import IMAGE, SERIES, TOKENS, VECTOR, Feature, LayerCase, graph, stack


def recurrent() -> Iterator[LayerCase]:
    for cell in ("SimpleRNN", "LSTM", "GRU"):
        for how, options in (
            ("", {}),
            (", unrolled", {"unroll": True}),
            (", backwards", {"go_backwards": True, "return_sequences": True}),
            (", with dropout", {"dropout": 0.2, "recurrent_dropout": 0.3}),
        ):
            yield LayerCase(
                name=f"{cell}{how}",
                x=SERIES,
                network=stack(
                    lambda k, cell=cell, options=options: [
                        getattr(k, cell)(5, **{"return_sequences": True, **options})
                    ]
                ),
            )
        for how, options in ((", masked", {}), (", masked, unrolled", {"unroll": True})):
            yield LayerCase(
                name=f"{cell}{how}",
                x=TOKENS,
                network=stack(
                    lambda k, cell=cell, options=options: [
                        k.Embedding(20, 3, mask_zero=True),
                        getattr(k, cell)(5, **options),
                    ]
                ),
            )
    yield LayerCase(
        name="GRU, reset before",
        x=SERIES,
        network=stack(lambda k: [k.GRU(5, reset_after=False, return_sequences=True)]),
    )
    yield LayerCase(
        name="two LSTMs, one after the other",
        x=SERIES,
        network=stack(lambda k: [k.LSTM(5, return_sequences=True), k.LSTM(4)]),
    )
    yield LayerCase(
        name="RNN of StackedRNNCells",
        x=SERIES,
        network=stack(lambda k: [k.RNN([k.LSTMCell(4), k.GRUCell(3)], return_sequences=True)]),
    )
    for cell in ("LSTM", "GRU"):
        yield LayerCase(
            name=f"Bidirectional({cell})",
            x=SERIES,
            network=stack(
                lambda k, cell=cell: [k.Bidirectional(getattr(k, cell)(4, return_sequences=True))]
            ),
        )
    yield LayerCase(
        name="Masking and LSTM", x=SERIES, network=stack(lambda k: [k.Masking(0.0), k.LSTM(4)])
    )


def embeddings_and_attention() -> Iterator[LayerCase]:
    yield LayerCase(name="Embedding", x=TOKENS, network=stack(lambda k: [k.Embedding(20, 3)]))
    yield LayerCase(
        name="MultiHeadAttention",
        x=SERIES,
        network=graph(lambda k, x: k.MultiHeadAttention(2, 3)(x, x)),
    )
    yield LayerCase(
        name="MultiHeadAttention, causal",
        x=SERIES,
        network=graph(lambda k, x: k.MultiHeadAttention(2, 3)(x, x, use_causal_mask=True)),
    )
    yield LayerCase(
        name="MultiHeadAttention, masked, with dropout",
        x=TOKENS,
        network=graph(_masked_attention),
    )
    yield LayerCase(
        name="Attention", x=SERIES, network=graph(lambda k, x: k.Attention(use_scale=True)([x, x]))
    )
    yield LayerCase(
        name="AdditiveAttention",
        x=SERIES,
        network=graph(lambda k, x: k.AdditiveAttention()([x, x])),
    )
    yield LayerCase(name="transformer block", x=TOKENS, network=graph(_transformer))


def _masked_attention(k: Any, x: Any) -> Any:
    embedded = k.Embedding(20, 4, mask_zero=True)(x)
    attended = k.MultiHeadAttention(2, 3, dropout=0.2)(embedded, embedded)
    return k.GlobalAveragePooling1D()(attended)


def _transformer(k: Any, x: Any) -> Any:
    h = k.Embedding(20, 8)(x)
    h = k.LayerNormalization()(h + k.MultiHeadAttention(2, 4, dropout=0.1)(h, h))
    f = k.Dense(8)(k.Dense(16, activation="gelu")(h))
    return k.LayerNormalization()(h + k.Dropout(0.1)(f))


def whole_models() -> Iterator[LayerCase]:
    yield LayerCase(
        name="residual block with batch normalization", x=IMAGE, network=graph(_residual)
    )
    yield LayerCase(
        name="model of two inputs",
        x={"item": Feature((), 20), "user": VECTOR},
        network=graph(_two_inputs),
    )
    yield LayerCase(name="subclassed model", x=SERIES, network=_subclassed)
    yield LayerCase(name="model within a model", network=graph(_nested))
    yield LayerCase(name="a layer used twice", network=graph(_shared))
    yield LayerCase(
        name="frozen layer", network=stack(lambda k: [k.Dense(5, trainable=False), k.Dense(4)])
    )


def _residual(k: Any, x: Any) -> Any:
    h = k.Conv2D(4, 3, padding="same", use_bias=False)(x)
    h = k.ReLU()(k.BatchNormalization()(h))
    h = k.BatchNormalization()(k.Conv2D(4, 3, padding="same", use_bias=False)(h))
    short = k.Conv2D(4, 1)(x)
    return k.GlobalAveragePooling2D()(k.ReLU()(k.Add()([h, short])))


def _two_inputs(k: Any, item: Any, user: Any) -> Any:
    return k.Concatenate()([k.Embedding(20, 3)(item), k.Dense(4, activation="relu")(user)])


def _nested(k: Any, x: Any) -> Any:
    import tensorflow as tf

    inner = tf.keras.Sequential([k.InputLayer((6,)), k.Dense(5, "relu"), k.Dense(6)], name="inner")
    return inner(x) + x


def _shared(k: Any, x: Any) -> Any:
    layer = k.Dense(6, activation="tanh")
    return layer(layer(x))


def _subclassed(tf: Any, x: Any) -> Any:
    class Subclassed(tf.keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.convolution = tf.keras.layers.Conv1D(5, 3, activation="relu")
            self.recurrent = tf.keras.layers.GRU(4)
            self.classify = tf.keras.layers.Dense(4)

        def call(self, inputs: Any, training: bool = False) -> Any:
            return self.classify(self.recurrent(self.convolution(inputs), training=training))

    model = Subclassed()
    model.build((None, *x.shape))
    return model


#: What the documentation's table is divided into.
GROUPS = {
    "recurrent layers": recurrent,
    "embeddings and attention": embeddings_and_attention,
    "whole models": whole_models,
}
