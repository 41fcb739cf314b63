"""Sliding windows: which entries of an axis each position reads, and what reads each entry.

Convolutions, pooling and their gradients are sums over the taps of a window. A
forward pass reads entry `position * stride + tap * dilation - before`. Its
adjoint splits the entries by their remainder modulo the stride into phases:
within a phase all entries are read by the same taps, and neighbouring entries
by neighbouring positions, so each phase is a window of stride one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

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

    @property
    def is_whole(self) -> bool:
        """Whether each position reads its own entry and nothing else."""
        return self.offsets == (0,) and self.stride == 1 and self.count == self.size

    def entries(self) -> np.ndarray:
        """int64 [count, taps]: the entries read; -1 for those outside the axis."""
        read = np.arange(self.count)[:, None] * self.stride + np.array(self.offsets)[None, :]
        return np.where((read >= 0) & (read < self.size), read, -1)

    def slice_of(self, tap: int) -> slice:
        """The entries that a tap reads, on the axis padded with `before` and `after`."""
        begin = self.offsets[tap] + self.before
        return slice(begin, begin + (self.count - 1) * self.stride + 1, self.stride)


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
    strides: Sequence[int],
    dilations: Sequence[int] = (1, 1, 1, 1),
    padding: str,
    explicit: Sequence[int] = (),
) -> tuple[Window, Window]:
    """The windows along height and width of [batch, height, width, channels].

    Padding and output sizes as in TensorFlow (tf.nn.convolution): SAME gives
    ceil(size / stride) positions and puts the odd entry of padding at the end.

    Args:
        sides: Height and width.
        kernel: Taps along height and width.
        strides, dilations: Four entries, in the order of the tensor's axes.
        padding: SAME, VALID or EXPLICIT.
        explicit: For EXPLICIT, entries before and after each axis, eight numbers.
    """
    return (
        _window(sides[0], kernel[0], strides[1], dilations[1], padding, explicit[2:4]),
        _window(sides[1], kernel[1], strides[2], dilations[2], padding, explicit[4:6]),
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
    """[batch, height, width, channels] with what the taps read outside; axes 1 and 2 grow."""
    paddings = [[0, 0], [rows.before, rows.after], [columns.before, columns.after], [0, 0]]
    if not np.any(paddings):
        return x
    return tf.pad(x, paddings, constant_values=fill)


def tap_slices(x: Value, rows: Taps, columns: Taps, *, fill: float = 0.0) -> list[list[Value]]:
    """For each tap in height and in width, the entries it reads at every position.

    Args:
        x: [batch, height, width, channels], or any tensor with height and width as axes 1 and 2.
        fill: What is read outside.
    """
    x = padded(x, rows, columns, fill=fill)
    return [
        [_part(x, rows.slice_of(i), columns.slice_of(j)) for j in range(len(columns.offsets))]
        for i in range(len(rows.offsets))
    ]


def _part(x: Value, rows: slice, columns: slice) -> Value:
    everything = slice(0, x.shape[1], 1), slice(0, x.shape[2], 1)
    return x if (rows, columns) == everything else x[:, rows, columns, :]


def interleaved(phases: Sequence[Value | None], axis: int, size: int) -> Value:
    """The entries of `phases`, in turn: entry i is entry i // n of phase i % n.

    Args:
        phases: n tensors of rank 4 whose sides along `axis` add up to `size` and
            decrease by at most one; None for zeros. At least one is given.
        axis: 1 or 2.
    """
    if len(phases) == 1:
        return phases[0]
    given = [phase for phase in phases if phase is not None]
    largest = -(-size // len(phases))
    # A shorter phase gets one more entry, which is cut off again.
    paddings = [[0, 0] if other != axis else [0, 1] for other in range(4)]
    full = [tf.pad(phase, paddings) if phase.shape[axis] < largest else phase for phase in given]
    filled = iter(full)
    stacked = tf.stack(
        [tf.zeros_like(full[0]) if phase is None else next(filled) for phase in phases],
        axis=axis + 1,
    )
    shape = [-1, *(int(side) for side in full[0].shape[1:])]
    shape[axis] = largest * len(phases)
    joined = tf.reshape(stacked, shape)
    if shape[axis] == size:
        return joined
    return joined[:, :size] if axis == 1 else joined[:, :, :size]
