"""Depthwise convolutions and their gradients by the rules equal TensorFlow's own."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tflite_models.on_device import DeviceFunction


@dataclass(frozen=True)
class Case:
    """A depthwise convolution: random input, filter and gradient of the output."""

    x: np.ndarray
    weights: np.ndarray
    dy: np.ndarray
    attributes: dict[str, Any]
    dilations: tuple[int, int] = (1, 1)


def case(
    seed: int,
    *,
    batch: int,
    sides: tuple[int, int],
    kernel: tuple[int, int],
    channels: tuple[int, int],
    stride: int = 1,
    dilations: tuple[int, int] = (1, 1),
    padding: str = "SAME",
    explicit: tuple[int, ...] = (),
) -> Case:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((batch, *sides, channels[0])).astype(np.float32)
    weights = rng.standard_normal((*kernel, *channels)).astype(np.float32)
    attributes = {
        "strides": [1, stride, stride, 1],
        "padding": padding,
        "explicit_paddings": list(explicit),
    }
    shape = theirs(Case(x, weights, x, attributes, dilations), gradients=False)[0].shape
    dy = rng.standard_normal(shape).astype(np.float32)
    return Case(x, weights, dy, attributes, dilations)


@st.composite
def cases(draw) -> Case:
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    dilations = draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (2, 3)]))
    padding = draw(st.sampled_from(["SAME", "VALID", "EXPLICIT"]))
    explicit: tuple[int, ...] = ()
    if padding == "EXPLICIT":
        explicit = (0, 0, *draw(st.tuples(*[st.integers(0, 2)] * 4)), 0, 0)
    least = [1, 1]
    if padding != "SAME":
        least = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    return case(
        draw(st.integers(0, 2**32 - 1)),
        batch=draw(st.integers(1, 3)),
        sides=(draw(st.integers(least[0], 11)), draw(st.integers(least[1], 11))),
        kernel=kernel,
        channels=draw(st.tuples(st.integers(1, 4), st.integers(1, 3))),
        stride=draw(st.integers(1, 3)),
        dilations=dilations,
        padding=padding,
        explicit=explicit,
    )


def theirs(case: Case, *, gradients: bool = True) -> list[np.ndarray]:
    """By TensorFlow's operations, a dilated filter with its zeros written out."""
    import tensorflow as tf

    down, across = case.dilations
    kernel = [(k - 1) * d + 1 for k, d in zip(case.weights.shape[:2], case.dilations, strict=True)]
    wide = np.zeros((*kernel, *case.weights.shape[2:]), np.float32)
    wide[::down, ::across] = case.weights
    ops, attributes = tf.raw_ops, case.attributes
    y = ops.DepthwiseConv2dNative(input=case.x, filter=wide, **attributes)
    if not gradients:
        return [np.asarray(y)]
    dw = ops.DepthwiseConv2dNativeBackpropFilter(
        input=case.x, filter_sizes=wide.shape, out_backprop=case.dy, **attributes
    )
    dx = ops.DepthwiseConv2dNativeBackpropInput(
        input_sizes=case.x.shape, filter=wide, out_backprop=case.dy, **attributes
    )
    return [np.asarray(y), np.asarray(dw)[::down, ::across], np.asarray(dx)]


def ours(case: Case, x: Any, weights: Any, dy: Any, sizes: Any) -> list[Any]:
    from tflite_models.lowering.rules import RULES

    attributes = {**case.attributes, "dilations": [1, *case.dilations, 1]}
    y = RULES["DepthwiseConv2dNative"].apply([x, weights], attributes)
    shape = np.array(case.weights.shape, np.int32)
    dw = RULES["DepthwiseConv2dNativeBackpropFilter"].apply([x, shape, dy], attributes)
    dx = RULES["DepthwiseConv2dNativeBackpropInput"].apply([sizes, weights, dy], attributes)
    return [*y, *dw, *dx]


def assert_same(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for mine, other in zip(found, expected, strict=True):
        assert mine.shape == other.shape
        scale = max(1.0, float(np.abs(other).max(initial=0)))
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-5 * scale)


@given(cases())
@settings(max_examples=60)
def test_depthwise_convolution_and_its_gradients_equal_tensorflows(case):
    import tensorflow as tf

    tensors = [tf.constant(array) for array in (case.x, case.weights, case.dy)]
    found = ours(case, *tensors, np.array(case.x.shape, np.int32))
    assert_same([np.asarray(value) for value in found], theirs(case))


LAYERS = [
    {"sides": (7, 8), "kernel": (3, 3), "channels": (4, 1)},
    {"sides": (7, 8), "kernel": (3, 2), "channels": (3, 2), "stride": 2},
    {"sides": (9, 8), "kernel": (3, 3), "channels": (2, 3), "dilations": (2, 2)},
    {"sides": (8, 8), "kernel": (2, 3), "channels": (3, 1), "stride": 3, "padding": "VALID"},
    {
        "sides": (6, 6),
        "kernel": (3, 3),
        "channels": (2, 2),
        "stride": 2,
        "padding": "EXPLICIT",
        "explicit": (0, 0, 0, 1, 0, 1, 0, 0),
    },
    {"sides": (1, 12), "kernel": (1, 5), "channels": (3, 2)},
]


@pytest.mark.parametrize("layer", LAYERS)
def test_depthwise_convolution_on_the_device_equals_tensorflows_at_every_batch_size(layer):
    import tensorflow as tf

    first = case(7, batch=4, **layer)

    def function(x: Any, weights: Any, dy: Any) -> list[Any]:
        sizes = tf.concat([tf.shape(x)[:1], first.x.shape[1:]], axis=0)
        return ours(first, x, weights, dy, sizes)

    device = DeviceFunction(function, [first.x, first.weights, first.dy], dynamic=(0, 2))
    for batch in (4, 1, 7):
        other = case(8 + batch, batch=batch, **layer)
        assert_same(device(other.x, other.weights, other.dy), theirs(other))


def test_depthwise_convolution_with_channels_first_equals_that_with_channels_last():
    import tensorflow as tf

    last = case(3, batch=2, sides=(7, 9), kernel=(3, 2), channels=(2, 3), stride=2)
    attributes = {**last.attributes, "strides": [1, 1, 2, 2], "data_format": "NCHW"}
    x, dy = (tf.constant(array.transpose(0, 3, 1, 2)) for array in (last.x, last.dy))
    first = Case(last.x, last.weights, last.dy, attributes)
    y, dw, dx = ours(first, x, tf.constant(last.weights), dy, np.array(x.shape, np.int32))
    found = [np.transpose(y, (0, 2, 3, 1)), np.asarray(dw), np.transpose(dx, (0, 2, 3, 1))]
    assert_same(found, theirs(last))
