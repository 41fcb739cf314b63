"""Matrix products, in the form that TFLite runtimes multiply fastest.

A product of two tensors that are both known only on the device has a fast
kernel (XNNPACK's) as BATCH_MATMUL, and none as FULLY_CONNECTED, into which the
converter turns a product with a transposed right matrix unless there is a batch
axis. A transposed right matrix has the fast kernel only in runtimes after
TFLite 2.14, so a transposed copy is made where it is small against the product.
"""

import math

import numpy as np
import tensorflow as tf

from tflite_models.lowering import batch
from tflite_models.lowering.rules.table import rule
from tflite_models.lowering.values import Value, is_constant

#: Examples in a batch, where a decision about speed needs a number.
TYPICAL_BATCH = 16

#: Rows of the left matrix from which on a transposed copy of the right one pays.
REUSED_ROWS = 64

#: Entries of a matrix (1 MiB of float32) that stays in a core's cache while it is copied.
CACHED_ENTRIES = 2**18

#: Entries of a left matrix (4 MiB of float32) that is transposed as a whole.
TRANSPOSED_ENTRIES = 2**20

#: Columns, at least, of the parts in which a larger one is transposed.
MIN_PIECE = 1024


@rule("MatMul")
def matrix_product(
    a: Value, b: Value, *, transpose_a: bool = False, transpose_b: bool = False
) -> Value:
    """z[i, j] = sum over k of a[i, k] * b[k, j], each matrix transposed first if its flag is set.

    Args:
        a, b: [rows, inner], [inner, columns], or transposed.
    """
    if is_constant(a) or is_constant(b):
        return tf.matmul(a, b, transpose_a=transpose_a, transpose_b=transpose_b)
    if transpose_a and not transpose_b:
        return _transposed_product(a, b)
    if not transpose_b:
        return tf.raw_ops.BatchMatMulV2(x=a, y=b)
    copied = worth_a_copy(b, a.shape[1 if transpose_a else 0])
    # A batch axis keeps the converter from FULLY_CONNECTED; it comes after the
    # transposition, which the converter would undo otherwise.
    right = tf.expand_dims(tf.transpose(b) if copied else b, 0)
    left = tf.expand_dims(a, 0)
    product = tf.raw_ops.BatchMatMulV2(x=left, y=right, adj_x=transpose_a, adj_y=not copied)
    return tf.squeeze(product, 0)


def _transposed_product(a: Value, b: Value) -> Value:
    """a^T b, with some columns of `a` after the others where it is large.

    A runtime copies the transposed left matrix, and some of them a second time as the
    multiplication wants it. Of the gradient of 10,000 words' scores these are the largest
    arrays of a training step.

    Args:
        a, b: [inner, rows], [inner, columns].
    """
    inner, rows = a.shape.as_list()
    count = 1
    if inner is not None and rows is not None and not batch.is_generic(rows):
        entries = batch.times_batch(inner, TYPICAL_BATCH) * rows
        count = min(-(-entries // TRANSPOSED_ENTRIES), rows // MIN_PIECE)
    if count <= 1:
        return tf.raw_ops.BatchMatMulV2(x=a, y=b, adj_x=True)
    size = -(-rows // count)
    pieces = [a[:, start : start + size] for start in range(0, rows, size)]
    return tf.concat([tf.raw_ops.BatchMatMulV2(x=p, y=b, adj_x=True) for p in pieces], axis=0)


def worth_a_copy(b: Value, rows: int | None) -> bool:
    """Whether a transposed copy of the right matrix costs little against the product.

    Copying touches each entry of `b` once, the product `rows` times. A matrix
    that fits the cache is copied at the speed of the cache, whatever the rows.
    """
    sides = b.shape.as_list()
    if None in sides or rows is None or batch.is_generic(math.prod(sides)):
        return True
    reused = batch.times_batch(rows, TYPICAL_BATCH) >= REUSED_ROWS
    return reused or math.prod(sides) <= CACHED_ENTRIES


@rule("BatchMatMul", "BatchMatMulV2")
def batch_matrix_product(x: Value, y: Value, *, adj_x: bool = False, adj_y: bool = False) -> Value:
    """The product of the two last axes, for each index of the others, which broadcast.

    A right operand without batch axes is one matrix for all: the left one's batch
    axes become rows, and one large product replaces many small ones.

    Args:
        x, y: [..., rows, inner], [..., inner, columns], or transposed.
    """
    left, right = tf.TensorShape(x.shape), tf.TensorShape(y.shape)
    if left.rank == 2 and right.rank == 2:
        return matrix_product(x, y, transpose_a=adj_x, transpose_b=adj_y)
    if right.rank == 2 and not adj_x:
        rows = tf.reshape(x, [-1, left[-1]])
        product = matrix_product(rows, y, transpose_b=adj_y)
        return tf.reshape(product, [*sides(left[:-1]), product.shape[-1]])
    return tf.raw_ops.BatchMatMulV2(x=x, y=y, adj_x=adj_x, adj_y=adj_y)


@rule("BatchMatMulV3")
def typed_batch_matrix_product(
    x: Value, y: Value, *, adj_x: bool = False, adj_y: bool = False
) -> Value:
    """BatchMatMulV2, whose result may have another dtype; of float32 it has the same."""
    return batch_matrix_product(x, y, adj_x=adj_x, adj_y=adj_y)


def sides(shape: tf.TensorShape) -> list[int]:
    """A shape for a reshape, at most one side of which is known only on the device (-1)."""
    return [-1 if side is None or batch.is_generic(side) else side for side in shape]


@rule("Einsum")
def einstein_sum(*operands: Value, equation: str) -> Value:
    """Einstein summation of one or two operands, as one matrix product.

    Each letter is one of: batch (in both operands and the result), free (in one
    operand and the result), inner (in both operands, summed) or lone (in one
    operand only, summed at once). Each operand is brought to [batch..., free...,
    inner...] or [batch..., inner..., free...], the free and the inner letters are
    joined into one axis each, and z = x * y for each batch index; then the axes
    are separated and permuted.

    Args:
        equation: As in numpy; an ellipsis stands for leading axes of the same sizes
            in all operands that have one.

    Raises:
        ValueError: a letter is repeated within an operand, or there are more than two operands.
    """
    inputs, result = _named_axes(equation, [tf.TensorShape(x.shape).rank for x in operands])
    if any(len(set(letters)) != len(letters) for letters in inputs):
        raise ValueError(f"the einsum {equation!r} takes a diagonal")
    if len(operands) == 1:
        return _permute(*_without_lone(operands[0], inputs[0], result), result)
    if len(operands) != 2:
        raise ValueError(f"the einsum {equation!r} has more than two operands")
    x, first = _without_lone(operands[0], inputs[0], inputs[1] + result)
    y, second = _without_lone(operands[1], inputs[1], first + result)
    common = [a for a in result if a in first and a in second]
    free = [a for a in result if a not in common]
    if free and free[0] in second:
        (x, first), (y, second) = (y, second), (x, first)
    inner = [a for a in first if a in second and a not in result]
    free_x, free_y = ([a for a in free if a in letters] for letters in (first, second))
    size = _sizes(equation, (x, first), (y, second))
    # Operands stay as they lie in memory where the product can read them so.
    adj_x = first == common + inner + free_x
    adj_y = second == common + free_y + inner
    x_groups = [common, inner, free_x] if adj_x else [common, free_x, inner]
    y_groups = [common, free_y, inner] if adj_y else [common, inner, free_y]
    x, y = _joined(x, first, x_groups, size), _joined(y, second, y_groups, size)
    product = batch_matrix_product(x, y, adj_x=adj_x, adj_y=adj_y)
    letters = common + free_x + free_y
    return _permute(tf.reshape(product, _shape(size, letters)), letters, result)


def _named_axes(equation: str, ranks: list[int]) -> tuple[list[list[str]], list[str]]:
    """The axes' names in each operand and in the result, with ellipses written out."""
    equation = equation.replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if not arrow:
        seen = "".join(terms).replace(".", "")
        right = "..." * ("..." in left) + "".join(
            a for a in sorted(set(seen)) if seen.count(a) == 1
        )
    hidden = [rank - len(term.replace("...", "")) for term, rank in zip(terms, ranks, strict=True)]
    widest = max([0, *(n for n, term in zip(hidden, terms, strict=True) if "..." in term)])
    axes = [f"{index}" for index in range(widest)]

    def written_out(term: str, count: int) -> list[str]:
        before, dots, after = term.partition("...")
        return [*before, *(axes[widest - count :] if dots else []), *after]

    inputs = [written_out(term, count) for term, count in zip(terms, hidden, strict=True)]
    return inputs, written_out(right, widest)


def _without_lone(x: Value, letters: list[str], others: list[str]) -> tuple[Value, list[str]]:
    """The operand summed over the axes that nothing else names."""
    lone = [axis for axis, letter in enumerate(letters) if letter not in others]
    if not lone:
        return x, letters
    return tf.reduce_sum(x, axis=lone), [a for a in letters if a in others]


def _permute(x: Value, letters: list[str], order: list[str]) -> Value:
    if letters == order:
        return x
    return tf.transpose(x, [letters.index(letter) for letter in order])


def _joined(
    x: Value, letters: list[str], groups: list[list[str]], size: dict[str, int | None]
) -> Value:
    """The operand with its axes in the groups' order, each group after the first as one axis."""
    common, second, third = groups
    x = _permute(x, letters, [*common, *second, *third])
    shape = [*_shape(size, common), _product(size, second), _product(size, third)]
    return x if tf.TensorShape(x.shape).as_list() == shape else tf.reshape(x, shape)


def _sizes(equation: str, *operands: tuple[Value, list[str]]) -> dict[str, int | None]:
    size: dict[str, int | None] = {}
    for x, letters in operands:
        for letter, side in zip(letters, tf.TensorShape(x.shape), strict=True):
            if size.setdefault(letter, side) != side:
                raise ValueError(f"the einsum {equation!r} repeats an operand along an axis")
    return size


def _product(size: dict[str, int | None], letters: list[str]) -> int:
    known = [size[letter] for letter in letters]
    if any(side is None or batch.is_generic(side) for side in known):
        return -1
    return int(np.prod([side for side in known if side is not None], dtype=np.int64))


def _shape(size: dict[str, int | None], letters: list[str]) -> list[int]:
    return sides(tf.TensorShape([size[letter] for letter in letters]))


def summed_products(*terms: Value) -> Value | None:
    """X1^T Y1 + X2^T Y2 + ... as one product, [X1; X2; ...]^T [Y1; Y2; ...], if all terms are such.

    A recurrent layer's weight gradient is such a sum, over its time steps.
    """
    pairs = [pair for term in terms for pair in _transposed_factors(term)]
    if len(pairs) < 2 or not all(_transposed_factors(term) for term in terms):
        return None
    x, y = (tf.concat(list(parts), axis=0) for parts in zip(*pairs, strict=True))
    return tf.raw_ops.BatchMatMulV2(x=x, y=y, adj_x=True)


def _transposed_factors(term: Value) -> list[tuple[Value, Value]]:
    """The X and Y of a term X^T Y; those that were stacked here before, one by one."""
    operation = None if tf.executing_eagerly() else getattr(term, "op", None)
    if operation is None or operation.type != "BatchMatMulV2" or len(term.shape) != 2:
        return []
    if not operation.get_attr("adj_x") or operation.get_attr("adj_y"):
        return []
    x, y = operation.inputs
    if x.op.type == y.op.type == "ConcatV2" and len(x.op.inputs) == len(y.op.inputs):
        # All but the last input, which is the axis.
        parts = list(zip(x.op.inputs[:-1], y.op.inputs[:-1], strict=True))
        stacked = x.op.get_attr("N") > 1 and all(a.shape[0] == b.shape[0] for a, b in parts)
        if (
            stacked
            and x.shape[1:] == parts[0][0].shape[1:]
            and y.shape[1:] == parts[0][1].shape[1:]
        ):
            return parts
    return [(x, y)]
