"""Substitutions for runtimes before TFLite 2.11, made in a graph of builtins.

SIGN came with TFLite 2.11, UNSORTED_SEGMENT_SUM with 2.10. The keys are the
operations that the other rules leave in the graph.
"""

import tensorflow as tf

from tflite_models.lowering.rules.segments import sum_by_index
from tflite_models.lowering.rules.table import Rule
from tflite_models.lowering.values import Value


def sign(x: Value) -> Value:
    """1 where x > 0, -1 where x < 0, 0 where x is 0; not a number where x is none."""
    zero = tf.zeros([], x.dtype)
    difference = tf.cast(x > zero, x.dtype) - tf.cast(x < zero, x.dtype)
    if x.dtype.is_integer:
        return difference
    return tf.where(tf.equal(x, x), difference, x)


LEGACY: dict[str, Rule] = {
    "Sign": Rule("Sign", sign, ()),
    "UnsortedSegmentSum": Rule("UnsortedSegmentSum", sum_by_index, ()),
}
