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
    at_label, known = _places(logits, labels)
    # 1, and 0/0 where the label is no class.
    right = tf.cast(known, logits.dtype)
    right = right / right
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
    """Whether fewer than k classes score above the target's class.

    False where the target is no class, or its score is infinite or not a number.

    Args:
        predictions: [batch, classes] float32.
        targets: [batch] integers.
        k: A scalar.
    """
    at_target, known = _places(predictions, targets)
    score = tf.gather_nd(predictions, at_target)
    above = tf.cast(predictions > tf.expand_dims(score, -1), tf.int32)
    within = tf.reduce_sum(above, axis=-1) < tf.cast(k, tf.int32)
    # Only of a finite number the difference from itself is 0.
    counts = tf.logical_and(known, tf.equal(score - score, 0.0))
    return tf.logical_and(within, counts)


def _places(scores: Value, labels: Value) -> tuple[Value, Value]:
    """Where each label's score is, [batch, 2], and whether the label is a class.

    A label that is none takes the first class's place, for reading elsewhere would
    be undefined. It is selected, since the converter makes a RELU6 of a minimum with
    6 of a maximum with 0, of integers too.
    """
    labels = tf.cast(labels, tf.int32)
    known = tf.logical_and(labels >= 0, labels < scores.shape[-1])
    rows = tf.range(tf.shape(labels)[0])
    return tf.stack([rows, tf.where(known, labels, 0)], axis=1), known
