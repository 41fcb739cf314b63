"""Activation functions without a builtin, and the derivatives of all of them.

`dy` is the gradient of the loss with respect to the activation's output. Where
TensorFlow's gradient operation receives the output y instead of the input x,
so does the rule.
"""

import tensorflow as tf

from tflite_models.lowering.rules.table import rule
from tflite_models.lowering.values import Value

#: Klambauer et al. 2017, "Self-Normalizing Neural Networks", eq. 14.
SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946


#: Operations that only arrange what a product gave.
_ARRANGING = ("Identity", "Reshape", "Squeeze", "ExpandDims", "Transpose", "StridedSlice", "Slice")


@rule("Relu")
def relu(x: Value) -> Value:
    """max(x, 0); straight after a product (x + |x|) / 2, which is the same number.

    The converter makes a rectifier the activation of the product before it, in whose
    final form, BATCH_MATMUL, it has no place: it is lost, and the graph is wrong.
    """
    return 0.5 * (x + tf.abs(x)) if _is_product(x) else tf.nn.relu(x)


@rule("Relu6")
def relu6(x: Value) -> Value:
    """min(max(x, 0), 6)."""
    return tf.minimum(relu(x), 6.0) if _is_product(x) else tf.nn.relu6(x)


def _is_product(x: Value) -> bool:
    """Whether a value is what a matrix product gave, arranged in whatever way."""
    operation = getattr(x, "op", None)
    while operation is not None and operation.type in _ARRANGING:
        operation = operation.inputs[0].op
    return operation is not None and operation.type in ("MatMul", "BatchMatMulV2")


@rule("ReluGrad")
def relu_gradient(dy: Value, y: Value) -> Value:
    """dx = dy * sign(y): y = max(x, 0) is never negative, so sign(y) is 1 exactly where x > 0."""
    return dy * tf.sign(y)


@rule("Relu6Grad")
def relu6_gradient(dy: Value, y: Value) -> Value:
    """dx = dy where 0 < y < 6, else 0."""
    return tf.where(tf.logical_and(y > 0, y < 6), dy, 0.0)


@rule("LeakyReluGrad")
def leaky_relu_gradient(dy: Value, x: Value, *, alpha: float = 0.2) -> Value:
    """dx = dy where x > 0, else alpha * dy."""
    return tf.where(x > 0, dy, dy * alpha)


@rule("EluGrad")
def elu_gradient(dy: Value, y: Value) -> Value:
    """y = exp(x) - 1 for x < 0, so dx = dy * (y + 1) there, and dy elsewhere."""
    return tf.where(y < 0, dy * (y + 1.0), dy)


@rule("Selu")
def selu(x: Value) -> Value:
    """scale * x for x > 0, scale * alpha * (exp(x) - 1) elsewhere."""
    return SELU_SCALE * tf.where(x > 0, x, SELU_ALPHA * tf.nn.elu(x))


@rule("SeluGrad")
def selu_gradient(dy: Value, y: Value) -> Value:
    """dx = dy * (y + scale * alpha) where y < 0, else dy * scale."""
    return tf.where(y < 0, dy * (y + SELU_SCALE * SELU_ALPHA), dy * SELU_SCALE)


@rule("Softplus")
def softplus(x: Value) -> Value:
    """log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|)), which does not overflow."""
    return relu(x) + tf.math.log(1.0 + tf.exp(-tf.abs(x)))


@rule("SoftplusGrad")
def softplus_gradient(dy: Value, x: Value) -> Value:
    """dx = dy * sigmoid(x)."""
    return dy * tf.sigmoid(x)


@rule("Softsign")
def softsign(x: Value) -> Value:
    """x / (1 + |x|)."""
    return x / (1.0 + tf.abs(x))


@rule("SoftsignGrad")
def softsign_gradient(dy: Value, x: Value) -> Value:
    """dx = dy / (1 + |x|)^2."""
    return dy / tf.square(1.0 + tf.abs(x))


@rule("SigmoidGrad")
def sigmoid_gradient(y: Value, dy: Value) -> Value:
    """dx = dy * y * (1 - y)."""
    return dy * y * (1.0 - y)


@rule("TanhGrad")
def tanh_gradient(y: Value, dy: Value) -> Value:
    """dx = dy * (1 - y^2)."""
    return dy * (1.0 - tf.square(y))


@rule("Erf")
def erf(x: Value) -> Value:
    """Abramowitz and Stegun 1964, formula 7.1.26; absolute error at most 1.5e-7."""
    magnitude = tf.abs(x)
    t = 1.0 / (1.0 + 0.3275911 * magnitude)
    series = 1.061405429
    for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = series * t + coefficient
    return tf.sign(x) * (1.0 - series * t * tf.exp(-tf.square(magnitude)))


@rule("Erfc")
def erfc(x: Value) -> Value:
    """1 - erf(x)."""
    return 1.0 - erf(x)
