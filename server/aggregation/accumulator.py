"""The running sum of a round's updates, in memory only."""

from collections.abc import Callable

import numpy as np
from scipy.linalg.blas import daxpy, saxpy

from device_plan.checkpoint import Layout


def _add_float32(total: np.ndarray, update: np.ndarray) -> None:
    saxpy(update, total)


def _add_float64(total: np.ndarray, update: np.ndarray) -> None:
    daxpy(update, total)


def _add_integers(total: np.ndarray, update: np.ndarray) -> None:
    np.add(total, update, out=total)


def _addition(dtype: np.dtype) -> Callable[[np.ndarray, np.ndarray], None]:
    if dtype == np.float32:
        return _add_float32
    if dtype == np.float64:
        return _add_float64
    if np.issubdtype(dtype, np.integer):
        return _add_integers
    raise TypeError(f"updates of dtype {dtype} cannot be summed")


class Accumulator:
    """The element-wise sum of updates that share one layout.

    TFF's `accumulate` is addition from zero (the plan's compiler proves it), so
    a sum over any grouping of the updates is the sum TFF would have made, up to
    the rounding of another order.

    Raises:
        TypeError: the layout has a dtype that cannot be summed.
    """

    def __init__(self, *, layout: Layout) -> None:
        self._layout = layout
        self._totals = tuple(np.zeros(block.size, block.dtype) for block in layout.blocks)
        self._additions = tuple(_addition(block.dtype) for block in layout.blocks)
        #: Updates in the sum.
        self.count = 0

    def add(self, views: tuple[np.ndarray, ...]) -> None:
        """Adds one update, given as `Layout.views` gives it."""
        for addition, total, update in zip(self._additions, self._totals, views, strict=True):
            if total.size:
                addition(total, update)
        self.count += 1

    def merge(self, other: "Accumulator") -> None:
        """Adds another sum of the same layout, count and all."""
        count = self.count + other.count
        self.add(other._totals)
        self.count = count

    def tensors(self) -> dict[str, np.ndarray]:
        """The sums by tensor name, with the layout's shapes and dtypes."""
        return self._layout.tensors(self._totals)
