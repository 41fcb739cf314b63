"""One matrix that embeds words and scores them."""

from typing import Any

import tensorflow as tf


class TiedEmbedding(tf.keras.layers.Layer):  # type: ignore[misc]
    """An embedding E [vocabulary, width] used at a model's input and at its output.

    Called with ids, int32 or int64 [batch, ...], it gives their rows of E, float32
    [batch, ..., width]. Called with `score=True` and x, float32 [batch, ...,
    width], it gives the logits x Eᵀ, float32 [batch, ..., vocabulary]. Call the same
    layer twice, and both uses train the same weights (Press and Wolf 2017, "Using
    the Output Embedding to Improve Language Models").

    Args:
        vocabulary: Number of words, ids from 0 to vocabulary - 1.
        width: Dimensions of an embedding.
    """

    def __init__(self, vocabulary: int, width: int, **layer: Any) -> None:
        super().__init__(**layer)
        self.vocabulary = vocabulary
        self.width = width

    def build(self, input_shape: Any) -> None:
        # Variance 1 / width: a product of two such rows is of order 1, so that
        # the first softmax is neither flat nor saturated.
        self.embeddings = self.add_weight(
            "embeddings",
            (self.vocabulary, self.width),
            initializer=tf.keras.initializers.RandomNormal(stddev=self.width**-0.5),
        )
        super().build(input_shape)

    def call(self, inputs: Any, score: bool = False) -> Any:
        if score:
            # One product of two matrices; a batch of products is slower everywhere.
            rows = tf.reshape(inputs, [-1, self.width])
            scores = tf.matmul(rows, self.embeddings, transpose_b=True)
            return tf.reshape(scores, [-1, *inputs.shape[1:-1], self.vocabulary])
        return tf.gather(self.embeddings, inputs)

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = super().get_config()
        return {**config, "vocabulary": self.vocabulary, "width": self.width}
