"""Elementwise operations and reductions without a builtin of their own."""

import numpy as np
import tensorflow as tf

from tflite_models.lowering.rules.many_axes import broadcast
from tflite_models.lowering.rules.products import summed_products
from tflite_models.lowering.rules.table import rule
from tflite_models.lowering.values import Value, is_constant, known_dimensions


@rule("BroadcastGradientArgs")
def broadcast_gradient_axes(left: Value, right: Value) -> tuple[Value, Value]:
    """The axes over which the gradients of two broadcast operands are summed.

    An operand is summed over every axis where its side is 1 or missing, which are
    the axes it was repeated along. A side known only on the device is the batch,
    equal in both; with one example, summing over it would change nothing.

    Args:
        left, right: Shapes, as rank-1 integers.
    """
    first, second = known_dimensions(left), known_dimensions(right)
    rank = max(len(first), len(second))

    def summed(own: list[int | None]) -> np.ndarray:
        # Axes that are 1 on both sides are listed too, as in TensorFlow: a sum over
        # one element is harmless, and the reshape that follows expects nothing else.
        return np.array([axis for axis in range(rank) if _aligned(own, rank)[axis] == 1], np.int32)

    return summed(first), summed(second)


def _aligned(shape: list[int | None], rank: int) -> list[int | None]:
    return [1] * (rank - len(shape)) + shape


@rule("ConcatOffset")
def concat_offsets(axis: Value, *shapes: Value) -> tuple[Value, ...]:
    """Where each part of a concatenation begins: the sizes before it along the axis, else 0."""
    along = int(axis)
    start = 0
    offsets = []
    for shape in shapes:
        sides = known_dimensions(shape)
        offsets.append(np.array([start if i == along else 0 for i in range(len(sides))], np.int32))
        side = sides[along]
        if side is None:
            raise ValueError("a concatenation of batches")
        start += side
    return tuple(offsets)


@rule("BiasAddGrad")
def bias_gradient(dy: Value) -> Value:
    """A bias is added at every position: dy is summed over all axes but the last."""
    return tf.reduce_sum(dy, axis=list(range(len(dy.shape) - 1)))


@rule("ClipByValue")
def clip_by_value(x: Value, low: Value, high: Value) -> Value:
    """min(max(x, low), high)."""
    return minimum(tf.maximum(x, low), high)


@rule("Minimum")
def minimum(x: Value, y: Value) -> Value:
    """The smaller one.

    Of integers it is selected: the converter makes a RELU6 of min(max(x, 0), 6) and
    the like, and there is none for integers.
    """
    if tf.as_dtype(x.dtype).is_integer:
        return tf.where(x < y, x, y)
    return tf.minimum(x, y)


@rule("SqrtGrad")
def sqrt_gradient(y: Value, dy: Value) -> Value:
    """y = sqrt(x), so dx = dy / (2 y)."""
    return dy * 0.5 / y


@rule("RsqrtGrad")
def rsqrt_gradient(y: Value, dy: Value) -> Value:
    """y = x^(-1/2), so dx = -dy * y^3 / 2."""
    return dy * -0.5 * y * tf.square(y)


@rule("ReciprocalGrad", "InvGrad")
def reciprocal_gradient(y: Value, dy: Value) -> Value:
    """y = 1/x, so dx = -dy * y^2."""
    return -dy * tf.square(y)


@rule("Reciprocal", "Inv")
def reciprocal(x: Value) -> Value:
    """1 / x."""
    return 1.0 / x


@rule("Log1p")
def log1p(x: Value) -> Value:
    """log(1 + x) = log(u) * x / (u - 1) with u = 1 + x rounded; x where u is 1.

    The quotient undoes the rounding of 1 + x (Goldberg 1991, theorem 4).
    """
    u = 1.0 + x
    rounded_away = tf.equal(u, 1.0)
    quotient = tf.math.log(u) * x / tf.where(rounded_away, tf.ones_like(u), u - 1.0)
    return tf.where(rounded_away, x, quotient)


@rule("Xdivy")
def xdivy(x: Value, y: Value) -> Value:
    """x / y, but 0 where x is 0."""
    return tf.where(tf.equal(x, 0.0), tf.zeros_like(x * y), x / y)


@rule("Xlogy")
def xlogy(x: Value, y: Value) -> Value:
    """x * log(y), but 0 where x is 0."""
    return tf.where(tf.equal(x, 0.0), tf.zeros_like(x * y), x * tf.math.log(y))


@rule("MulNoNan")
def mul_no_nan(x: Value, y: Value) -> Value:
    """x * y, but 0 where y is 0, whatever x is."""
    return tf.where(tf.equal(y, 0.0), tf.zeros_like(x * y), x * y)


#: Exponents up to which a power is a chain of products.
MAX_FACTORS = 4


@rule("Pow")
def power(x: Value, exponent: Value) -> Value:
    """x^n as a product of n factors for small whole n; sqrt(x) for 1/2; else POW, which is slow.

    As a product the cube in GELU's approximation also stays apart from the
    runtime's own GELU, into which the converter would fuse it, and which TFLite 2.7 lacks.
    """
    if is_constant(exponent) and np.size(exponent) == 1 and np.ndim(exponent) == 0:
        factors = float(exponent)
        if factors == 0.5:
            return tf.sqrt(x)
        if factors in range(1, MAX_FACTORS + 1):
            product = x
            for _ in range(int(factors) - 1):
                product = product * x
            return product
    return tf.pow(x, exponent)


@rule("AddN")
def add_all(*terms: Value) -> Value:
    """The sum of tensors of one shape."""
    total = terms[0]
    for term in terms[1:]:
        total = add(total, term)
    return total


@rule("AddV2", "Add")
def add(x: Value, y: Value) -> Value:
    """x + y, with axes of size 1 repeated; nothing where the other one is all zeros.

    Gradients begin as zeros of the size of what they are the gradient of, and those
    of weights are summed over a layer's time steps (see `summed_products`).
    """
    if tf.TensorShape(x.shape) == tf.TensorShape(y.shape):
        if is_zero(x):
            return y
        if is_zero(y):
            return x
        product = summed_products(x, y)
        if product is not None:
            return product
    return broadcast(tf.add, x, y)


def is_zero(x: Value) -> bool:
    """Whether a value is known to be all zeros."""
    if is_constant(x):
        return not np.any(x)
    operation = None if tf.executing_eagerly() else getattr(x, "op", None)
    if operation is None or operation.type != "Fill":
        return False
    entry = tf.get_static_value(operation.inputs[1])
    return entry is not None and not np.any(entry)
