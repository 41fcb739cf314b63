"""Operations on more axes than some runtimes take: five and more.

In TFLite 2.11 and older an addition of broadcast operands of five axes ends the
process, as does a selection in 2.9 and older, and transpositions of six axes are
missing. Adjacent axes that are treated alike are joined into one, which
leaves few: an image's height and width, say, are mostly broadcast together.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from tflite_models.lowering.rules.products import sides
from tflite_models.lowering.rules.table import rule
from tflite_models.lowering.values import Value

#: Axes that every runtime broadcasts, and that every runtime transposes.
BROADCAST_AXES = 4
TRANSPOSED_AXES = 5


@rule("SelectV2")
def select(condition: Value, x: Value, y: Value) -> Value:
    """x where the condition holds, else y, with axes of size 1 repeated."""
    return broadcast(tf.where, condition, x, y)


def broadcast(function: Callable[..., Value], *operands: Value) -> Value:
    """An elementwise function of operands whose axes of size 1 are repeated."""
    shapes = [tf.TensorShape(operand.shape).as_list() for operand in operands]
    rank = max(len(shape) for shape in shapes)
    # Of more axes the converter broadcasts even equal shapes, as the batch is dynamic.
    if rank <= BROADCAST_AXES:
        return function(*operands)
    full = [[1] * (rank - len(shape)) + shape for shape in shapes]
    groups = _alike(full)
    joined = [
        tf.reshape(operand, sides(tf.TensorShape([_product(shape[a:b]) for a, b in groups])))
        for operand, shape in zip(operands, full, strict=True)
    ]
    result = [next((side for side in axis if side != 1), 1) for axis in zip(*full, strict=True)]
    return tf.reshape(function(*joined), sides(tf.TensorShape(result)))


def _alike(shapes: Sequence[Sequence[int | None]]) -> list[tuple[int, int]]:
    """Ranges of adjacent axes along which the same operands are repeated."""
    groups: list[tuple[int, int]] = []
    repeated: list[tuple[bool, ...]] = []
    for axis, axis_sides in enumerate(zip(*shapes, strict=True)):
        pattern = tuple(side == 1 for side in axis_sides)
        if groups and (repeated[-1] == pattern or all(pattern)):
            groups[-1] = (groups[-1][0], axis + 1)
        else:
            groups.append((axis, axis + 1))
            repeated.append(pattern)
    return groups


def _product(axes: Sequence[int | None]) -> int | None:
    known = [side for side in axes if side is not None]
    return math.prod(known) if len(known) == len(axes) else None


@rule("Transpose")
def transpose(x: Value, permutation: Value) -> Value:
    """y[i[permutation[0]], i[permutation[1]], ...] = x[i[0], i[1], ...].

    What cannot be joined to five axes is done in steps: each brings the next axis
    of the result to its place, [done, before, axis, after] to [done, axis, before, after].
    """
    order = [int(axis) for axis in np.ravel(permutation)]
    shape = tf.TensorShape(x.shape).as_list()
    if len(order) <= TRANSPOSED_AXES:
        return tf.transpose(x, order)
    runs = [[order[0]]]
    for axis in order[1:]:
        if axis == runs[-1][-1] + 1:
            runs[-1].append(axis)
        else:
            runs.append([axis])
    result = sides(tf.TensorShape([shape[axis] for axis in order]))
    joined = sorted(runs)
    if len(runs) <= TRANSPOSED_AXES:
        x = tf.reshape(
            x, sides(tf.TensorShape([_product([shape[a] for a in run]) for run in joined]))
        )
        return tf.reshape(tf.transpose(x, [joined.index(run) for run in runs]), result)
    lying = list(range(len(order)))
    for place, axis in enumerate(order):
        at = lying.index(axis)
        parts = lying[:place], lying[place:at], [axis], lying[at + 1 :]
        if parts[1]:
            view = [_product([shape[a] for a in part]) for part in parts]
            x = tf.transpose(tf.reshape(x, sides(tf.TensorShape(view))), [0, 2, 1, 3])
        lying = [*parts[0], axis, *parts[1], *parts[3]]
    return tf.reshape(x, result)
