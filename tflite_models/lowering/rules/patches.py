"""Convolutions as matrix products of patches (im2col).

A training graph's filters are not constant, and for those the runtimes' own
convolution multiplies without the processor's wide vectors; their
BATCH_MATMUL of two matrices uses them. With S the patches, one row for each
position and one column for each tap and channel, a convolution is S W.
Chellapilla et al. 2006, "High Performance Convolutional Neural Networks for
Document Processing", describe the unrolling.
"""

import numpy as np
import tensorflow as tf

from tflite_models.lowering.rules.products import matrix_product
from tflite_models.lowering.rules.windows import Taps, cut, padded, phases, reads
from tflite_models.lowering.values import Value

#: Entries up to which a table of indices is worth its bytes in the graph (64 KiB).
MAX_TABLE = 1 << 14

#: Numbers per example up to which all patches are in memory at once (4 MiB).
MAX_PATCHES = 1 << 20


#: Taps in width times channels from which on a product for each row of taps is
#: faster than one product of transposed patches, and pairs of positions pay.
MIN_ROW = 32

#: Filters for which pairs of positions pay: at least this wide, at most these outputs.
MIN_PAIRED_WIDTH = 4
MAX_PAIRED_OUTPUTS = 64


def correlation(x: Value, weights: Value, rows: Taps, columns: Taps) -> Value:
    """y[b, p, q, n] = sum over taps i, j and channels c of x[b, row, column, c] w[i, j, c, n].

    `row` is what tap i reads at position p, `column` what tap j reads at q.

    Args:
        x: [batch, height, width, channels] float32.
        weights: [taps in height, taps in width, channels, outputs] float32.

    Returns:
        [batch, rows.count, columns.count, outputs] float32.
    """
    whole = [-1, rows.count, columns.count, int(weights.shape[3])]
    weights, columns = _paired(weights, columns)
    height, width, channels, outputs = (int(side) for side in weights.shape)
    size = rows.count * columns.count * height * width * channels
    if size <= MAX_PATCHES or height == 1:
        matrix = tf.reshape(weights, [height * width * channels, outputs])
        product = matrix_product(patches(x, rows, columns), matrix)
        return tf.reshape(product, whole)
    # One row of taps after the other, so that memory holds one row's patches.
    wide = _joined(reads(padded(x, rows, columns), columns, 2))
    total = None
    for tap, part in enumerate(reads(wide, rows, 1)):
        row = tf.reshape(part, [-1, width * channels])
        product = matrix_product(row, tf.reshape(weights[tap], [width * channels, outputs]))
        total = product if total is None else total + product
    return tf.reshape(total, whole)


def _paired(weights: Value, columns: Taps) -> tuple[Value, Taps]:
    """The same correlation with two neighbouring positions taken as one.

    Such a pair reads one entry more than a position and gives twice the outputs,
    half of them with the filter moved by one: a few more multiplications, but
    little more than half the patches to copy.
    """
    _, width, channels, outputs = (int(side) for side in weights.shape)
    pays = MIN_PAIRED_WIDTH <= width >= MIN_ROW / channels and outputs <= MAX_PAIRED_OUTPUTS
    if not (pays and columns.is_dense and columns.stride == 1 and columns.count % 2 == 0):
        return weights, columns
    moved = [tf.pad(weights, [[0, 0], rim, [0, 0], [0, 0]]) for rim in ([0, 1], [1, 0])]
    offsets = (*columns.offsets, columns.offsets[-1] + 1)
    pairs = Taps(columns.size, columns.count // 2, 2, offsets, tuple(range(width + 1)))
    return tf.concat(moved, axis=3), pairs


def patches(x: Value, rows: Taps, columns: Taps) -> Value:
    """One row for each position of each example, with all that the taps read there.

    Returns:
        [batch * positions, taps in height * taps in width * channels] float32.
    """
    height, width, channels = (int(side) for side in x.shape[1:])
    if rows.is_whole and columns.is_whole:
        return tf.reshape(x, [-1, channels])
    taps = len(rows.offsets) * len(columns.offsets)
    if rows.count * columns.count * taps <= MAX_TABLE:
        table = _table(rows, columns)
        source = tf.reshape(x, [-1, height * width, channels])
        if table.max() == height * width:
            source = tf.pad(source, [[0, 0], [0, 1], [0, 0]])
        return tf.reshape(tf.gather(source, table.ravel(), axis=1), [-1, taps * channels])
    wide = _joined(reads(padded(x, rows, columns), columns, 2))
    return tf.reshape(_joined(reads(wide, rows, 1)), [-1, taps * channels])


def filter_gradient(x: Value, dy: Value, rows: Taps, columns: Taps) -> Value:
    """dw[i, j, c, n] = sum over examples and positions of x[b, row, column, c] dy[b, p, q, n].

    For each row of taps i, the product of its transposed patches with dy. Where
    rows of taps are short, one product of all patches, cut transposed from x.

    Args:
        x: [batch, height, width, channels] float32.
        dy: [batch, rows.count, columns.count, outputs] float32.

    Returns:
        [taps in height, taps in width, channels, outputs] float32.
    """
    channels, outputs = int(x.shape[3]), int(dy.shape[3])
    height, width = len(rows.offsets), len(columns.offsets)
    shape = [height, width, channels, outputs]
    if width * channels >= MIN_ROW:
        wide = _joined(reads(padded(x, rows, columns), columns, 2))
        flat = tf.reshape(dy, [-1, outputs])
        products = [
            matrix_product(tf.reshape(part, [-1, width * channels]), flat, transpose_a=True)
            for part in reads(wide, rows, 1)
        ]
        return tf.reshape(_joined(products, axis=0), shape)
    cuts = _transposed_cuts(x, rows, columns)
    last = tf.reshape(tf.transpose(dy, [1, 2, 0, 3]), [-1, outputs])
    if rows.count * columns.count * height * width * channels <= MAX_PATCHES:
        cuts = [[part for row in cuts for part in row]]
    products = [matrix_product(_joined(group, axis=0), last) for group in cuts]
    return tf.reshape(_joined(products, axis=0), shape)


def _transposed_cuts(x: Value, rows: Taps, columns: Taps) -> list[list[Value]]:
    """For each tap in height and width, what it reads: [channels, positions * batch].

    With the batch as last axis, long runs are copied.
    """
    channels = int(x.shape[3])
    by_phase = [
        [tf.transpose(part, [3, 1, 2, 0]) for part in phases(row, columns.stride, 2)]
        for row in phases(padded(x, rows, columns), rows.stride, 1)
    ]
    cuts = []
    for i in range(len(rows.offsets)):
        # For each column phase, the rows that this tap reads.
        parts = [cut(list(phase), rows, i, 1) for phase in zip(*by_phase, strict=True)]
        row = [cut(parts, columns, j, 2) for j in range(len(columns.offsets))]
        cuts.append([tf.reshape(part, [channels, -1]) for part in row])
    return cuts


def _table(rows: Taps, columns: Taps) -> np.ndarray:
    """int32 [rows, columns, taps in height, taps in width]: entries; height * width for none."""
    read = rows.entries()[:, None, :, None], columns.entries()[None, :, None, :]
    inside = (read[0] >= 0) & (read[1] >= 0)
    entry = read[0] * columns.size + read[1]
    return np.where(inside, entry, rows.size * columns.size).astype(np.int32)


def _joined(parts: list[Value], axis: int = 3) -> Value:
    return parts[0] if len(parts) == 1 else tf.concat(parts, axis=axis)
