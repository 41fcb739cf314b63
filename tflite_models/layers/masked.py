"""A loss and a metric for sequences that are padded to one length.

TFF's from_keras_model passes no sample weights to losses and metrics, so the mask
comes from the labels: a token whose label is one of the masked ids does not count.
Padding is at the end, and a recurrent layer never looks ahead, so its layers need
no mask of their own.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf


class MaskedCrossentropy(tf.keras.losses.Loss):  # type: ignore[misc]
    """The mean cross-entropy of the tokens that are not padding, in nats.

    With the labels y, int [batch, time], the logits z, float32 [batch, time,
    vocabulary], and w = 0 where y is `padding` and 1 elsewhere:

        loss = sum w (logsumexp(z) - z[y]) / max(sum w, 1)

    The mean is over the tokens of the whole batch, as Keras takes it under an
    embedding's mask, so a longer sentence counts for more. A batch of padding
    alone has the loss 0.
    """

    def __init__(self, padding: int = 0, name: str = "masked_crossentropy") -> None:
        # `call` gives the mean already.
        super().__init__(reduction=tf.keras.losses.Reduction.NONE, name=name)
        self.padding = padding

    def call(self, y_true: Any, y_pred: Any) -> Any:
        weight = tf.cast(tf.not_equal(y_true, self.padding), y_pred.dtype)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y_true, logits=y_pred)
        return tf.reduce_sum(losses * weight) / tf.maximum(tf.reduce_sum(weight), 1.0)

    def get_config(self) -> dict[str, Any]:
        return {"padding": self.padding, "name": self.name}


class MaskedAccuracy(tf.keras.metrics.Mean):  # type: ignore[misc]
    """The share of tokens predicted right, among those whose label is not masked.

    Args:
        masked: Labels that do not count, e.g. padding and unknown words.
    """

    def __init__(
        self, masked: Sequence[int] = (0,), name: str = "accuracy", dtype: Any = None
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.masked = tuple(masked)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Labels int [batch, time], logits float32 [batch, time, vocabulary]."""
        weight = tf.ones_like(y_true, tf.float32) if sample_weight is None else sample_weight
        for label in self.masked:
            weight *= tf.cast(tf.not_equal(y_true, label), tf.float32)
        guess = tf.argmax(y_pred, axis=-1, output_type=y_true.dtype)
        right = tf.cast(tf.equal(guess, y_true), tf.float32)
        return super().update_state(right, sample_weight=weight)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "masked": self.masked}
