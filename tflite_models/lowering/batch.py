"""The batch dimension: a symbol that is traced as a number.

The number of examples in a batch is known only on the device. While a graph is
lowered, the batch has a *generic* size instead: a prime that divides no number
of the source graph. All shapes are then static, and all arithmetic on shapes
is arithmetic on known integers. An integer that is a multiple k of the prime
stands for k times the size of the real batch: whatever is computed from shapes
by products, exact quotients and concatenation keeps that meaning. `generalize`
puts the real size back.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import tensorflow as tf

#: Candidates for the generic size: primes large enough to divide few sizes that
#: a model has, and above all entries of the tables in `random_numbers`.
PRIMES = (30341, 30347, 30367, 30389, 30391, 30403, 30427, 30431, 30449, 30467)

#: Integers above which an array is data rather than a shape.
MAX_SHAPE_ENTRIES = 64

_generic: ContextVar[int] = ContextVar("generic batch size", default=0)


@contextmanager
def generic(size: int) -> Iterator[None]:
    """Within it, multiples of `size` stand for multiples of the batch size."""
    token = _generic.set(size)
    try:
        yield
    finally:
        _generic.reset(token)


def choose(integers: Iterable[int]) -> int:
    """A generic size that divides none of the integers.

    Raises:
        ValueError: every candidate divides one of them.
    """
    found = {abs(integer) for integer in integers if integer}
    for prime in PRIMES:
        if not any(integer % prime == 0 for integer in found):
            return prime
    raise ValueError("the model's sizes are multiples of every candidate for a generic batch")


def one() -> int:
    """The generic size of one batch; 0 outside a lowering."""
    return _generic.get()


def is_generic(side: int | None) -> bool:
    """Whether an integer stands for a multiple of the batch size; False outside a lowering."""
    size = _generic.get()
    return bool(size and side and side % size == 0)


def times_batch(side: int, size: int) -> int:
    """A side, with the batch's size put in for the generic one."""
    return side // _generic.get() * size if is_generic(side) else side


def holds_generic(value: Any) -> bool:
    """Whether a known value is a shape, or part of one, with a generic entry."""
    if not isinstance(value, np.ndarray | np.generic) or value.dtype.kind not in "iu":
        return False
    size = _generic.get()
    if not size or np.size(value) > MAX_SHAPE_ENTRIES:
        return False
    entries = np.ravel(value)
    return bool(np.any((entries % size == 0) & (entries != 0)))


def count(x: Any, axes: Sequence[int]) -> Any:
    """How many elements a reduction of `x` over `axes` joins.

    Returns:
        A Python float; a scalar float32 tensor if the batch is among the axes.
    """
    known, unknown = 1.0, []
    for axis in axes:
        side = x.shape[axis]
        if side is None:
            unknown.append(tf.shape(x)[axis])
        elif is_generic(int(side)):
            unknown.append(tf.constant(int(side), tf.int32))
        else:
            known *= int(side)
    total: Any = known
    for side in unknown:
        total = tf.cast(side, tf.float32) * total
    return total
