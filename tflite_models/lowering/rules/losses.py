"""Losses and the operations of metrics."""

import tensorflow as tf

from tflite_models.lowering.rules.table import rule
from tflite_models.lowering.values import Value


@rule("SparseSoftmaxCrossEntropyWithLogits")
def sparse_softmax_cross_entropy(logits: Value, labels: Value) -> tuple[Value, Value]:
    """The loss -log p[label] and its gradient p - onehot(label), with p = softmax(logits).

    The largest entry of p is exp(0) / sum(exp(x - max x)), so the loss is
    (max x - x[label]) - log(max p): one SOFTMAX serves loss and gradient, and
    nothing is lost when p[label] underflows.

    Args:
        logits: [batch, classes] float32.
        labels: [batch] integers below `classes`.
    """
    labels = tf.cast(labels, tf.int32)
    classes = logits.shape[-1]
    probabilities = tf.nn.softmax(logits)
    one_hot = tf.one_hot(labels, classes)
    at_label = tf.reduce_sum(logits * one_hot, axis=-1)
    loss = (tf.reduce_max(logits, axis=-1) - at_label) - tf.math.log(
        tf.reduce_max(probabilities, axis=-1)
    )
    return loss, probabilities - one_hot


@rule("SoftmaxCrossEntropyWithLogits")
def softmax_cross_entropy(logits: Value, labels: Value) -> tuple[Value, Value]:
    """The loss -sum(labels * log p) and its gradient p * sum(labels) - labels, p = softmax(x).

    Args:
        logits: [batch, classes] float32.
        labels: [batch, classes] float32, a distribution in each row.
    """
    loss = -tf.reduce_sum(labels * tf.nn.log_softmax(logits), axis=-1)
    total = tf.reduce_sum(labels, axis=-1, keepdims=True)
    return loss, tf.nn.softmax(logits) * total - labels


@rule("InTopKV2")
def in_top_k(predictions: Value, targets: Value, k: Value) -> Value:
    """Whether fewer than k classes score above the target's class."""
    one_hot = tf.one_hot(targets, predictions.shape[-1], dtype=predictions.dtype)
    target_score = tf.reduce_sum(one_hot * predictions, axis=-1, keepdims=True)
    above = tf.reduce_sum(tf.cast(predictions > target_score, tf.int32), axis=-1)
    return above < tf.cast(k, tf.int32)
