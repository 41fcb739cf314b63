"""Operations on five axes and more, by rule, equal TensorFlow's."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tests.tflite_models.on_device import DeviceFunction


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def by_rule(op: str, *inputs: object):
    from tflite_models.lowering.rules import RULES

    return RULES[op].apply(list(inputs), {})[0]


@given(arrays.mutually_broadcastable_shapes(num_shapes=2, max_dims=6, max_side=3, min_side=1))
@settings(max_examples=60)
def test_broadcast_sums_equal_numpys(shapes):
    import tensorflow as tf

    x, y = (normal(i, *shape) for i, shape in enumerate(shapes.input_shapes))
    np.testing.assert_array_equal(by_rule("AddV2", tf.constant(x), tf.constant(y)), x + y)


@given(arrays.mutually_broadcastable_shapes(num_shapes=3, max_dims=6, max_side=3, min_side=1))
@settings(max_examples=60)
def test_broadcast_selections_equal_numpys(shapes):
    import tensorflow as tf

    condition, x, y = (normal(i, *shape) for i, shape in enumerate(shapes.input_shapes))
    ours = by_rule("SelectV2", tf.constant(condition > 0), tf.constant(x), tf.constant(y))
    np.testing.assert_array_equal(ours, np.where(condition > 0, x, y))


@given(st.integers(1, 8).flatmap(lambda rank: st.permutations(range(rank))), st.data())
@settings(max_examples=80)
def test_transpositions_equal_numpys(permutation, data):
    import tensorflow as tf

    x = normal(0, *(data.draw(st.integers(1, 3)) for _ in permutation))
    ours = by_rule("Transpose", tf.constant(x), np.array(permutation, np.int32))
    np.testing.assert_array_equal(ours, np.transpose(x, permutation))


def test_six_axes_run_at_any_batch_size():
    permutation = [0, 3, 5, 2, 4, 1]
    bias = normal(1, 2, 1, 3, 1, 2)
    function = DeviceFunction(
        lambda x: by_rule("Transpose", by_rule("AddV2", x, bias), np.array(permutation, np.int32)),
        [normal(0, 2, 2, 3, 3, 2, 2)],
    )
    for size in (1, 2, 5):
        x = normal(size, size, 2, 3, 3, 2, 2)
        np.testing.assert_allclose(function(x)[0], np.transpose(x + bias, permutation), rtol=1e-6)
