"""Sums of rows by index: the gradients of looking up rows of a table."""

import numpy as np
import tensorflow as tf

from tflite_models.lowering.rules.table import rule
from tflite_models.lowering.values import Value, is_constant


@rule("UnsortedSegmentSum")
def sum_by_index(rows: Value, indices: Value, count: Value) -> Value:
    """y[s] = sum of rows[i] over all i with indices[i] = s.

    SCATTER_ND adds rows that fall on the same place, as this sum does, and is
    much faster than the runtime's own segment sum, which old runtimes lack.

    Args:
        rows: [*shape of indices, ...].
        indices: Integers below `count`; rows of negative ones are left out.
        count: Rows of the result; known only on the device if they involve the batch.
    """
    leading = len(indices.shape)
    inner = [int(side) for side in rows.shape[leading:]]
    flat = tf.reshape(tf.cast(indices, tf.int32), [-1])
    rows = tf.reshape(rows, [-1, *inner])
    kept = tf.reshape(tf.cast(flat >= 0, rows.dtype), [-1, *[1] * len(inner)])
    places = tf.expand_dims(tf.maximum(flat, 0), -1)
    if is_constant(count):
        shape: Value = np.array([int(count), *inner], np.int32)
    else:
        shape = tf.stack([tf.cast(count, tf.int32), *inner])
    return tf.scatter_nd(places, rows * kept, shape)
