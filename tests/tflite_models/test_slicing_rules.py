"""Slices, paddings and reversals by rule equal TensorFlow's, on the device runtime too."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tflite_models.on_device import DeviceFunction, on_device

SEEDS = st.integers(0, 2**32 - 1)


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def by_rule(op: str, *inputs: object, **attributes: object):
    from tflite_models.lowering.rules import RULES

    (output,) = RULES[op].apply(list(inputs), attributes)
    return output


@st.composite
def slices(draw):
    """A shape, and begin, end, strides and masks of a slice expression for it."""
    shape = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    terms: list[str] = [
        draw(st.sampled_from(["bounds", "open", "shrink"]))
        for _ in range(draw(st.integers(0, len(shape))))
    ]
    if draw(st.booleans()):
        terms.insert(draw(st.integers(0, len(terms))), "ellipsis")
    elif not terms:
        terms.append("open")
    for _ in range(draw(st.integers(0, 2))):
        terms.insert(draw(st.integers(0, len(terms))), "new")
    bounds, masks = [], dict.fromkeys(("begin", "end", "ellipsis", "new_axis", "shrink_axis"), 0)
    axis = 0
    explicit = sum(term in ("bounds", "open", "shrink") for term in terms)
    for index, term in enumerate(terms):
        bit = 1 << index
        bounds.append((0, 0, 1))
        if term == "ellipsis":
            masks["ellipsis"] |= bit
            axis += len(shape) - explicit
            continue
        if term == "new":
            masks["new_axis"] |= bit
            continue
        side = shape[axis]
        axis += 1
        if term == "shrink":
            masks["shrink_axis"] |= bit
            at = draw(st.integers(-side, side - 1))
            bounds[-1] = (at, at + 1, 1)
            continue
        edge = st.integers(-side - 1, side + 1)
        bounds[-1] = (draw(edge), draw(edge), draw(st.sampled_from([-3, -2, -1, 1, 2, 3])))
        if term == "open":
            masks["begin"] |= bit * draw(st.integers(0, 1))
            masks["end"] |= bit * draw(st.integers(0, 1))
    begin, end, strides = (np.array(part, np.int32) for part in zip(*bounds, strict=True))
    return tuple(shape), begin, end, strides, {f"{k}_mask": v for k, v in masks.items()}


@given(slices(), SEEDS)
@settings(max_examples=300)
def test_the_gradient_of_a_slice_equals_tensorflows(expression, seed):
    import tensorflow as tf

    shape, begin, end, strides, masks = expression
    bounds = {"begin": begin, "end": end, "strides": strides}
    part = tf.raw_ops.StridedSlice(input=np.zeros(shape, np.float32), **bounds, **masks)
    dy = normal(seed, *part.shape)
    shape = np.array(shape, np.int32)
    expected = tf.raw_ops.StridedSliceGrad(shape=shape, dy=dy, **bounds, **masks)
    ours = by_rule("StridedSliceGrad", shape, begin, end, strides, tf.constant(dy), **masks)
    np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize(
    "take",
    [
        lambda x: x[:, 1:5:2],
        lambda x: x[:, ::-1],
        lambda x: x[:, -2],
        lambda x: x[:, None, 3:, 1],
        lambda x: x[..., ::3],
        lambda x: x[:, 4:0:-2, 1:],
    ],
    ids=["stride", "backwards", "one", "new axis", "ellipsis", "backwards stride"],
)
def test_the_gradient_of_a_slice_runs_at_any_batch_size(take):
    """Through the walk, which knows the batch as a number while it lowers."""
    import tensorflow as tf

    from tflite_models.lowering import batch
    from tflite_models.lowering.graph_walk import GraphWalk
    from tflite_models.lowering.lowered import lower

    @tf.function(input_signature=[tf.TensorSpec([None, 6, 4], tf.float32)])
    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            part = take(x)
            loss = tf.reduce_sum(part * part * part)
        return tf.identity(tape.gradient(loss, x), name="result")

    graph = gradient.get_concrete_function().graph
    (placeholder,) = [op.name for op in graph.get_operations() if op.type == "Placeholder"]
    lowered = lower(
        lambda x: GraphWalk(graph.as_graph_def(add_shapes=False)).run(
            {placeholder: x}, [graph.outputs[0].name]
        ),
        [tf.TensorSpec([None, 6, 4], tf.float32)],
        generic=batch.PRIMES[0],
        profile="modern",
    )
    function = DeviceFunction(lambda x: lowered(x), [normal(0, 2, 6, 4)])
    for size in (1, 2, 5):
        x = normal(size, size, 6, 4)
        np.testing.assert_allclose(function(x)[0], gradient(x), rtol=1e-5, atol=1e-6)


@given(
    st.lists(
        st.tuples(st.integers(2, 4), st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=6
    ),
    SEEDS,
)
@settings(max_examples=40)
def test_padding_equals_tensorflows_for_many_axes_too(axes, seed):
    import tensorflow as tf

    x = normal(seed, *(side for side, _, _ in axes))
    paddings = np.array([margins for _, *margins in axes], np.int32)
    np.testing.assert_array_equal(by_rule("Pad", tf.constant(x), paddings), tf.pad(x, paddings))


@pytest.mark.parametrize("mode", ["REFLECT", "SYMMETRIC"])
@given(
    st.lists(
        st.tuples(st.integers(3, 5), st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=3
    ),
    SEEDS,
)
@settings(max_examples=30)
def test_the_gradient_of_mirroring_equals_tensorflows(mode, axes, seed):
    import tensorflow as tf

    paddings = np.array([margins for _, *margins in axes], np.int32)
    dy = tf.constant(normal(seed, *(sum(axis) for axis in axes)))
    with tf.GradientTape() as tape:
        x = tf.zeros([side for side, _, _ in axes])
        tape.watch(x)
        y = tf.raw_ops.MirrorPad(input=x, paddings=paddings, mode=mode)
    expected = tape.gradient(y, x, output_gradients=dy)
    ours = by_rule("MirrorPadGrad", dy, paddings, mode=mode)
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("axes", [[1], [1, 2], [2, 1, 3]])
def test_reversing_several_axes_runs_right_on_the_device(axes):
    x = normal(0, 3, 4, 2, 5)
    (ours,) = on_device(lambda x: by_rule("ReverseV2", x, np.array(axes, np.int32)), x)
    np.testing.assert_array_equal(ours, np.flip(x, axes))


@given(st.data())
@settings(max_examples=40)
def test_rolling_equals_tensorflows(data):
    import tensorflow as tf

    shape = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    axes = data.draw(st.lists(st.integers(-len(shape), len(shape) - 1), min_size=1, max_size=3))
    shift = [data.draw(st.integers(-7, 7)) for _ in axes]
    x = normal(0, *shape)
    ours = by_rule("Roll", tf.constant(x), np.array(shift, np.int32), np.array(axes, np.int32))
    np.testing.assert_array_equal(ours, tf.roll(x, shift, axes))


def test_rolling_by_an_amount_known_only_on_the_device_is_refused():
    import tensorflow as tf

    with pytest.raises(ValueError, match="depends on the data"):
        by_rule("Roll", tf.zeros([2, 3]), tf.constant(1), np.array(1))


@given(st.integers(1, 5), st.integers(1, 5), st.integers(-1, 4), st.integers(-1, 4), st.booleans())
@settings(max_examples=40)
def test_a_band_equals_tensorflows(rows, columns, lower, upper, boolean):
    import tensorflow as tf

    x = normal(0, 2, rows, columns)
    x = x > 0 if boolean else x
    # TensorFlow wants a band no wider than the matrix.
    lower, upper = min(lower, rows), min(upper, columns)
    expected = tf.linalg.band_part(x, lower, upper)
    ours = by_rule("MatrixBandPart", tf.constant(x), np.int64(lower), np.int64(upper))
    np.testing.assert_array_equal(ours, expected)
