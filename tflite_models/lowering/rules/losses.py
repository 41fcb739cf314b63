"""Losses and the operations of metrics."""

import tensorflow as tf

from tflite_models.lowering.rules.table import rule
from tflite_models.lowering.values import Value


@rule("SparseSoftmaxCrossEntropyWithLogits")
def sparse_softmax_cross_entropy(logits: Value, labels: Value) -> tuple[Value, Value]:
    """The loss -log p[label] and its gradient p - onehot(label), with p = softmax(logits).

    The largest entry of p is exp(0) / sum(exp(x - max x)), so the loss is
    (max x - x[label]) - log(max p): one SOFTMAX serves loss and gradient, and
    nothing is lost when p[label] underflows. The one-hot matrix is scattered and
    x[label] gathered: a ONE_HOT of 10,000 classes would cost more than the SOFTMAX.

    A label that is no class gives a loss that is not a number and one such entry in
    the gradient, as TensorFlow's operation does on accelerators.

    Args:
        logits: [batch, classes] float32.
        labels: [batch] integers below `classes`.
    """
    labels = tf.cast(labels, tf.int32)
    last = logits.shape[-1] - 1
    label = tf.clip_by_value(labels, 0, last)
    # 1, and 0/0 where the label had to be clipped.
    right = tf.cast(tf.equal(label, labels), logits.dtype)
    right = right / right
    rows = tf.range(tf.shape(labels)[0])
    at_label = tf.stack([rows, label], axis=1)
    probabilities = tf.nn.softmax(logits)
    loss = (tf.reduce_max(logits, axis=-1) - tf.gather_nd(logits, at_label)) - tf.math.log(
        tf.reduce_max(probabilities, axis=-1)
    )
    # An operation, since a shape written down would be computed on the device anew.
    shape = tf.raw_ops.Shape(input=logits)
    return loss * right, probabilities - tf.scatter_nd(at_label, right, shape)


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
