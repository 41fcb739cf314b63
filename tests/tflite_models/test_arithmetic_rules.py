"""Powers, sums and error functions by rule equal TensorFlow's, on the device runtime too."""

import numpy as np
import pytest

from tests.tflite_models.on_device import DeviceFunction, on_device


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def by_rule(op: str, *inputs: object, **attributes: object):
    from tflite_models.lowering.rules import RULES

    return RULES[op].apply(list(inputs), attributes)[0]


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0, 3.0, 4.0, 5.0, -1.0, 1.5])
def test_a_power_equals_tensorflows(exponent):
    import tensorflow as tf

    x = np.abs(normal(0, 50))
    ours = by_rule("Pow", tf.constant(x), np.float32(exponent))
    np.testing.assert_allclose(ours, tf.pow(x, exponent), rtol=1e-5)


def test_a_power_of_whole_numbers_stays_whole():
    import tensorflow as tf

    ours = by_rule("Pow", tf.constant([-2, 0, 3]), np.int32(3))
    np.testing.assert_array_equal(ours, [-8, 0, 27])


def test_a_power_with_an_exponent_for_each_element_equals_tensorflows():
    import tensorflow as tf

    x, y = np.abs(normal(0, 9)), normal(1, 9)
    np.testing.assert_allclose(by_rule("Pow", tf.constant(x), y), tf.pow(x, y), rtol=1e-5)


def test_the_complement_of_the_error_function_equals_tensorflows():
    import tensorflow as tf

    x = np.linspace(-4, 4, 101, dtype=np.float32)
    np.testing.assert_allclose(by_rule("Erfc", tf.constant(x)), tf.math.erfc(x), atol=1e-6)


def test_the_sum_of_a_weights_gradients_over_time_runs_at_any_batch_size():
    """As in a recurrent layer, whose products become one."""

    def gradient(x, y):
        products = [
            by_rule("MatMul", x[:, time], y[:, time], transpose_a=True) for time in range(3)
        ]
        return by_rule("AddN", *products)

    function = DeviceFunction(gradient, [normal(0, 2, 3, 4), normal(1, 2, 3, 5)], dynamic=(0, 1))
    for size in (1, 2, 7):
        x, y = normal(size, size, 3, 4), normal(size + 1, size, 3, 5)
        expected = np.einsum("bti,btj->ij", x, y)
        np.testing.assert_allclose(function(x, y)[0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_sum_of_tensors_equals_numpys(count):
    terms = [normal(index, 3, 4) for index in range(count)]
    (ours,) = on_device(lambda *x: by_rule("AddN", *x), *terms, dynamic=range(count))
    np.testing.assert_allclose(ours, sum(terms), rtol=1e-5, atol=1e-6)


def test_adding_zeros_of_the_batchs_size_adds_nothing_on_the_device():
    import tensorflow as tf

    from tflite_models.lowering import batch
    from tflite_models.lowering.lowered import lower

    def body(x):
        zeros = tf.fill(np.array([batch.PRIMES[0], 3], np.int32), 0.0)
        return [by_rule("AddV2", by_rule("AddN", zeros, x), zeros)]

    spec = tf.TensorSpec([None, 3], tf.float32)
    lowered = lower(body, [spec], generic=batch.PRIMES[0], profile="modern")
    assert not {node.op for node in lowered.graph.node} & {"AddV2", "AddN"}
    x = normal(0, 4, 3)
    np.testing.assert_array_equal(on_device(lambda x: lowered(x), x)[0], x)


@pytest.mark.parametrize("bounds", [(0, 6), (0, 1), (-1, 1), (2, 5)])
@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.float32])
def test_numbers_are_clipped_as_in_numpy_where_the_converter_sees_an_activation(bounds, dtype):
    x = np.arange(-8, 9).astype(dtype)
    low, high = (np.asarray(bound, dtype) for bound in bounds)
    (ours,) = on_device(lambda x: by_rule("ClipByValue", x, low, high), x)
    np.testing.assert_array_equal(ours, np.clip(x, *bounds))
