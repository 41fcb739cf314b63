"""A small network for the 8x8 handwritten digits of scikit-learn."""

from collections import OrderedDict
from typing import Any

#: Pixels of one digit, row by row.
PIXELS = 64
#: Units between pixels and digits.
HIDDEN = 128
#: Digits to tell apart.
CLASSES = 10


def model_fn() -> Any:
    """A dense network 64 -> 128 -> 10 as a tff.learning.models.VariableModel.

    One example is `x`, float32 [64] with pixels scaled to [0, 1], and `y`, the
    digit as int64. The loss is the sparse categorical cross-entropy of the logits.
    """
    import tensorflow as tf
    import tensorflow_federated as tff

    network = tf.keras.Sequential(
        [
            tf.keras.layers.InputLayer((PIXELS,)),
            tf.keras.layers.Dense(HIDDEN, activation="relu", name="hidden"),
            tf.keras.layers.Dense(CLASSES, name="logits"),
        ]
    )
    return tff.learning.models.from_keras_model(
        network,
        loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        input_spec=OrderedDict(
            x=tf.TensorSpec([None, PIXELS], tf.float32), y=tf.TensorSpec([None], tf.int64)
        ),
        metrics=[tf.keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
