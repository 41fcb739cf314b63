"""Batch normalization and its gradient; layer normalization is the same on another layout.

Ioffe and Szegedy 2015, "Batch Normalization", algorithm 1. With x of mean m and
variance v over all axes but the channel, and r = 1 / sqrt(v + epsilon):

    n = (x - m) * r        y = scale * n + offset

An NHWC input is taken as it is. An NCHW one is seen as [batch, channels, positions],
or as [channels, positions] if it has one example, which is how Keras normalizes a
layer (the examples are its channels).
"""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from tflite_models.lowering import batch
from tflite_models.lowering.rules.products import sides
from tflite_models.lowering.rules.table import rule
from tflite_models.lowering.values import Value


@dataclass(frozen=True)
class _Layout:
    """How an input is seen as channels and positions.

    Attributes:
        view: The shape in which it is normalized.
        positions: The axes of that shape that are no channels.
        channel: A shape in which a value per channel broadcasts against the view.
        count: Positions, the n of the unbiased variance.
    """

    view: list[int]
    positions: list[int]
    channel: list[int]
    count: Value

    @classmethod
    def of(cls, x: Value, data_format: str) -> "_Layout":
        rank = len(x.shape)
        if data_format.startswith("NC"):
            count = batch.count(x, [0, *range(2, rank)])
            channels = sides(x.shape[1:2])[0]
            if x.shape[0] == 1:
                return cls(
                    [channels, -1] if channels > 0 else [-1, _size(x, 2)], [1], [-1, 1], count
                )
            return cls([-1, channels, _size(x, 2)], [0, 2], [1, -1, 1], count)
        count = batch.count(x, range(rank - 1))
        return cls(sides(x.shape), list(range(rank - 1)), [-1], count)

    def seen(self, x: Value) -> Value:
        """`x` in the view, for which runtimes copy it if the shape is another one."""
        return x if sides(x.shape) == self.view else tf.reshape(x, self.view)


def _like(x: Value, viewed: Value) -> Value:
    shape = sides(x.shape)
    return viewed if sides(viewed.shape) == shape else tf.reshape(viewed, shape)


def _size(x: Value, first: int) -> int:
    return int(np.prod(x.shape[first:].as_list(), dtype=np.int64))


@rule("FusedBatchNorm", "FusedBatchNormV2")
def batch_normalization(
    x: Value,
    scale: Value,
    offset: Value,
    mean: Value,
    variance: Value,
    *,
    epsilon: float = 1e-4,
    exponential_avg_factor: float = 1.0,
    data_format: str = "NHWC",
    is_training: bool = True,
) -> tuple[Value, ...]:
    """y = scale * (x - m) / sqrt(v + epsilon) + offset.

    While training, m and v are the batch's mean and (biased) variance; otherwise
    the given ones.

    Args:
        x: [batch, height, width, channels] (NHWC) or [batch, channels, height, width] (NCHW).
        scale, offset, mean, variance: [channels].

    Returns:
        y; the running mean and (unbiased) variance after this batch,
        given + factor * (batch's - given); and m and v for the gradient.
    """
    layout = _Layout.of(x, data_format)
    viewed = layout.seen(x)

    def per_channel(value: Value) -> Value:
        return tf.reshape(value, layout.channel)

    if is_training:
        centre = tf.reduce_mean(viewed, axis=layout.positions, keepdims=True)
        centred = viewed - centre
        spread = tf.reduce_mean(tf.square(centred), axis=layout.positions)
        m, v = tf.reshape(centre, [-1]), spread
        unbiased = v * (layout.count / tf.maximum(layout.count - 1.0, 1.0))
        running = (
            _blend(mean, m, exponential_avg_factor),
            _blend(variance, unbiased, exponential_avg_factor),
        )
    else:
        m, v = mean, variance
        centred = viewed - per_channel(m)
        running = (m, v)
    factor = scale * tf.math.rsqrt(v + epsilon)
    y = centred * per_channel(factor) + per_channel(offset)
    return _like(x, y), *running, m, v


def _blend(given: Value, new: Value, factor: float) -> Value:
    return new if factor == 1.0 else given * (1.0 - factor) + new * factor


@rule("FusedBatchNormV3")
def batch_normalization_v3(
    x: Value,
    scale: Value,
    offset: Value,
    mean: Value,
    variance: Value,
    *,
    epsilon: float = 1e-4,
    exponential_avg_factor: float = 1.0,
    data_format: str = "NHWC",
    is_training: bool = True,
) -> tuple[Value, ...]:
    """As FusedBatchNormV2, with one more output that only a GPU's gradient reads."""
    outputs = batch_normalization(
        x,
        scale,
        offset,
        mean,
        variance,
        epsilon=epsilon,
        exponential_avg_factor=exponential_avg_factor,
        data_format=data_format,
        is_training=is_training,
    )
    return *outputs, np.zeros(0, np.float32)


@rule("FusedBatchNormGrad", "FusedBatchNormGradV2", "FusedBatchNormGradV3")
def batch_normalization_gradient(
    dy: Value,
    x: Value,
    scale: Value,
    m: Value,
    v: Value,
    _reserved: Value = None,
    *,
    epsilon: float = 1e-4,
    data_format: str = "NHWC",
    is_training: bool = True,
) -> tuple[Value, ...]:
    """The chain rule through m and v, which depend on x while training.

    d_offset = sum(dy), d_scale = sum(dy * n), with sums over a channel's positions;
    dx = scale * r * (dy - mean(dy) - n * mean(dy * n)) while training,
    dx = scale * r * dy otherwise.

    Args:
        dy: [like x], gradient of the loss with respect to y.
        m, v: [channels], the mean and variance that y was made with.

    Returns:
        dx, d_scale, d_offset, and two outputs that nobody reads.
    """
    layout = _Layout.of(x, data_format)
    viewed, incoming = layout.seen(x), layout.seen(dy)

    def per_channel(value: Value) -> Value:
        return tf.reshape(value, layout.channel)

    r = tf.math.rsqrt(v + epsilon)
    normalized = (viewed - per_channel(m)) * per_channel(r)
    d_offset = tf.reduce_sum(incoming, axis=layout.positions)
    d_scale = tf.reduce_sum(incoming * normalized, axis=layout.positions)
    dx = incoming
    if is_training:
        through_mean = per_channel(d_offset / layout.count)
        through_variance = per_channel(d_scale / layout.count)
        dx = incoming - through_mean - normalized * through_variance
    dx = _like(x, dx * per_channel(scale * r))
    unread = np.zeros(0, np.float32)
    return dx, d_scale, d_offset, unread, unread
