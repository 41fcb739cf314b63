"""The order of a tensor's axes, and the way to channels last, in which rules compute."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tflite_models.lowering.values import Value


class Layout:
    """NHWC (batch, height, width, channels) or NCHW.

    Raises:
        ValueError: another order of axes.
    """

    def __init__(self, data_format: str) -> None:
        if data_format not in ("NHWC", "NCHW"):
            raise ValueError(f"the data format {data_format} is not supported")
        self._channels_first = data_format == "NCHW"

    def to_channels_last(self, x: Value) -> Value:
        return tf.transpose(x, [0, 2, 3, 1]) if self._channels_first else x

    def from_channels_last(self, x: Value) -> Value:
        return tf.transpose(x, [0, 3, 1, 2]) if self._channels_first else x

    def channels_last(self, entries: Sequence[Any]) -> list[Any]:
        """Four entries, one for each axis, in the order NHWC."""
        if self._channels_first:
            return [entries[0], entries[2], entries[3], entries[1]]
        return list(entries)

    def channels_last_pairs(self, entries: Sequence[int]) -> list[int]:
        """Two entries for each axis, or none at all, in the order NHWC."""
        pairs = [entries[i : i + 2] for i in range(0, len(entries), 2)]
        return [entry for pair in (self.channels_last(pairs) if pairs else []) for entry in pair]
