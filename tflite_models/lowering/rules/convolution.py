"""Convolutions in two dimensions, forward and both gradients.

Throughout, with windows as in `windows` and everything channels last:

    y[b, p, q, n]  = sum over i, j, c  x[b, p s + i d - a, q s + j d - a, c] w[i, j, c, n]
    dw[i, j, c, n] = sum over b, p, q  x[b, p s + i d - a, q s + j d - a, c] dy[b, p, q, n]
    dx[b, r, t, c] = sum over i, j, n  dy[b, (r + a - i d) / s, (t + a - j d) / s, n] w[i, j, c, n]

for stride s, dilation d and padding a; the last sum is over the taps that
divide. (Dumoulin and Visin 2016, "A guide to convolution arithmetic for deep
learning".) A transposed convolution is dx with the roles of x and y swapped.

A filter with fewer channels than the input has groups: each part of the input's
channels meets its own part of the filter's outputs.
"""

from collections.abc import Callable, Sequence

import tensorflow as tf

from tflite_models.lowering.rules.layout import Layout
from tflite_models.lowering.rules.patches import correlation, filter_gradient, patches
from tflite_models.lowering.rules.table import rule
from tflite_models.lowering.rules.windows import Taps, Window, interleaved, windows
from tflite_models.lowering.values import Value, known_dimensions, known_sides


@rule("Conv2D")
def convolution(
    x: Value,
    weights: Value,
    *,
    strides: Sequence[int],
    padding: str,
    explicit_paddings: Sequence[int] = (),
    data_format: str = "NHWC",
    dilations: Sequence[int] = (1, 1, 1, 1),
) -> Value:
    """y as above: patches of x times w."""
    layout = Layout(data_format)
    x = layout.to_channels_last(x)
    down, across = windows(
        x.shape[1:3],
        weights.shape[:2],
        layout=layout,
        strides=strides,
        dilations=dilations,
        padding=padding,
        explicit=explicit_paddings,
    )
    rows, columns = down.forward(), across.forward()
    groups = int(x.shape[3]) // int(weights.shape[2])
    y = _grouped(
        lambda part, w: correlation(part, w, rows, columns), groups, (x, weights), joined_axis=3
    )
    return layout.from_channels_last(y)


@rule("Conv2DBackpropFilter")
def convolution_filter_gradient(
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
    """dw as above: the transposed patches of x times dy."""
    layout = Layout(data_format)
    x, dy = layout.to_channels_last(x), layout.to_channels_last(dy)
    height, width, channels, _ = known_sides(filter_sizes)
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
    groups = int(x.shape[3]) // channels
    return _grouped(
        lambda part, gradient: filter_gradient(part, gradient, rows, columns),
        groups,
        (x, dy),
        joined_axis=3,
    )


@rule("Conv2DBackpropInput")
def convolution_input_gradient(
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
    """dx as above: for each phase of the stride, patches of dy times w with c and n swapped."""
    layout = Layout(data_format)
    dy = layout.to_channels_last(dy)
    sizes = layout.channels_last(known_dimensions(input_sizes))
    down, across = windows(
        sizes[1:3],
        weights.shape[:2],
        layout=layout,
        strides=strides,
        dilations=dilations,
        padding=padding,
        explicit=explicit_paddings,
    )
    groups = int(sizes[3]) // int(weights.shape[2])
    dx = _grouped(
        lambda gradient, w: _input_gradient(gradient, w, down, across),
        groups,
        (dy, weights),
        joined_axis=3,
    )
    return layout.from_channels_last(dx)


@rule("ExtractImagePatches")
def image_patches(
    images: Value,
    *,
    ksizes: Sequence[int],
    strides: Sequence[int],
    rates: Sequence[int],
    padding: str,
) -> Value:
    """For each position, what each tap of a window reads: the patches of a convolution."""
    down, across = windows(
        images.shape[1:3],
        ksizes[1:3],
        layout=Layout("NHWC"),
        strides=strides,
        dilations=rates,
        padding=padding,
    )
    rows, columns = down.forward(), across.forward()
    depth = down.kernel * across.kernel * int(images.shape[3])
    return tf.reshape(patches(images, rows, columns), [-1, down.count, across.count, depth])


def _input_gradient(dy: Value, weights: Value, down: Window, across: Window) -> Value:
    swapped = tf.transpose(weights, [0, 1, 3, 2])
    rows: list[Value | None] = []
    for row_phase in down.backward():
        if row_phase is None:
            rows.append(None)
            continue
        chosen = _taps(swapped, row_phase.taps, axis=0)
        columns = [
            None if phase is None else _phase(dy, chosen, row_phase, phase.turned())
            for phase in across.backward()
        ]
        rows.append(interleaved(columns, 2, across.size))
    return interleaved(rows, 1, down.size)


def _phase(dy: Value, weights: Value, rows: Taps, columns: Taps) -> Value:
    return correlation(dy, _taps(weights, columns.taps, axis=1), rows, columns)


def _taps(weights: Value, taps: tuple[int, ...], axis: int) -> Value:
    if taps == tuple(range(int(weights.shape[axis]))):
        return weights
    return tf.gather(weights, taps, axis=axis)


def _grouped(
    function: Callable[..., Value], groups: int, operands: Sequence[Value], *, joined_axis: int
) -> Value:
    """The function of each group's part of the operands' last axes, joined."""
    if groups == 1:
        return function(*operands)
    parts = zip(*(tf.split(operand, groups, axis=3) for operand in operands), strict=True)
    return tf.concat([function(*part) for part in parts], axis=joined_axis)
