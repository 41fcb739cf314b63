"""Pooling: the largest or the mean entry of each window, and the gradients.

Pooling in one dimension is pooling of images of height or width one.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tflite_models.lowering.rules.layout import Layout
from tflite_models.lowering.rules.table import rule
from tflite_models.lowering.rules.windows import (
    Taps,
    Window,
    interleaved,
    padded,
    reads,
    windows,
)
from tflite_models.lowering.values import Value, known_dimensions

#: Read outside the image: no larger than any float32.
LOWEST = float(np.finfo(np.float32).min)


@rule("MaxPool")
def max_pooling(
    x: Value,
    *,
    ksize: Sequence[int],
    strides: Sequence[int],
    padding: str,
    explicit_paddings: Sequence[int] = (),
    data_format: str = "NHWC",
) -> Value:
    """y = the maximum over the window of the entries inside the image."""
    layout = Layout(data_format)
    x = layout.to_channels_last(x)
    if padding == "EXPLICIT":
        rims = np.reshape(layout.channels_last_pairs(explicit_paddings), [4, 2])
        x, padding = tf.pad(x, rims, constant_values=LOWEST), "VALID"
    y = tf.raw_ops.MaxPool(
        input=x,
        ksize=layout.channels_last(ksize),
        strides=layout.channels_last(strides),
        padding=padding,
    )
    return layout.from_channels_last(y)


@rule("MaxPoolV2")
def max_pooling_of_known_size(
    x: Value, ksize: Value, strides: Value, *, padding: str, data_format: str = "NHWC"
) -> Value:
    """MaxPool, with the window's size and strides as inputs."""
    return max_pooling(
        x,
        ksize=known_dimensions(ksize),
        strides=known_dimensions(strides),
        padding=padding,
        data_format=data_format,
    )


@rule("MaxPoolGrad")
def max_pooling_gradient(
    x: Value,
    y: Value,
    dy: Value,
    *,
    ksize: Sequence[int],
    strides: Sequence[int],
    padding: str,
    explicit_paddings: Sequence[int] = (),
    data_format: str = "NHWC",
) -> Value:
    """The first largest entry of a window, row by row, gets all of dy; dx sums over windows.

    Tap after tap, an entry that equals y takes what no tap before it has taken.
    What is left after all others is the last tap's.
    """
    layout = Layout(data_format)
    x, y, dy = (layout.to_channels_last(value) for value in (x, y, dy))
    down, across = windows(
        x.shape[1:3],
        layout.channels_last(ksize)[1:3],
        layout=layout,
        strides=strides,
        padding=padding,
        explicit=explicit_paddings,
    )
    rows, columns = down.forward(), across.forward()
    entries = [
        reads(row, columns, 2) for row in reads(padded(x, rows, columns, fill=LOWEST), rows, 1)
    ]
    left = dy
    taken: list[list[Value]] = [[None] * across.kernel for _ in range(down.kernel)]
    for i in range(down.kernel):
        for j in range(across.kernel):
            if (i, j) == (down.kernel - 1, across.kernel - 1):
                taken[i][j] = left
                continue
            taken[i][j] = left * tf.cast(entries[i][j] >= y, tf.float32)
            left = left - taken[i][j]
    return layout.from_channels_last(_returned(taken, down, across))


@rule("MaxPoolGradV2")
def max_pooling_gradient_of_known_size(
    x: Value,
    y: Value,
    dy: Value,
    ksize: Value,
    strides: Value,
    *,
    padding: str,
    data_format: str = "NHWC",
) -> Value:
    """MaxPoolGrad, with the window's size and strides as inputs."""
    return max_pooling_gradient(
        x,
        y,
        dy,
        ksize=known_dimensions(ksize),
        strides=known_dimensions(strides),
        padding=padding,
        data_format=data_format,
    )


def _returned(taken: Sequence[Sequence[Value]], down: Window, across: Window) -> Value:
    """What was taken through each tap, summed at the input entries it was taken from."""
    rows = [
        None
        if row_phase is None
        else interleaved(
            [
                None if phase is None else _collected(taken, row_phase, phase)
                for phase in across.backward()
            ],
            2,
            across.size,
        )
        for row_phase in down.backward()
    ]
    return interleaved(rows, 1, down.size)


def _collected(taken: Sequence[Sequence[Value]], rows: Taps, columns: Taps) -> Value:
    total = None
    for i in range(len(rows.taps)):
        for j in range(len(columns.taps)):
            part = taken[rows.taps[i]][columns.taps[j]]
            row, column = rows.only(i), columns.only(j)
            (part,) = reads(padded(part, row, column), row, 1)
            (part,) = reads(part, column, 2)
            total = part if total is None else total + part
    return total


@rule("AvgPool")
def average_pooling(
    x: Value,
    *,
    ksize: Sequence[int],
    strides: Sequence[int],
    padding: str,
    data_format: str = "NHWC",
) -> Value:
    """y = the mean over the window of the entries inside the image."""
    layout = Layout(data_format)
    y = tf.raw_ops.AvgPool(
        value=layout.to_channels_last(x),
        ksize=layout.channels_last(ksize),
        strides=layout.channels_last(strides),
        padding=padding,
    )
    return layout.from_channels_last(y)


@rule("AvgPoolGrad")
def average_pooling_gradient(
    input_sizes: Value,
    dy: Value,
    *,
    ksize: Sequence[int],
    strides: Sequence[int],
    padding: str,
    data_format: str = "NHWC",
) -> Value:
    """dx[r, t] = the sum of dy / (entries in the window) over the windows with (r, t) inside."""
    layout = Layout(data_format)
    sides = layout.channels_last(known_dimensions(input_sizes))[1:3]
    down, across = windows(
        sides,
        layout.channels_last(ksize)[1:3],
        layout=layout,
        strides=strides,
        padding=padding,
    )
    inside = [(taps.entries() >= 0).sum(axis=1) for taps in (down.forward(), across.forward())]
    share = (1.0 / np.outer(*inside)).astype(np.float32)[None, :, :, None]
    if (share == share.flat[0]).all():
        share = share.flat[0]
    dx = layout.to_channels_last(dy) * share
    for axis, window in ((1, down), (2, across)):
        dx = interleaved([_summed(dx, taps, axis) for taps in window.backward()], axis, window.size)
    return layout.from_channels_last(dx)


def _summed(x: Value, taps: Taps | None, axis: int) -> Value | None:
    if taps is None:
        return None
    # The other axis as it is.
    side = int(x.shape[3 - axis])
    whole = Taps(side, side, 1, (0,), (0,))
    rim = padded(x, taps, whole) if axis == 1 else padded(x, whole, taps)
    first, *others = reads(rim, taps, axis)
    return sum(others, first)
