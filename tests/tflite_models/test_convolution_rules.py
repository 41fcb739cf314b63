"""Convolutions and their gradients by the rules equal TensorFlow's own."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tflite_models.on_device import DeviceFunction


@dataclass(frozen=True)
class Case:
    """A convolution: random input, filter and gradient of the output."""

    x: np.ndarray
    weights: np.ndarray
    dy: np.ndarray
    strides: tuple[int, int]
    dilations: tuple[int, int]
    padding: str
    explicit: tuple[int, ...]

    @property
    def attributes(self) -> dict[str, Any]:
        return {
            "strides": [1, *self.strides, 1],
            "dilations": [1, *self.dilations, 1],
            "padding": self.padding,
            "explicit_paddings": list(self.explicit),
        }


def convolution(
    seed: int,
    *,
    batch: int,
    sides: tuple[int, int],
    kernel: tuple[int, int],
    channels: tuple[int, int],
    strides: tuple[int, int] = (1, 1),
    dilations: tuple[int, int] = (1, 1),
    padding: str = "SAME",
    explicit: tuple[int, ...] = (),
) -> Case:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((batch, *sides, channels[0]), np.float32)
    weights = rng.standard_normal((*kernel, *channels), np.float32)
    without_dy = Case(x, weights, x, strides, dilations, padding, explicit)
    shape = theirs(without_dy, gradients=False)[0].shape
    dy = rng.standard_normal(shape, np.float32)
    return Case(x, weights, dy, strides, dilations, padding, explicit)


@st.composite
def convolutions(draw, max_side: int = 10) -> Case:
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    dilations = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    padding = draw(st.sampled_from(["SAME", "VALID", "EXPLICIT"]))
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    explicit: tuple[int, ...] = ()
    smallest = [1, 1] if padding == "SAME" else extent
    if padding == "EXPLICIT":
        rims = draw(st.tuples(*[st.integers(0, 3)] * 4))
        explicit = (0, 0, *rims, 0, 0)
        smallest = [max(1, extent[0] - sum(rims[:2])), max(1, extent[1] - sum(rims[2:]))]
    sides = tuple(draw(st.integers(least, max(least, max_side))) for least in smallest)
    return convolution(
        draw(st.integers(0, 2**32 - 1)),
        batch=draw(st.integers(1, 3)),
        sides=(sides[0], sides[1]),
        kernel=kernel,
        channels=draw(st.tuples(st.integers(1, 4), st.integers(1, 4))),
        strides=draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        dilations=dilations,
        padding=padding,
        explicit=explicit,
    )


def theirs(case: Case, *, gradients: bool = True) -> list[np.ndarray]:
    """Output, filter gradient and input gradient by TensorFlow's operations.

    They have no gradients of dilated filters on the CPU: those are convolutions
    with the filter's zeros written out, of whose gradient every d-th entry counts.
    """
    import tensorflow as tf

    down, across = case.dilations
    kernel = [(k - 1) * d + 1 for k, d in zip(case.weights.shape[:2], case.dilations, strict=True)]
    wide = np.zeros((*kernel, *case.weights.shape[2:]), np.float32)
    wide[::down, ::across] = case.weights
    attributes = {**case.attributes, "dilations": [1, 1, 1, 1]}
    if not gradients:
        return [np.asarray(tf.raw_ops.Conv2D(input=case.x, filter=wide, **attributes))]
    y = tf.raw_ops.Conv2D(input=case.x, filter=wide, **attributes)
    dw = tf.raw_ops.Conv2DBackpropFilter(
        input=case.x, filter_sizes=wide.shape, out_backprop=case.dy, **attributes
    )
    dx = tf.raw_ops.Conv2DBackpropInput(
        input_sizes=case.x.shape, filter=wide, out_backprop=case.dy, **attributes
    )
    return [np.asarray(y), np.asarray(dw)[::down, ::across], np.asarray(dx)]


def ours(case: Case, x: Any, weights: Any, dy: Any, sizes: Any) -> list[Any]:
    from tflite_models.lowering.rules import RULES

    attributes = case.attributes
    y = RULES["Conv2D"].apply([x, weights], attributes)
    shape = np.array(case.weights.shape, np.int32)
    dw = RULES["Conv2DBackpropFilter"].apply([x, shape, dy], attributes)
    dx = RULES["Conv2DBackpropInput"].apply([sizes, weights, dy], attributes)
    return [*y, *dw, *dx]


def eagerly(case: Case) -> list[np.ndarray]:
    import tensorflow as tf

    sizes = np.array(case.x.shape, np.int32)
    arrays = (tf.constant(array) for array in (case.x, case.weights, case.dy))
    return [np.asarray(value) for value in ours(case, *arrays, sizes)]


def assert_same(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for mine, other in zip(found, expected, strict=True):
        assert mine.shape == other.shape
        scale = max(1.0, float(np.abs(other).max(initial=0)))
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-5 * scale)


@given(convolutions())
@settings(max_examples=60)
def test_convolution_and_its_gradients_equal_tensorflows(case):
    assert_same(eagerly(case), theirs(case))


#: What decides between the forms of a convolution.
FORMS = [
    {"MAX_TABLE": 0},
    {"MAX_TABLE": 0, "MAX_PATCHES": 0},
    {"MIN_ROW": 0},
    {"MIN_ROW": 0, "MIN_PAIRED_WIDTH": 1},
    {"MAX_TABLE": 0, "MAX_PATCHES": 0, "MIN_ROW": 0, "MIN_PAIRED_WIDTH": 1},
]


@pytest.mark.parametrize("form", FORMS)
@given(case=convolutions())
@settings(max_examples=25)
def test_convolution_in_each_form_equals_tensorflows(form, case):
    from tflite_models.lowering.rules import patches

    with pytest.MonkeyPatch.context() as patch:
        for name, limit in form.items():
            patch.setattr(patches, name, limit)
        assert_same(eagerly(case), theirs(case))


#: What layers emit: same, strided, dilated, 1x1, explicit and one-dimensional.
LAYERS = [
    {"sides": (9, 7), "kernel": (3, 3), "channels": (3, 4)},
    {"sides": (9, 8), "kernel": (3, 5), "channels": (2, 3), "strides": (2, 2)},
    {"sides": (9, 8), "kernel": (2, 2), "channels": (2, 3), "strides": (3, 2), "padding": "VALID"},
    {"sides": (9, 11), "kernel": (3, 2), "channels": (2, 3), "dilations": (2, 3)},
    {
        "sides": (9, 11),
        "kernel": (3, 3),
        "channels": (2, 3),
        "strides": (2, 3),
        "dilations": (3, 2),
    },
    {"sides": (5, 6), "kernel": (1, 1), "channels": (4, 2)},
    {"sides": (5, 6), "kernel": (1, 1), "channels": (4, 2), "strides": (2, 2)},
    {
        "sides": (6, 6),
        "kernel": (3, 3),
        "channels": (2, 2),
        "padding": "EXPLICIT",
        "explicit": (0, 0, 2, 0, 1, 3, 0, 0),
    },
    {"sides": (1, 12), "kernel": (1, 5), "channels": (3, 4), "padding": "VALID"},
]


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("form", [FORMS[0], FORMS[3], FORMS[4]])
def test_convolution_on_the_device_equals_tensorflows_at_every_batch_size(layer, form, monkeypatch):
    import tensorflow as tf

    from tflite_models.lowering.rules import patches

    for name, limit in form.items():
        monkeypatch.setattr(patches, name, limit)
    first = convolution(7, batch=4, **layer)

    def function(x: Any, weights: Any, dy: Any) -> list[Any]:
        sizes = tf.concat([tf.shape(x)[:1], first.x.shape[1:]], axis=0)
        return ours(first, x, weights, dy, sizes)

    device = DeviceFunction(function, [first.x, first.weights, first.dy], dynamic=(0, 2))
    for batch in (4, 1, 7):
        case = convolution(8 + batch, batch=batch, **layer)
        assert_same(device(case.x, case.weights, case.dy), theirs(case))


@pytest.mark.parametrize("groups", [2, 3])
def test_grouped_convolution_equals_one_convolution_per_group(groups):
    settings = {"batch": 2, "sides": (7, 6), "kernel": (3, 2), "strides": (2, 1)}
    parts = [convolution(i, channels=(2, 4), **settings) for i in range(groups)]
    whole = Case(
        *(np.concatenate([getattr(p, n) for p in parts], axis=3) for n in ("x", "weights", "dy")),
        parts[0].strides,
        parts[0].dilations,
        parts[0].padding,
        parts[0].explicit,
    )
    expected = [np.concatenate(v, axis=3) for v in zip(*map(theirs, parts), strict=True)]
    assert_same(eagerly(whole), expected)


def test_convolution_with_channels_first_equals_that_with_channels_last():
    import tensorflow as tf

    from tflite_models.lowering.rules import RULES

    case = convolution(3, batch=2, sides=(7, 9), kernel=(3, 2), channels=(2, 3), strides=(2, 3))
    attributes = {**case.attributes, "strides": [1, 1, 2, 3], "data_format": "NCHW"}
    x, dy = (tf.constant(array.transpose(0, 3, 1, 2)) for array in (case.x, case.dy))
    sizes, shape = np.array(x.shape, np.int32), np.array(case.weights.shape, np.int32)
    (y,) = RULES["Conv2D"].apply([x, tf.constant(case.weights)], attributes)
    (dw,) = RULES["Conv2DBackpropFilter"].apply([x, shape, dy], attributes)
    (dx,) = RULES["Conv2DBackpropInput"].apply([sizes, tf.constant(case.weights), dy], attributes)
    found = [np.transpose(y, (0, 2, 3, 1)), np.asarray(dw), np.transpose(dx, (0, 2, 3, 1))]
    assert_same(found, theirs(case))


@given(convolutions())
@settings(max_examples=30)
def test_image_patches_equal_tensorflows(case):
    import tensorflow as tf

    from tflite_models.lowering.rules import RULES

    attributes = {
        "ksizes": [1, *case.weights.shape[:2], 1],
        "strides": case.attributes["strides"],
        "rates": case.attributes["dilations"],
        "padding": "SAME",
    }
    expected = tf.raw_ops.ExtractImagePatches(images=case.x, **attributes)
    (found,) = RULES["ExtractImagePatches"].apply([tf.constant(case.x)], attributes)
    np.testing.assert_array_equal(found, expected)
