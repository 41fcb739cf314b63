"""Every rule computes what TensorFlow's own operation computes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

SHAPES = arrays.array_shapes(min_dims=1, max_dims=3, max_side=5)


def floats(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, width=32, allow_subnormal=False)


@st.composite
def pairs(draw, low: float = -4.0, high: float = 4.0):
    """Two arrays of the same shape; the first within the bounds."""
    shape = draw(SHAPES)
    first = draw(arrays.arrays(np.float32, shape, elements=floats(low, high)))
    second = draw(arrays.arrays(np.float32, shape, elements=floats(-3, 3)))
    return first, second


@pytest.fixture(scope="module")
def apply():
    """Runs an operation by its rule and by TensorFlow; gives both lists of outputs."""
    import tensorflow as tf

    from tflite_models.lowering.rules import RULES

    def both(op: str, *inputs: np.ndarray, **attributes: object):
        ours = RULES[op].apply([tf.constant(value) for value in inputs], attributes)
        definition = getattr(tf.raw_ops, op)
        names = list(definition.__signature__.parameters)[: len(inputs)]
        theirs = definition(**dict(zip(names, inputs, strict=True)), **attributes)
        theirs = list(theirs) if isinstance(theirs, tuple) else [theirs]
        return [np.asarray(v) for v in ours], [np.asarray(v) for v in theirs]

    return both


def assert_same(ours, theirs, atol=1e-5):
    assert len(ours) == len(theirs)
    for mine, expected in zip(ours, theirs, strict=True):
        assert mine.dtype == expected.dtype
        np.testing.assert_allclose(mine, expected, rtol=2e-5, atol=atol)


#: Operation, and the range of its saved tensor: an activation's output, or its input.
GRADIENTS_OF_INPUT = {
    "LeakyReluGrad": (-4, 4),
    "SoftplusGrad": (-10, 10),
    "SoftsignGrad": (-4, 4),
}
GRADIENTS_OF_OUTPUT = {
    "ReluGrad": (0, 4),
    "Relu6Grad": (0, 6),
    "EluGrad": (-0.984375, 4),
    "SeluGrad": (-1.6875, 4),
}
OUTPUT_FIRST = {
    "SigmoidGrad": (0, 1),
    "TanhGrad": (-1, 1),
    "SqrtGrad": (0.125, 4),
    "RsqrtGrad": (0.125, 4),
    "ReciprocalGrad": (-4, 4),
}
ELEMENTWISE = {
    "Selu": (-8, 8),
    "Softplus": (-30, 30),
    "Softsign": (-8, 8),
    "Erf": (-4, 4),
    "Log1p": (-0.5, 1000),
    "Reciprocal": (0.125, 8),
}
BINARY = ("Xdivy", "Xlogy", "MulNoNan")


@pytest.mark.parametrize("op", [*GRADIENTS_OF_INPUT, *GRADIENTS_OF_OUTPUT])
@given(data=st.data())
@settings(max_examples=25)
def test_activation_gradient_equals_tensorflows(op, data, apply):
    saved, dy = data.draw(pairs(*{**GRADIENTS_OF_INPUT, **GRADIENTS_OF_OUTPUT}[op]))
    assert_same(*apply(op, dy, saved))


@pytest.mark.parametrize("op", OUTPUT_FIRST)
@given(data=st.data())
@settings(max_examples=25)
def test_gradient_from_the_output_equals_tensorflows(op, data, apply):
    y, dy = data.draw(pairs(*OUTPUT_FIRST[op]))
    assert_same(*apply(op, y, dy))


@pytest.mark.parametrize("op", ELEMENTWISE)
@given(data=st.data())
@settings(max_examples=25)
def test_function_equals_tensorflows(op, data, apply):
    x, _ = data.draw(pairs(*ELEMENTWISE[op]))
    assert_same(*apply(op, x))


@pytest.mark.parametrize("op", BINARY)
@given(data=st.data())
@settings(max_examples=25)
def test_guarded_arithmetic_equals_tensorflows_at_zero_too(op, data, apply):
    _, x = data.draw(pairs())
    y = data.draw(arrays.arrays(np.float32, x.shape, elements=floats(0.125, 4)))
    x = np.where(np.abs(x) < 1, 0, x).astype(np.float32)
    if op == "MulNoNan":
        x, y = y, x
    assert_same(*apply(op, x, y))


@given(data=st.data())
@settings(max_examples=25)
def test_bias_gradient_equals_tensorflows(data, apply):
    shape = data.draw(arrays.array_shapes(min_dims=2, max_dims=4, max_side=4))
    dy = data.draw(arrays.arrays(np.float32, shape, elements=floats(-3, 3)))
    assert_same(*apply("BiasAddGrad", dy))


@given(data=st.data())
@settings(max_examples=25)
def test_clipping_equals_tensorflows(data, apply):
    x, _ = data.draw(pairs())
    assert_same(*apply("ClipByValue", x, np.float32(-1), np.float32(2)))


@given(st.integers(1, 6), st.integers(2, 8), st.integers(0, 2**32 - 1), floats(0.125, 60))
@settings(max_examples=40)
def test_sparse_cross_entropy_equals_tensorflows(batch, classes, seed, spread):
    import tensorflow as tf

    from tflite_models.lowering.rules import RULES

    rng = np.random.default_rng(seed)
    logits = (spread * rng.standard_normal((batch, classes))).astype(np.float32)
    labels = rng.integers(0, classes, batch)
    rule = RULES["SparseSoftmaxCrossEntropyWithLogits"]
    ours = rule.apply([tf.constant(logits), tf.constant(labels)], {})
    theirs = tf.raw_ops.SparseSoftmaxCrossEntropyWithLogits(features=logits, labels=labels)
    assert_same([np.asarray(v) for v in ours], [np.asarray(v) for v in theirs])


@given(st.integers(1, 6), st.integers(2, 8), st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_cross_entropy_equals_tensorflows(batch, classes, seed):
    import tensorflow as tf

    from tflite_models.lowering.rules import RULES

    rng = np.random.default_rng(seed)
    logits = (3 * rng.standard_normal((batch, classes))).astype(np.float32)
    labels = rng.dirichlet(np.ones(classes), batch).astype(np.float32)
    rule = RULES["SoftmaxCrossEntropyWithLogits"]
    ours = rule.apply([tf.constant(logits), tf.constant(labels)], {})
    theirs = tf.raw_ops.SoftmaxCrossEntropyWithLogits(features=logits, labels=labels)
    assert_same([np.asarray(v) for v in ours], [np.asarray(v) for v in theirs])


@given(st.integers(1, 5), st.integers(2, 8), st.integers(1, 3), st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_in_top_k_equals_tensorflows(batch, classes, k, seed):
    import tensorflow as tf

    from tflite_models.lowering.rules import RULES

    rng = np.random.default_rng(seed)
    # A permutation in each row: TensorFlow leaves ties at the boundary to both.
    scores = rng.permuted(np.tile(np.arange(classes, dtype=np.float32), (batch, 1)), axis=1)
    targets = rng.integers(0, classes, batch).astype(np.int32)
    (ours,) = RULES["InTopKV2"].apply([tf.constant(scores), tf.constant(targets), k], {})
    theirs = tf.raw_ops.InTopKV2(predictions=scores, targets=targets, k=k)
    np.testing.assert_array_equal(ours, theirs)


@given(arrays.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=3, min_side=1))
def test_broadcast_gradient_sums_an_operand_to_its_own_shape(shapes):
    from tflite_models.lowering.rules import RULES

    left, right = (np.array(shape, np.int32) for shape in shapes.input_shapes)
    gradient = np.ones(shapes.result_shape, np.float32)
    axes = RULES["BroadcastGradientArgs"].apply([left, right], {})
    for shape, summed in zip(shapes.input_shapes, axes, strict=True):
        total = gradient.sum(axis=tuple(summed)).reshape(shape)
        np.testing.assert_array_equal(
            total, np.full(shape, gradient.size / np.prod(shape, dtype=int))
        )
