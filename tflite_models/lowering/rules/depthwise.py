"""Depthwise convolutions, forward and both gradients.

Each channel c of the input meets M filters of its own (M is the multiplier), as
channels c M + m of the output:

    y[b, p, q, cM+m] = sum over i, j     x[b, p s + i d - a, q s + j d - a, c] w[i, j, c, m]
    dw[i, j, c, m]   = sum over b, p, q  x[b, p s + i d - a, q s + j d - a, c] dy[b, p, q, cM+m]
    dx[b, r, t, c]   = sum over i, j, m  dy[b, (r + a - i d) / s, ..., cM+m] w[i, j, c, m]

The runtimes' depthwise convolution is fast with filters that are not constant too.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tflite_models.lowering.rules.layout import Layout
from tflite_models.lowering.rules.table import rule
from tflite_models.lowering.rules.windows import (
    Taps,
    interleaved,
    padded,
    reads,
    windows,
)
from tflite_models.lowering.values import Value, known_dimensions, known_sides


@rule("DepthwiseConv2dNative")
def depthwise_convolution(
    x: Value,
    weights: Value,
    *,
    strides: Sequence[int],
    padding: str,
    explicit_paddings: Sequence[int] = (),
    data_format: str = "NHWC",
    dilations: Sequence[int] = (1, 1, 1, 1),
) -> Value:
    """y as above; a dilated filter is summed tap by tap."""
    layout = Layout(data_format)
    x = layout.to_channels_last(x)
    if max(dilations) == 1:
        if padding == "EXPLICIT":
            rims = np.reshape(layout.channels_last_pairs(explicit_paddings), [4, 2])
            x, padding = tf.pad(x, rims), "VALID"
        y = tf.raw_ops.DepthwiseConv2dNative(
            input=x, filter=weights, strides=layout.channels_last(strides), padding=padding
        )
        return layout.from_channels_last(y)
    down, across = windows(
        x.shape[1:3],
        weights.shape[:2],
        layout=layout,
        strides=strides,
        dilations=dilations,
        padding=padding,
        explicit=explicit_paddings,
    )
    multiplier = int(weights.shape[3])
    wide = x if multiplier == 1 else tf.repeat(x, multiplier, axis=3)
    return layout.from_channels_last(_by_taps(wide, weights, down.forward(), across.forward()))


@rule("DepthwiseConv2dNativeBackpropFilter")
def depthwise_filter_gradient(
    x: Value,
    filter_sizes: Value,
    dy: Value,
    *,
    strides: Sequence[int],
    padding: str,
    explicit_paddings: Sequence[int] = (),
    data_format: str = "NHWC",
    dilations: Sequence[int] = (1, 1, 1, 1),
) -> Value:
    """dw as above: for each tap, what it reads times dy, summed over examples and positions."""
    layout = Layout(data_format)
    x, dy = layout.to_channels_last(x), layout.to_channels_last(dy)
    height, width, channels, multiplier = known_sides(filter_sizes)
    down, across = windows(
        x.shape[1:3],
        (height, width),
        layout=layout,
        strides=strides,
        dilations=dilations,
        padding=padding,
        explicit=explicit_paddings,
    )
    rows, columns = down.forward(), across.forward()
    gradients = _by_multiplier(dy, channels, multiplier)
    sums = [
        tf.reduce_sum(entries * gradient, axis=[0, 1, 2])
        for row in reads(padded(x, rows, columns), rows, 1)
        for entries in reads(row, columns, 2)
        for gradient in gradients
    ]
    shape = [height, width, multiplier, channels]
    return tf.transpose(tf.reshape(tf.concat(sums, axis=0), shape), [0, 1, 3, 2])


@rule("DepthwiseConv2dNativeBackpropInput")
def depthwise_input_gradient(
    input_sizes: Value,
    weights: Value,
    dy: Value,
    *,
    strides: Sequence[int],
    padding: str,
    explicit_paddings: Sequence[int] = (),
    data_format: str = "NHWC",
    dilations: Sequence[int] = (1, 1, 1, 1),
) -> Value:
    """dx as above: for each phase of the stride, dy convolved depthwise with the turned filter."""
    layout = Layout(data_format)
    dy = layout.to_channels_last(dy)
    down, across = windows(
        layout.channels_last(known_dimensions(input_sizes))[1:3],
        weights.shape[:2],
        layout=layout,
        strides=strides,
        dilations=dilations,
        padding=padding,
        explicit=explicit_paddings,
    )
    rows = [
        None
        if row_phase is None
        else interleaved(
            [
                None if phase is None else _turned(dy, weights, row_phase, phase)
                for phase in across.backward()
            ],
            2,
            across.size,
        )
        for row_phase in down.backward()
    ]
    dx = interleaved(rows, 1, down.size)
    _, _, channels, multiplier = (int(side) for side in weights.shape)
    if multiplier > 1:
        apart = tf.reshape(dx, [-1, down.size, across.size, channels, multiplier])
        dx = tf.reduce_sum(apart, axis=4)
    return layout.from_channels_last(dx)


def _turned(dy: Value, weights: Value, rows: Taps, columns: Taps) -> Value:
    """For one phase, the sum over taps; one filter for each channel of dy."""
    chosen = tf.gather(tf.gather(weights, rows.taps[::-1], axis=0), columns.taps[::-1], axis=1)
    rows, columns = rows.turned(), columns.turned()
    if not (rows.is_dense and columns.is_dense):
        return _by_taps(dy, chosen, rows, columns)
    height, width = len(rows.taps), len(columns.taps)
    rim = padded(dy, rows, columns)
    first = rows.offsets[0] + rows.before, columns.offsets[0] + columns.before
    last = first[0] + rows.count + height - 1, first[1] + columns.count + width - 1
    if (*first, *last) != (0, 0, *rim.shape[1:3]):
        rim = rim[:, first[0] : last[0], first[1] : last[1]]
    single = tf.reshape(chosen, [height, width, int(dy.shape[3]), 1])
    return tf.raw_ops.DepthwiseConv2dNative(
        input=rim, filter=single, strides=[1, 1, 1, 1], padding="VALID"
    )


def _by_taps(x: Value, weights: Value, rows: Taps, columns: Taps) -> Value:
    """The sum over taps of what each reads times its weights, channel by channel."""
    height, width = len(rows.taps), len(columns.taps)
    factors = tf.reshape(weights, [height, width, int(x.shape[3])])
    terms = [
        entries * factors[i, j]
        for i, row in enumerate(reads(padded(x, rows, columns), rows, 1))
        for j, entries in enumerate(reads(row, columns, 2))
    ]
    return sum(terms[1:], terms[0])


def _by_multiplier(dy: Value, channels: int, multiplier: int) -> list[Value]:
    """For each of a channel's filters, the entries of dy that belong to it."""
    if multiplier == 1:
        return [dy]
    height, width = (int(side) for side in dy.shape[1:3])
    apart = tf.reshape(dy, [-1, height * width, channels, multiplier])
    together = tf.split(tf.transpose(apart, [0, 1, 3, 2]), multiplier, axis=2)
    return [tf.reshape(part, [-1, height, width, channels]) for part in together]
