"""A graph traced with the generic batch size computes the same for a batch of any real size."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

ROWS = (1, 2, 5)


@pytest.fixture(scope="module")
def tf():
    import tensorflow

    return tensorflow


def by_lowering(tf, function, profile="modern"):
    """`function` of one float32 [None, 3] tensor, lowered, as a function of arrays."""
    from tflite_models.lowering import batch
    from tflite_models.lowering.graph_walk import GraphWalk
    from tflite_models.lowering.lowered import lower

    graph = tf.Graph()
    with graph.as_default():
        x = tf.compat.v1.placeholder(tf.float32, [None, 3], name="x")
        y = tf.identity(function(x), name="y")
    definition = graph.as_graph_def()
    lowered = lower(
        lambda value: GraphWalk(definition).run({"x": value}, [y.name]),
        [tf.TensorSpec([None, 3], tf.float32)],
        generic=batch.PRIMES[0],
        profile=profile,
    )
    return tf.function(
        lambda value: lowered(value)[0],
        input_signature=[tf.TensorSpec([None, 3], tf.float32)],
        autograph=False,
    )


def assert_equal_for_every_batch(tf, function):
    ours = by_lowering(tf, function)
    for rows in ROWS:
        x = np.random.default_rng(rows).standard_normal((rows, 3)).astype(np.float32)
        np.testing.assert_allclose(ours(x), function(tf.constant(x)), rtol=1e-6, atol=1e-6)


def test_a_mean_over_the_batch_divides_by_the_real_size(tf):
    assert_equal_for_every_batch(tf, lambda x: tf.reduce_sum(x) / tf.cast(tf.size(x), tf.float32))


def test_the_batch_can_be_merged_with_another_dimension_and_split_again(tf):
    def function(x):
        merged = tf.reshape(x, [tf.shape(x)[0] * 3])
        return tf.reshape(merged * 2.0, tf.shape(x)) + x

    assert_equal_for_every_batch(tf, function)


def test_a_reshape_that_leaves_a_side_open_has_the_real_batch_in_the_other(tf):
    def function(x):
        doubled = tf.concat([x, 2.0 * x], axis=1)
        return tf.reduce_sum(tf.reshape(doubled, [-1, tf.shape(x)[0], 2]), axis=0)

    assert_equal_for_every_batch(tf, function)


def test_zeros_and_tiles_of_the_batch_are_made_on_the_device(tf):
    def function(x):
        rows = tf.shape(x)[0]
        return tf.zeros([rows, 3]) + tf.tile([[1.0, 2.0, 3.0]], [rows, 1]) * x

    assert_equal_for_every_batch(tf, function)


def test_numbered_rows_follow_the_real_batch(tf):
    def function(x):
        return x * tf.cast(tf.range(tf.shape(x)[0]), tf.float32)[:, None]

    assert_equal_for_every_batch(tf, function)


def test_a_size_too_large_for_its_index_type_is_multiplied_on_the_device(tf):
    def function(x):
        wide = tf.broadcast_to(x[:, :, None], [tf.shape(x)[0], 3, 100_000])
        return tf.reduce_sum(x) / tf.cast(tf.size(wide), tf.float32)

    assert_equal_for_every_batch(tf, function)


@given(st.permutations(range(3)), st.integers(1, 3))
@settings(max_examples=15)
def test_shapes_survive_transposing_slicing_and_stacking(tf, order, copies):
    def function(x):
        stacked = tf.transpose(tf.stack([x] * (copies + 1)), order)
        shape = tf.shape(stacked)
        flat = tf.reshape(stacked, [tf.reduce_prod(shape)])
        return tf.reduce_sum(tf.reshape(flat, shape), axis=order.index(0))

    assert_equal_for_every_batch(tf, function)


def test_the_generic_size_divides_no_size_of_the_model():
    from tflite_models.lowering import batch

    first, second = batch.PRIMES[:2]
    assert batch.choose([3, 28, 784]) == first
    assert batch.choose([3, 2 * first]) == second
    with pytest.raises(ValueError, match="every candidate"):
        batch.choose(batch.PRIMES)


def test_counts_are_numbers_unless_the_batch_is_counted(tf):
    from tflite_models.lowering import batch

    x = tf.zeros([2, 3, 4])
    assert batch.count(x, [0, 2]) == 8.0
    assert not batch.is_generic(batch.PRIMES[0])
    with batch.generic(batch.PRIMES[0]):
        assert batch.is_generic(3 * batch.PRIMES[0])
        assert batch.times_batch(3 * batch.PRIMES[0], 5) == 15
        assert batch.times_batch(7, 5) == 7
