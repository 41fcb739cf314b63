"""Sliding windows: which entries of an axis each position reads, and what reads each entry.

Convolutions, pooling and their gradients are sums over the taps of a window. A
forward pass reads entry `position * stride + tap * dilation - before`. Its
adjoint splits the entries by their remainder modulo the stride into phases:
within a phase all entries are read by the same taps, and neighbouring entries
by neighbouring positions, so each phase is a window of stride one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import tensorflow as tf

from tflite_models.lowering.rules.layout import Layout
from tflite_models.lowering.values import Value


@dataclass(frozen=True)
class Taps:
    """Reads along one axis: position p and tap t read entry p * stride + offsets[t].

    Attributes:
        size: Entries of the axis that is read. What lies outside reads as padding.
        count: Positions.
        stride: Entries between the reads of neighbouring positions.
        offsets: For each tap, the entry that position 0 reads.
        taps: For each tap, its index in the whole window.
    """

    size: int
    count: int
    stride: int
    offsets: tuple[int, ...]
    taps: tuple[int, ...]

    @property
    def before(self) -> int:
        """Entries read before the axis begins."""
        return max(0, -min(self.offsets))

    @property
    def after(self) -> int:
        """Entries read after the axis ends."""
        return max(0, max(self.offsets) + (self.count - 1) * self.stride - self.size + 1)

    def only(self, tap: int) -> "Taps":
        """One of the taps."""
        return replace(self, offsets=(self.offsets[tap],), taps=(self.taps[tap],))

    def turned(self) -> "Taps":
        """The same taps in the opposite order."""
        return replace(self, offsets=self.offsets[::-1], taps=self.taps[::-1])

    @property
    def is_dense(self) -> bool:
        """Whether neighbouring taps read neighbouring entries."""
        return all(b - a == 1 for a, b in pairwise(self.offsets))

    @property
    def is_whole(self) -> bool:
        """Whether each position reads its own entry and nothing else."""
        return self.offsets == (0,) and self.stride == 1 and self.count == self.size

    def entries(self) -> np.ndarray:
        """int64 [count, taps]: the entries read; -1 for those outside the axis."""
        read = np.arange(self.count)[:, None] * self.stride + np.array(self.offsets)[None, :]
        return np.where((read >= 0) & (read < self.size), read, -1)


@dataclass(frozen=True)
class Window:
    """A window sliding along one axis.

    Attributes:
        size: Entries of the input's axis.
        kernel: Taps.
        before: Entries of padding before the axis.
        count: Positions, the entries of the output's axis.
    """

    size: int
    kernel: int
    stride: int
    dilation: int
    before: int
    count: int

    def forward(self) -> Taps:
        """What each output entry reads of the input."""
        offsets = tuple(tap * self.dilation - self.before for tap in range(self.kernel))
        return Taps(self.size, self.count, self.stride, offsets, tuple(range(self.kernel)))

    def backward(self) -> list[Taps | None]:
        """What each input entry is read by, for entries 0, 1, ... modulo the stride.

        Returns:
            A phase for each remainder below the stride; None where no tap reads it.
            At least one is not None.
        """
        phases: list[Taps | None] = []
        for remainder in range(min(self.stride, self.size)):
            readers = [
                (tap, (remainder + self.before - tap * self.dilation) // self.stride)
                for tap in range(self.kernel)
                if (remainder + self.before - tap * self.dilation) % self.stride == 0
            ]
            count = -(-(self.size - remainder) // self.stride)
            taps, offsets = tuple(t for t, _ in readers), tuple(o for _, o in readers)
            phases.append(Taps(self.count, count, 1, offsets, taps) if readers else None)
        if not any(phases):
            # No position reads the axis: one tap that reads outside gives zeros of its size.
            count = -(-self.size // self.stride)
            phases[0] = Taps(self.count, count, 1, (self.count,), (0,))
        return phases


def windows(
    sides: Sequence[int],
    kernel: Sequence[int],
    *,
    layout: Layout,
    strides: Sequence[int],
    dilations: Sequence[int] = (1, 1, 1, 1),
    padding: str,
    explicit: Sequence[int] = (),
) -> tuple[Window, Window]:
    """The windows along height and width that an operation's attributes describe.

    Padding and output sizes as in TensorFlow (tf.nn.convolution): SAME gives
    ceil(size / stride) positions and puts the odd entry of padding at the end.

    Args:
        sides: Height and width.
        kernel: Taps along height and width.
        layout: The order of axes that the attributes have.
        strides, dilations: Four entries, one for each axis.
        padding: SAME, VALID or EXPLICIT.
        explicit: For EXPLICIT, entries before and after each axis, eight numbers.
    """
    _, *stride, _ = layout.channels_last(strides)
    _, *dilation, _ = layout.channels_last(dilations)
    rims = layout.channels_last_pairs(explicit)
    return (
        _window(sides[0], kernel[0], stride[0], dilation[0], padding, rims[2:4]),
        _window(sides[1], kernel[1], stride[1], dilation[1], padding, rims[4:6]),
    )


def _window(
    size: int, kernel: int, stride: int, dilation: int, padding: str, explicit: Sequence[int]
) -> Window:
    extent = (kernel - 1) * dilation + 1
    if padding == "SAME":
        count = -(-size // stride)
        before = max((count - 1) * stride + extent - size, 0) // 2
        return Window(size, kernel, stride, dilation, before, count)
    before, after = explicit if padding == "EXPLICIT" else (0, 0)
    count = (size + before + after - extent) // stride + 1
    return Window(size, kernel, stride, dilation, before, count)


def padded(x: Value, rows: Taps, columns: Taps, *, fill: float = 0.0) -> Value:
    """[batch, height, width, channels] with all that the taps read outside.

    Height and width grow to multiples of the strides, as `phases` needs them.
    """
    paddings = [[0, 0], _rim(rows), _rim(columns), [0, 0]]
    if not np.any(paddings):
        return x
    return tf.pad(x, paddings, constant_values=fill)


def _rim(taps: Taps) -> list[int]:
    total = taps.before + taps.size + taps.after
    return [taps.before, taps.after + -total % taps.stride]


def phases(x: Value, stride: int, axis: int) -> list[Value]:
    """For each remainder r below `stride`, the entries r, r + stride, ... along axis 1 or 2.

    Reshaped and split, since some runtimes are slow at slices with strides.
    """
    if stride == 1:
        return [x]
    height, width, channels = (int(side) for side in x.shape[1:])
    if axis == 1:
        parts = tf.split(
            tf.reshape(x, [-1, height // stride, stride * width * channels]), stride, axis=2
        )
        return [tf.reshape(part, [-1, height // stride, width, channels]) for part in parts]
    return list(
        tf.split(tf.reshape(x, [-1, height, width // stride, stride * channels]), stride, axis=3)
    )


def cut(parts: Sequence[Value], taps: Taps, tap: int, axis: int) -> Value:
    """The entries that one tap reads at all positions.

    Args:
        parts: The phases, for the taps' stride, of a padded tensor.
    """
    start = taps.offsets[tap] + taps.before
    part, first = parts[start % taps.stride], start // taps.stride
    if first == 0 and part.shape[axis] == taps.count:
        return part
    if axis == 1:
        return part[:, first : first + taps.count]
    return part[:, :, first : first + taps.count]


def reads(x: Value, taps: Taps, axis: int) -> list[Value]:
    """For each tap along axis 1 or 2 of a padded tensor, the entries that it reads."""
    parts = phases(x, taps.stride, axis)
    return [cut(parts, taps, tap, axis) for tap in range(len(taps.offsets))]


def interleaved(parts: Sequence[Value | None], axis: int, size: int) -> Value:
    """The inverse of `phases`: entry i is entry i // n of part i % n.

    Args:
        parts: n tensors of rank 4 whose sides along `axis` add up to `size` and
            decrease by at most one; None for zeros. At least one is given.
        axis: 1 or 2.
    """
    if len(parts) == 1:
        return parts[0]
    given = [part for part in parts if part is not None]
    largest = -(-size // len(parts))
    # A shorter part gets one more entry, which is cut off again.
    paddings = [[0, 1] if other == axis else [0, 0] for other in range(4)]
    equal = [tf.pad(part, paddings) if part.shape[axis] < largest else part for part in given]
    height, width, channels = (int(side) for side in equal[0].shape[1:])
    zeros = tf.zeros_like(equal[0]) if len(given) < len(parts) else None
    turn = iter(equal)
    whole = [zeros if part is None else next(turn) for part in parts]
    if axis == 2:
        joined = tf.reshape(tf.concat(whole, axis=3), [-1, height, width * len(parts), channels])
        return joined if joined.shape[2] == size else joined[:, :, :size]
    flat = [tf.reshape(part, [-1, height, width * channels]) for part in whole]
    joined = tf.reshape(tf.concat(flat, axis=2), [-1, height * len(parts), width, channels])
    return joined if joined.shape[1] == size else joined[:, :size]
