"""Sums by index, by rule, equal TensorFlow's, on the device runtime too."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tflite_models.on_device import DeviceFunction


def by_rule(rows, indices, count):
    from tflite_models.lowering.rules import RULES

    return RULES["UnsortedSegmentSum"].apply([rows, indices, np.int32(count)], {})[0]


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=2),
    st.lists(st.integers(1, 4), max_size=2),
    st.integers(1, 6),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=60)
def test_sums_by_index_equal_tensorflows(leading, inner, count, seed):
    import tensorflow as tf

    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((*leading, *inner)).astype(np.float32)
    # -1 is how TensorFlow's users say "nowhere".
    indices = rng.integers(-1, count, leading).astype(np.int32)
    expected = tf.math.unsorted_segment_sum(rows, indices, count)
    ours = by_rule(tf.constant(rows), tf.constant(indices), count)
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


def test_rows_of_the_same_index_are_added_on_the_device():
    function = DeviceFunction(
        lambda rows, indices: by_rule(rows, indices, 7),
        [np.zeros((2, 3, 4), np.float32), np.zeros((2, 3), np.int32)],
        dynamic=(0, 1),
    )
    for size in (1, 2, 20):
        rng = np.random.default_rng(size)
        rows = rng.standard_normal((size, 3, 4)).astype(np.float32)
        indices = rng.integers(-1, 7, (size, 3)).astype(np.int32)
        expected = np.zeros((7, 4), np.float32)
        np.add.at(expected, indices[indices >= 0], rows[indices >= 0])
        np.testing.assert_allclose(function(rows, indices)[0], expected, rtol=1e-5, atol=1e-5)


def test_sums_by_an_index_into_the_batch_run_at_any_batch_size():
    """As in the gradient of a lookup in each example's own rows."""
    import tensorflow as tf

    from tflite_models.lowering.rules import RULES

    def body(rows, indices):
        count = 3 * tf.shape(rows)[0]
        return RULES["UnsortedSegmentSum"].apply([rows, indices, count], {})

    function = DeviceFunction(
        body, [np.zeros((2, 4), np.float32), np.zeros(2, np.int32)], dynamic=(0, 1)
    )
    for size in (1, 2, 9):
        rng = np.random.default_rng(size)
        rows = rng.standard_normal((size, 4)).astype(np.float32)
        indices = rng.integers(0, 3 * size, size).astype(np.int32)
        expected = np.zeros((3 * size, 4), np.float32)
        np.add.at(expected, indices, rows)
        np.testing.assert_allclose(function(rows, indices)[0], expected, rtol=1e-5, atol=1e-5)
