"""The next-character LSTM of McMahan et al. 2017 for the plays of Shakespeare.

"Communication-Efficient Learning of Deep Networks from Decentralized Data",
AISTATS 2017, section 3: 80 characters, embedded in 8 dimensions, two LSTM layers of
256 units. The characters are those of TFF's `shakespeare` baseline, here in the
order of their code points.
"""

from collections import OrderedDict
from typing import Any

#: Characters that have ids of their own; the first one has the id 1.
CHARACTERS = (
    "\n\r !\"#$%&'()*,-./0123456789:;?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[]_abcdefghijklmnopqrstuvwxyz"
)
#: The id that fills a window up.
PADDING = 0
#: Ids of any other character, and of a speech's begin and end.
UNKNOWN, BEGIN, END = range(len(CHARACTERS) + 1, len(CHARACTERS) + 4)
#: Number of ids.
VOCABULARY = len(CHARACTERS) + 4
#: Characters that the model reads in one example.
LENGTH = 80
#: Dimensions of a character's embedding.
EMBEDDING = 8
#: Units of each of the two LSTM layers.
UNITS = 256
#: Weights: 720 in the embedding, 271,360 and 525,312 in the LSTMs, 23,130 in the output.
PARAMETERS = 820_522


def model_fn(*, length: int = LENGTH, units: int = UNITS, unroll: bool = False) -> Any:
    """The network as a tff.learning.models.VariableModel.

    One example is `x`, int32 [length], and `y`, int32 [length], the character that
    follows at each place; a speech's last window is padded with PADDING. The loss
    is the cross-entropy averaged over all characters of a batch that are not
    padding, and so is the accuracy.

    Args:
        length, units: Sizes, for smaller models.
        unroll: Write the time steps out instead of looping over them.
    """
    import tensorflow as tf
    import tensorflow_federated as tff

    from tflite_models.layers.masked import MaskedAccuracy, MaskedCrossentropy

    layers = tf.keras.layers
    network = tf.keras.Sequential(
        [
            layers.InputLayer((length,), dtype=tf.int32),
            layers.Embedding(VOCABULARY, EMBEDDING, name="embedding"),
            layers.LSTM(units, return_sequences=True, unroll=unroll, name="lstm1"),
            layers.LSTM(units, return_sequences=True, unroll=unroll, name="lstm2"),
            layers.Dense(VOCABULARY, name="logits"),
        ]
    )
    return tff.learning.models.from_keras_model(
        network,
        loss=MaskedCrossentropy(PADDING),
        input_spec=OrderedDict(
            x=tf.TensorSpec([None, length], tf.int32), y=tf.TensorSpec([None, length], tf.int32)
        ),
        metrics=[MaskedAccuracy((PADDING,))],
    )
