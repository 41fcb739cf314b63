"""The convolutional network for handwritten characters of McMahan et al. 2017.

"Communication-Efficient Learning of Deep Networks from Decentralized Data",
AISTATS 2017, section 3; TFF's baselines call it `original_fedavg_cnn`. Only the
softmax is missing here: the loss takes logits.
"""

from collections import OrderedDict
from typing import Any

#: Height and width of an image in pixels.
SIDE = 28
#: Filters of the two convolutions, each 5 x 5 and followed by pooling 2 x 2.
FILTERS = (32, 64)
#: Side of a filter.
KERNEL = 5
#: Units of the dense layer between convolutions and classes.
HIDDEN = 512
#: Digits only.
DIGITS = 10
#: Digits, upper case and lower case letters.
CHARACTERS = 62
#: Weights with ten classes and with 62.
PARAMETERS = {DIGITS: 1_663_370, CHARACTERS: 1_690_046}


def model_fn(classes: int = DIGITS) -> Any:
    """The network as a tff.learning.models.VariableModel.

    One example is `x`, float32 [28, 28, 1] with ink 1 and paper 0, and `y`, the
    class as int64: 0-9 digits, 10-35 upper case, 36-61 lower case letters. The
    loss is the sparse categorical cross-entropy of the logits, averaged over the
    examples of a batch.

    Args:
        classes: Characters to tell apart, at least 2: DIGITS or CHARACTERS.
    """
    import tensorflow as tf
    import tensorflow_federated as tff

    layers = tf.keras.layers
    blocks = []
    for number, filters in enumerate(FILTERS, start=1):
        blocks += [
            layers.Conv2D(filters, KERNEL, padding="same", activation="relu", name=f"conv{number}"),
            layers.MaxPooling2D(name=f"pool{number}"),
        ]
    network = tf.keras.Sequential(
        [
            layers.InputLayer((SIDE, SIDE, 1)),
            *blocks,
            layers.Flatten(name="flat"),
            layers.Dense(HIDDEN, activation="relu", name="hidden"),
            layers.Dense(classes, name="logits"),
        ]
    )
    return tff.learning.models.from_keras_model(
        network,
        loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        input_spec=OrderedDict(
            x=tf.TensorSpec([None, SIDE, SIDE, 1], tf.float32), y=tf.TensorSpec([None], tf.int64)
        ),
        metrics=[tf.keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
