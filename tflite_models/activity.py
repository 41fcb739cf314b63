"""A one-dimensional convolutional network that knows what its bearer does.

It reads windows of a phone's accelerometer, of the form of the UCI HAR data set
(Anguita et al. 2013, "A Public Domain Dataset for Human Activity Recognition Using
Smartphones"): 128 readings at 50 Hz of three axes in units of g, gravity included.
"""

from collections import OrderedDict
from typing import Any

#: Readings of one window: 2.56 s at 50 Hz.
READINGS = 128
#: Readings a second.
RATE_HZ = 50
#: The accelerometer's axes.
AXES = 3
#: What is told apart, in the order of UCI HAR's labels, which count from 1.
ACTIVITIES = (
    "walking",
    "walking upstairs",
    "walking downstairs",
    "sitting",
    "standing",
    "laying",
)
#: Filters of the three convolutions, each over 5 readings.
FILTERS = (32, 64, 64)
#: Readings under a filter.
KERNEL = 5
#: Number of weights.
PARAMETERS = 31_750


def model_fn() -> Any:
    """The network as a tff.learning.models.VariableModel.

    One example is `x`, float32 [128, 3] in g, and `y`, the index in ACTIVITIES as
    int64. Two of the convolutions are followed by pooling over pairs, the last by
    the mean over time. The loss is the sparse categorical cross-entropy of the
    logits, averaged over the examples of a batch.
    """
    import tensorflow as tf
    import tensorflow_federated as tff

    layers = tf.keras.layers
    network = tf.keras.Sequential([layers.InputLayer((READINGS, AXES))])
    for number, filters in enumerate(FILTERS, start=1):
        network.add(
            layers.Conv1D(filters, KERNEL, padding="same", activation="relu", name=f"conv{number}")
        )
        if number < len(FILTERS):
            network.add(layers.MaxPooling1D(name=f"pool{number}"))
    network.add(layers.GlobalAveragePooling1D(name="mean"))
    network.add(layers.Dense(len(ACTIVITIES), name="logits"))
    return tff.learning.models.from_keras_model(
        network,
        loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        input_spec=OrderedDict(
            x=tf.TensorSpec([None, READINGS, AXES], tf.float32), y=tf.TensorSpec([None], tf.int64)
        ),
        metrics=[tf.keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
