"""Slices, paddings and reversals, and their gradients.

The gradient of taking a part puts the part's gradient back among zeros. The
batch is only ever taken as a whole: a part of it would be of a size that is
no multiple of it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from tflite_models.lowering import batch
from tflite_models.lowering.rules.products import sides
from tflite_models.lowering.rules.table import rule
from tflite_models.lowering.values import Value, is_constant, known_dimensions

#: Axes that old runtimes pad at once.
MAX_PADDED_AXES = 4


@dataclass(frozen=True)
class _Part:
    """What a slice takes along one axis: start, start + stride, ..., `count` of them."""

    side: int | None
    start: int = 0
    stride: int = 1
    count: int | None = None

    @property
    def whole(self) -> bool:
        return self.start == 0 and self.stride == 1 and self.count == self.side


@rule("StridedSliceGrad")
def strided_slice_gradient(
    shape: Value,
    begin: Value,
    end: Value,
    strides: Value,
    dy: Value,
    *,
    begin_mask: int = 0,
    end_mask: int = 0,
    ellipsis_mask: int = 0,
    new_axis_mask: int = 0,
    shrink_axis_mask: int = 0,
) -> Value:
    """dx[start + i * stride] = dy[i] along each axis, and 0 elsewhere.

    A backward slice is a forward one of the reversed gradient. For a stride s, each
    entry of dy is followed by s - 1 zeros.

    Args:
        shape: Of the sliced tensor.
        begin, end, strides: One entry for each term of the slice expression.
        dy: Like the slice.

    Raises:
        ValueError: the slice depends on data, or takes a part of the batch.
    """
    if not all(is_constant(value) for value in (begin, end, strides)):
        raise ValueError("a slice whose bounds depend on the data")
    terms = _Terms(begin_mask, end_mask, ellipsis_mask, new_axis_mask, shrink_axis_mask)
    parts = terms.parts(known_dimensions(shape), begin, end, strides)
    if any(part.count == 0 for part in parts):
        return tf.zeros(tf.cast(shape, tf.int32), dy.dtype)
    dx = tf.reshape(dy, sides(tf.TensorShape([part.count for part in parts])))
    for axis, part in enumerate(parts):
        if part.whole:
            continue
        if part.side is None or batch.is_generic(part.side):
            raise ValueError("a slice of a part of the batch")
        if part.stride < 0:
            dx = tf.reverse(dx, [axis])
        if abs(part.stride) > 1:
            dx = _spread(dx, axis, abs(part.stride))
    return _place(dx, parts)


@dataclass(frozen=True)
class _Terms:
    """The masks of a slice expression, one bit for each term (tf.strided_slice)."""

    begin_mask: int
    end_mask: int
    ellipsis_mask: int
    new_axis_mask: int
    shrink_axis_mask: int

    def parts(
        self, shape: list[int | None], begin: Value, end: Value, strides: Value
    ) -> list[_Part]:
        """What is taken along each axis of a tensor of this shape."""
        parts: list[_Part] = []
        count = len(begin)
        for index in range(count):
            bit = 1 << index
            if self.ellipsis_mask & bit:
                later = [i for i in range(index + 1, count) if not self.new_axis_mask & (1 << i)]
                passed = len(shape) - len(parts) - len(later)
                parts += [_Part(side, count=side) for side in shape[len(parts) :][:passed]]
            elif not self.new_axis_mask & bit:
                bounds = int(begin[index]), int(end[index]), int(strides[index])
                parts.append(self._part(shape[len(parts)], bit, *bounds))
        return parts + [_Part(side, count=side) for side in shape[len(parts) :]]

    def _part(self, side: int | None, bit: int, begin: int, end: int, stride: int) -> _Part:
        first = None if self.begin_mask & bit else begin
        last = None if self.end_mask & bit else end
        if side is None:
            if (first or 0) == 0 and last is None and stride == 1:
                return _Part(None)
            raise ValueError("a slice of a part of the batch")
        if self.shrink_axis_mask & bit:
            return _Part(side, begin % side, 1, 1)
        taken = range(side)[first:last:stride]
        return _Part(side, taken.start, stride, len(taken))


def _spread(x: Value, axis: int, stride: int) -> Value:
    """Each entry along the axis, followed by zeros: count entries become count * stride."""
    shape = x.shape.as_list()
    right = math.prod(shape[axis + 1 :])
    spread = tf.pad(tf.reshape(x, [-1, right]), [[0, 0], [0, (stride - 1) * right]])
    return tf.reshape(
        spread, sides(tf.TensorShape([*shape[:axis], shape[axis] * stride, *shape[axis + 1 :]]))
    )


def _place(x: Value, parts: Sequence[_Part]) -> Value:
    """Puts spread parts where they were taken from."""
    paddings = []
    size = [-1] * len(parts)
    for axis, part in enumerate(parts):
        if part.whole or part.side is None or part.count is None:
            paddings.append((0, 0))
            continue
        lowest = part.start + min(0, part.stride * (part.count - 1))
        after = part.side - lowest - part.count * abs(part.stride)
        if after < 0:
            # The zeros that follow the last entry reach beyond the end.
            size[axis] = part.side - lowest
        paddings.append((lowest, max(after, 0)))
    if any(side >= 0 for side in size):
        x = tf.slice(x, [0] * len(size), size)
    return padded(x, paddings)


def padded(x: Value, paddings: Sequence[tuple[int, int]]) -> Value:
    """`x` with zeros before and after along each axis."""
    if all(padding == (0, 0) for padding in paddings):
        return x
    if len(paddings) <= MAX_PADDED_AXES:
        return tf.pad(x, paddings)
    for axis, (before, after) in enumerate(paddings):
        if before or after:
            shape = x.shape.as_list()
            right = math.prod(shape[axis + 1 :])
            flat = tf.reshape(x, [-1, shape[axis] * right])
            flat = tf.pad(flat, [[0, 0], [before * right, after * right]])
            shape[axis] += before + after
            x = tf.reshape(flat, sides(tf.TensorShape(shape)))
    return x


@rule("Pad", "PadV2")
def pad(x: Value, paddings: Value, constant: Value = None) -> Value:
    """`x` with zeros, or a constant, before and after along each axis.

    Runtimes pad at most four axes; more are padded one by one.
    """
    if constant is None and is_constant(paddings) and len(paddings) > MAX_PADDED_AXES:
        return padded(x, [(int(before), int(after)) for before, after in paddings])
    return tf.pad(x, paddings, constant_values=0 if constant is None else constant)


@rule("MirrorPadGrad")
def mirror_padding_gradient(dy: Value, paddings: Value, *, mode: str = "REFLECT") -> Value:
    """What was mirrored receives the gradient of its image too: the margins are folded back.

    Args:
        paddings: [axes, 2], how much was added before and after.
        mode: SYMMETRIC mirrors the edge as well, REFLECT does not.
    """
    skipped = 0 if mode == "SYMMETRIC" else 1
    dx = dy
    for axis, (before, after) in enumerate(np.asarray(paddings).tolist()):
        if not (before or after):
            continue
        side = dx.shape[axis] - before - after
        total = _along(dx, axis, before, side)
        if before:
            image = tf.reverse(_along(dx, axis, 0, before), [axis])
            total += _shifted(image, axis, skipped, side)
        if after:
            image = tf.reverse(_along(dx, axis, before + side, after), [axis])
            total += _shifted(image, axis, side - after - skipped, side)
        dx = total
    return dx


def _along(x: Value, axis: int, start: int, count: int) -> Value:
    """`count` entries along an axis, from `start` on."""
    rank = len(x.shape)
    begin = [start if i == axis else 0 for i in range(rank)]
    return tf.slice(x, begin, [count if i == axis else -1 for i in range(rank)])


def _shifted(x: Value, axis: int, start: int, side: int) -> Value:
    after = side - start - x.shape[axis]
    return padded(x, [(start, after) if i == axis else (0, 0) for i in range(len(x.shape))])


@rule("ReverseV2")
def reverse(x: Value, axes: Value) -> Value:
    """The entries backwards along each axis, one axis after the other.

    The runtime's REVERSE_V2 takes several axes and gives wrong results for them.
    """
    for axis in np.ravel(axes).tolist():
        x = tf.reverse(x, [axis])
    return x


@rule("Roll")
def roll(x: Value, shift: Value, axis: Value) -> Value:
    """y[(i + shift) mod n] = x[i] along each axis: the last `shift` entries come first.

    Raises:
        ValueError: the batch is rolled, or the shift depends on data.
    """
    if not (is_constant(shift) and is_constant(axis)):
        raise ValueError("a roll by an amount that depends on the data")
    for amount, along in zip(np.ravel(shift).tolist(), np.ravel(axis).tolist(), strict=True):
        along %= len(x.shape)
        side = x.shape[along]
        if side is None or batch.is_generic(side):
            raise ValueError("a roll of the batch")
        last = amount % side
        if last:
            parts = _along(x, along, side - last, last), _along(x, along, 0, side - last)
            x = tf.concat(parts, along)
    return x


@rule("MatrixBandPart")
def band(x: Value, lower: Value, upper: Value) -> Value:
    """The entries at most `lower` below and `upper` above the diagonal, 0 elsewhere.

    Args:
        x: [..., rows, columns].
        lower, upper: Scalars known now; negative for all.
    """
    rows, columns = x.shape[-2:]
    row, column = np.arange(rows)[:, np.newaxis], np.arange(columns)
    below, above = int(lower), int(upper)
    kept = ((below < 0) | (row - column <= below)) & ((above < 0) | (column - row <= above))
    if x.dtype == tf.bool:
        return tf.logical_and(x, kept)
    return tf.where(kept, x, tf.zeros([], x.dtype))
