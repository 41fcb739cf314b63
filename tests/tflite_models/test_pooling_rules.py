"""Pooling and its gradients by the rules equal TensorFlow's own."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tflite_models.on_device import DeviceFunction


def apply(op: str, *inputs: Any, **attributes: Any) -> np.ndarray:
    from tflite_models.lowering.rules import RULES

    (output,) = RULES[op].apply(list(inputs), attributes)
    return np.asarray(output)


@st.composite
def pools(draw) -> tuple[np.ndarray, dict[str, Any]]:
    """An input with few distinct values, so that windows have ties, and a window."""
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    padding = draw(st.sampled_from(["SAME", "VALID"]))
    least = kernel if padding == "VALID" else (1, 1)
    shape = (
        draw(st.integers(1, 3)),
        draw(st.integers(least[0], 9)),
        draw(st.integers(least[1], 9)),
        draw(st.integers(1, 3)),
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = draw(st.integers(1, 8))
    x = rng.integers(-values, values, shape).astype(np.float32)
    strides = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    return x, {"ksize": [1, *kernel, 1], "strides": [1, *strides, 1], "padding": padding}


def gradient_like(y: Any, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(y.shape).astype(np.float32)


@given(pools())
@settings(max_examples=50)
def test_max_pooling_gives_the_gradient_to_the_entry_that_tensorflow_chooses(pool):
    import tensorflow as tf

    x, window = pool
    y = np.asarray(tf.raw_ops.MaxPool(input=x, **window))
    dy = gradient_like(y)
    np.testing.assert_array_equal(apply("MaxPool", x, **window), y)
    expected = tf.raw_ops.MaxPoolGrad(orig_input=x, orig_output=y, grad=dy, **window)
    tensors = (tf.constant(value) for value in (x, y, dy))
    np.testing.assert_allclose(apply("MaxPoolGrad", *tensors, **window), expected, atol=2e-6)


@given(pools())
@settings(max_examples=50)
def test_average_pooling_and_its_gradient_equal_tensorflows(pool):
    import tensorflow as tf

    x, window = pool
    y = np.asarray(tf.raw_ops.AvgPool(value=x, **window))
    dy = gradient_like(y)
    np.testing.assert_array_equal(apply("AvgPool", x, **window), y)
    sizes = np.array(x.shape, np.int32)
    expected = tf.raw_ops.AvgPoolGrad(orig_input_shape=sizes, grad=dy, **window)
    found = apply("AvgPoolGrad", sizes, tf.constant(dy), **window)
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_max_pooling_with_explicit_padding_ignores_the_padding():
    import tensorflow as tf

    x = -1.0 - np.random.default_rng(0).random((2, 5, 6, 3), np.float32)
    window = {
        "ksize": [1, 3, 2, 1],
        "strides": [1, 2, 2, 1],
        "padding": "EXPLICIT",
        "explicit_paddings": [0, 0, 1, 2, 0, 1, 0, 0],
    }
    y = np.asarray(tf.raw_ops.MaxPool(input=x, **window))
    dy = gradient_like(y)
    np.testing.assert_array_equal(apply("MaxPool", x, **window), y)
    expected = tf.raw_ops.MaxPoolGrad(orig_input=x, orig_output=y, grad=dy, **window)
    tensors = (tf.constant(value) for value in (x, y, dy))
    np.testing.assert_allclose(apply("MaxPoolGrad", *tensors, **window), expected, atol=2e-6)


def test_pooling_whose_window_is_an_input_equals_pooling_whose_window_is_an_attribute():
    import tensorflow as tf

    x = np.random.default_rng(0).standard_normal((2, 6, 6, 3)).astype(np.float32)
    size, strides = np.array([1, 3, 2, 1], np.int32), np.array([1, 2, 2, 1], np.int32)
    y = np.asarray(tf.raw_ops.MaxPoolV2(input=x, ksize=size, strides=strides, padding="SAME"))
    dy = gradient_like(y)
    np.testing.assert_array_equal(apply("MaxPoolV2", x, size, strides, padding="SAME"), y)
    expected = tf.raw_ops.MaxPoolGradV2(
        orig_input=x, orig_output=y, grad=dy, ksize=size, strides=strides, padding="SAME"
    )
    tensors = [tf.constant(value) for value in (x, y, dy)]
    found = apply("MaxPoolGradV2", *tensors, size, strides, padding="SAME")
    np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("kind", ["Max", "Avg"])
def test_pooling_with_channels_first_equals_that_with_channels_last(kind):
    import tensorflow as tf

    x = np.random.default_rng(0).standard_normal((2, 3, 7, 6)).astype(np.float32)
    first = {"ksize": [1, 1, 3, 2], "strides": [1, 1, 2, 1], "padding": "SAME"}
    last = {"ksize": [1, 3, 2, 1], "strides": [1, 2, 1, 1], "padding": "SAME"}
    sizes, moved = np.array(x.shape, np.int32), x.transpose(0, 2, 3, 1)
    y = apply(f"{kind}Pool", x, **first, data_format="NCHW")
    expected = apply(f"{kind}Pool", moved, **last)
    np.testing.assert_array_equal(y.transpose(0, 2, 3, 1), expected)
    dy = gradient_like(y)
    if kind == "Max":
        tensors = [tf.constant(value) for value in (x, y, dy)]
        found = apply("MaxPoolGrad", *tensors, **first, data_format="NCHW")
        gradient = tf.raw_ops.MaxPoolGrad(
            orig_input=moved, orig_output=expected, grad=dy.transpose(0, 2, 3, 1), **last
        )
    else:
        found = apply("AvgPoolGrad", sizes, tf.constant(dy), **first, data_format="NCHW")
        gradient = tf.raw_ops.AvgPoolGrad(
            orig_input_shape=moved.shape, grad=dy.transpose(0, 2, 3, 1), **last
        )
    np.testing.assert_allclose(found.transpose(0, 2, 3, 1), gradient, atol=2e-6)


#: Sides, window, strides, padding: as layers have them, in one dimension too.
LAYERS = [
    ((8, 8), (2, 2), (2, 2), "VALID"),
    ((7, 9), (2, 2), (2, 2), "SAME"),
    ((7, 9), (3, 3), (2, 2), "SAME"),
    ((6, 5), (3, 2), (1, 1), "VALID"),
    ((9, 10), (2, 3), (3, 4), "VALID"),
    ((12, 1), (2, 1), (2, 1), "VALID"),
    ((12, 1), (3, 1), (2, 1), "SAME"),
]


@pytest.mark.parametrize(("sides", "kernel", "strides", "padding"), LAYERS)
def test_pooling_on_the_device_equals_tensorflows_at_every_batch_size(
    sides, kernel, strides, padding
):
    import tensorflow as tf

    from tflite_models.lowering.rules import RULES

    window = {"ksize": [1, *kernel, 1], "strides": [1, *strides, 1], "padding": padding}

    def ours(x: Any, dy: Any) -> list[Any]:
        (largest,) = RULES["MaxPool"].apply([x], window)
        (mean,) = RULES["AvgPool"].apply([x], window)
        (taken,) = RULES["MaxPoolGrad"].apply([x, largest, dy], window)
        sizes = tf.concat([tf.shape(dy)[:1], x.shape[1:]], axis=0)
        (shared,) = RULES["AvgPoolGrad"].apply([sizes, dy], window)
        return [largest, mean, taken, shared]

    def theirs(x: Any, dy: Any) -> list[Any]:
        largest = tf.raw_ops.MaxPool(input=x, **window)
        return [
            largest,
            tf.raw_ops.AvgPool(value=x, **window),
            tf.raw_ops.MaxPoolGrad(orig_input=x, orig_output=largest, grad=dy, **window),
            tf.raw_ops.AvgPoolGrad(orig_input_shape=x.shape, grad=dy, **window),
        ]

    def draw(batch: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(batch)
        x = rng.integers(-2, 3, (batch, *sides, 3)).astype(np.float32)
        return x, gradient_like(tf.raw_ops.AvgPool(value=x, **window))

    device = DeviceFunction(ours, draw(4), dynamic=(0, 1))
    for batch in (4, 1, 7):
        x, dy = draw(batch)
        for found, expected in zip(device(x, dy), theirs(x, dy), strict=True):
            np.testing.assert_allclose(found, expected, atol=2e-6)
