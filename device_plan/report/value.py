"""What is known of a tensor before a graph runs: dtype, shape, and small values."""

import math
from dataclasses import dataclass

import numpy as np

Shape = tuple[int, ...]

#: Elements above which a value is not followed; shapes and loop counters are far below.
FOLLOWED_ELEMENTS = 4096

_BYTES = {"bool": 1, "string": 0, "resource": 0, "variant": 0, "int4": 1}


@dataclass(frozen=True)
class Value:
    """One tensor.

    Attributes:
        dtype: numpy's name, or one that only TFLite has.
        shape: Without open dimensions.
        known: Its elements if they follow from shapes and constants, else None.
    """

    dtype: str
    shape: Shape
    known: np.ndarray | None = None

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes of the elements; strings and handles count none."""
        size = _BYTES.get(self.dtype)
        if size is None:
            size = 0 if self.dtype.startswith("type ") else np.dtype(self.dtype).itemsize
        return self.elements * size
