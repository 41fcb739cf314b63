"""Resizing and its gradients by the rules equal TensorFlow's own."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tflite_models.on_device import DeviceFunction

KINDS = ("NearestNeighbor", "Bilinear", "Bicubic")

#: align_corners and half_pixel_centers, which exclude each other.
CENTERS = [(False, False), (True, False), (False, True)]


def apply(op: str, inputs: list[Any], attributes: dict[str, Any]) -> np.ndarray:
    from tflite_models.lowering.rules import RULES

    (output,) = RULES[op].apply(inputs, attributes)
    return np.asarray(output)


def centers(pair: tuple[bool, bool]) -> dict[str, bool]:
    return {"align_corners": pair[0], "half_pixel_centers": pair[1]}


def their_gradient(kind: str, dy: Any, x: Any, attributes: dict[str, Any]) -> np.ndarray:
    import tensorflow as tf

    if kind == "NearestNeighbor":
        gradient = tf.raw_ops.ResizeNearestNeighborGrad
        return np.asarray(gradient(grads=dy, size=x.shape[1:3], **attributes))
    gradient = getattr(tf.raw_ops, f"Resize{kind}Grad")
    return np.asarray(gradient(grads=dy, original_image=x, **attributes))


def image_input(kind: str, x: Any) -> Any:
    """What the gradient receives of the image: its size, or itself."""
    return np.array(x.shape[1:3], np.int32) if kind == "NearestNeighbor" else x


SIDES = st.tuples(st.integers(1, 7), st.integers(1, 7))


@pytest.mark.parametrize("kind", KINDS)
@given(sides=SIDES, new=SIDES, pair=st.sampled_from(CENTERS), batch=st.integers(1, 3))
@settings(max_examples=30)
def test_gradient_of_resizing_equals_tensorflows(kind, sides, new, pair, batch):
    import tensorflow as tf

    rng = np.random.default_rng(batch)
    x = tf.constant(rng.standard_normal((batch, *sides, 2)).astype(np.float32))
    dy = tf.constant(rng.standard_normal((batch, *new, 2)).astype(np.float32))
    found = apply(f"Resize{kind}Grad", [dy, image_input(kind, x)], centers(pair))
    expected = their_gradient(kind, dy, x, centers(pair))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@given(sides=SIDES, factors=st.tuples(st.integers(1, 4), st.integers(1, 4)))
@settings(max_examples=30)
def test_gradient_of_enlarging_by_whole_factors_is_the_sum_over_copies(sides, factors):
    import tensorflow as tf

    new = [side * factor for side, factor in zip(sides, factors, strict=True)]
    dy = np.random.default_rng(0).standard_normal((2, *new, 3)).astype(np.float32)
    size = np.array(sides, np.int32)
    found = apply("ResizeNearestNeighborGrad", [tf.constant(dy), size], centers((False, True)))
    blocks = dy.reshape(2, sides[0], factors[0], sides[1], factors[1], 3)
    np.testing.assert_allclose(found, blocks.sum(axis=(2, 4)), rtol=1e-5, atol=1e-5)


@given(sides=SIDES, new=SIDES, pair=st.sampled_from(CENTERS))
@settings(max_examples=30)
def test_bicubic_resizing_equals_tensorflows(sides, new, pair):
    import tensorflow as tf

    x = np.random.default_rng(0).standard_normal((2, *sides, 3)).astype(np.float32)
    size = np.array(new, np.int32)
    expected = tf.raw_ops.ResizeBicubic(images=x, size=size, **centers(pair))
    found = apply("ResizeBicubic", [tf.constant(x), size], centers(pair))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("new", [(8, 9), (5, 2)])
def test_resizing_on_the_device_equals_tensorflows_at_every_batch_size(kind, new):
    import tensorflow as tf

    from tflite_models.lowering.rules import RULES

    attributes = centers((False, True))

    def function(x: Any, dy: Any) -> list[Any]:
        (dx,) = RULES[f"Resize{kind}Grad"].apply([dy, image_input(kind, x)], attributes)
        if kind != "Bicubic":
            return [dx]
        return [dx, *RULES["ResizeBicubic"].apply([x, np.array(new, np.int32)], attributes)]

    def draw(batch: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(batch)
        shapes = (batch, 4, 3, 2), (batch, *new, 2)
        x, dy = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
        return x, dy

    device = DeviceFunction(function, draw(4), dynamic=(0, 1))
    for batch in (4, 1, 7):
        x, dy = draw(batch)
        expected = [their_gradient(kind, dy, x, attributes)]
        if kind == "Bicubic":
            expected += [np.asarray(tf.raw_ops.ResizeBicubic(images=x, size=new, **attributes))]
        for mine, theirs in zip(device(x, dy), expected, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)
