"""On-device item ranking: will the person tap this item?

Bonawitz et al. 2019, section 8: a search in a phone's settings or apps ranks its
results on the device; which result was tapped is a label that never leaves it. A
logistic regression and a small deep network read the same features. Items are
ranked by the logit.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

#: What is known of an item when it is shown, each scaled to about [-1, 1].
NUMBERS = (
    "text_match",  # similarity of the query and the item's title, 0 to 1
    "prefix_match",  # 1 if the title begins with the query
    "opens_week",  # log(1 + opens in seven days) / 5
    "opens_month",  # log(1 + opens in thirty days) / 5
    "recency",  # exp(-days since it was last opened / 7)
    "position",  # 1 / place in the list as it was shown
    "hour_sin",  # sin(2 pi hour / 24)
    "hour_cos",  # cos(2 pi hour / 24)
)
#: Items are known by the hash of their name, modulo this.
BUCKETS = 1000
#: Dimensions of an item's embedding in the deep network.
EMBEDDING = 8
#: Units of the deep network's hidden layers.
HIDDEN = (32, 16)
#: Weights of the logistic regression and of the deep network.
LOGISTIC_PARAMETERS = 1_009
DEEP_PARAMETERS = 9_089


def logistic_model_fn() -> Any:
    """A logistic regression as a tff.learning.models.VariableModel.

    Logit = a bias, a weight for each number, and one for each bucket: with a
    one-hot item that is the linear model over all features. Examples and loss are
    those of `deep_model_fn`.
    """

    def logit(item: Any, numbers: Any) -> Any:
        import tensorflow as tf

        layers = tf.keras.layers
        popularity = layers.Embedding(BUCKETS, 1, embeddings_initializer="zeros", name="popularity")
        weighted = layers.Dense(1, kernel_initializer="zeros", name="weights")(numbers)
        return layers.Add(name="logit")([weighted, popularity(item)])

    return _model(logit)


def deep_model_fn() -> Any:
    """A deep network as a tff.learning.models.VariableModel.

    One example is `x/item`, the item's bucket as int32 [], `x/numbers`, float32
    [8] in the order of NUMBERS, and `y`, float32 [1]: 1 if the item was tapped,
    otherwise 0. The loss is the binary cross-entropy of the logit, averaged over
    the examples of a batch.
    """

    def logit(item: Any, numbers: Any) -> Any:
        import tensorflow as tf

        layers = tf.keras.layers
        embedded = layers.Embedding(BUCKETS, EMBEDDING, name="item_embedding")(item)
        signal = layers.Concatenate(name="features")([embedded, numbers])
        for number, units in enumerate(HIDDEN, start=1):
            signal = layers.Dense(units, activation="relu", name=f"hidden{number}")(signal)
        return layers.Dense(1, name="logit")(signal)

    return _model(logit)


def _model(logit: Callable[[Any, Any], Any]) -> Any:
    import tensorflow as tf
    import tensorflow_federated as tff

    item = tf.keras.Input((), dtype=tf.int32, name="item")
    numbers = tf.keras.Input((len(NUMBERS),), name="numbers")
    network = tf.keras.Model({"item": item, "numbers": numbers}, logit(item, numbers))
    return tff.learning.models.from_keras_model(
        network,
        loss=tf.keras.losses.BinaryCrossentropy(from_logits=True),
        input_spec=OrderedDict(
            x=OrderedDict(
                item=tf.TensorSpec([None], tf.int32),
                numbers=tf.TensorSpec([None, len(NUMBERS)], tf.float32),
            ),
            y=tf.TensorSpec([None, 1], tf.float32),
        ),
        # A logit above 0 is a probability above one half.
        metrics=[tf.keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0)],
    )
