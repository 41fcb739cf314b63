"""Random numbers from a session's seed, against the generator of Wichmann and Hill itself."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

SEEDS = st.tuples(*[st.integers(1, 30000)] * 3)


def as183(seed, size):
    """Algorithm AS 183 as published: one number after another."""
    x, y, z = seed
    numbers = []
    for _ in range(size):
        numbers.append((x / 30269 + y / 30307 + z / 30323) % 1.0)
        x, y, z = 171 * x % 30269, 172 * y % 30307, 170 * z % 30323
    return np.array(numbers)


def assert_same_fraction(ours, expected):
    """Equal to single precision; 0.9999999 and 0 are neighbours on the circle."""
    apart = np.abs(ours.astype(np.float64) - expected)
    assert np.max(np.minimum(apart, 1 - apart)) < 1e-6


@given(SEEDS, st.lists(st.integers(1, 5), max_size=3))
@settings(max_examples=25)
def test_a_tensor_is_drawn_row_by_row(seed, shape):
    import tensorflow as tf

    from tflite_models.lowering.random_numbers import uniform

    drawn = uniform(tf.constant(seed, tf.int32), shape, shape[0] if shape else 1).numpy()
    assert drawn.shape == tuple(shape)
    assert drawn.dtype == np.float32
    assert_same_fraction(drawn.ravel(), as183(seed, drawn.size))


@given(SEEDS, st.integers(0, 3000))
@settings(max_examples=25)
def test_a_state_can_be_advanced_over_any_count(seed, skipped):
    import tensorflow as tf

    from tflite_models.lowering.random_numbers import advance, uniform

    state = advance(tf.constant(seed, tf.int32), skipped)
    assert_same_fraction(uniform(state, [7], 7).numpy(), as183(seed, skipped + 7)[skipped:])


def test_a_dimension_longer_than_a_table_is_drawn_as_two():
    import tensorflow as tf

    from tflite_models.lowering.random_numbers import uniform

    drawn = uniform(tf.constant([1, 2, 3], tf.int32), [2, 6000], 2).numpy()
    assert_same_fraction(drawn.ravel(), as183((1, 2, 3), 12000))


@pytest.mark.parametrize("seed", [(1, 1, 1), (30000, 30000, 30000), (12345, 6789, 20202)])
def test_numbers_are_uniform_and_those_of_two_blocks_are_not_alike(seed):
    import tensorflow as tf
    from scipy import stats

    from tflite_models.lowering.random_numbers import BLOCK, advance, uniform

    state = tf.constant(seed, tf.int32)
    first = uniform(state, [100, 200], 100).numpy().ravel()
    second = uniform(advance(state, BLOCK), [100, 200], 100).numpy().ravel()
    for numbers in (first, second):
        assert numbers.min() >= 0
        assert numbers.max() < 1
        assert stats.kstest(numbers, "uniform").pvalue > 1e-4
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03
