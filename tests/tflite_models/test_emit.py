"""An operation of the source graph gives, folded or built again, what TensorFlow gives."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.tflite_models.on_device import DeviceFunction


def node(function: Callable[..., Any], *shapes: Any) -> Any:
    """The node of the last operation that a function of placeholders makes."""
    import tensorflow as tf

    from tflite_models.lowering.source import nodes

    graph = tf.Graph()
    with graph.as_default():
        function(*(tf.compat.v1.placeholder(dtype, shape) for dtype, shape in shapes))
    return list(nodes(graph.as_graph_def()))[-1]


def test_an_operation_on_known_values_is_folded() -> None:
    import tensorflow as tf

    from tflite_models.lowering.emit import fold

    packed = node(lambda a, b: tf.stack([a, b]), ("int32", [2]), ("int32", [2]))
    values = np.array([1, 2], np.int32), np.array([3, 4], np.int32)
    (folded,) = fold(packed, values)
    np.testing.assert_array_equal(folded, np.stack(values))
    (numbers,) = fold(node(tf.exp, ("float32", [2])), [np.zeros(2, np.float32)])
    np.testing.assert_array_equal(numbers, np.ones(2))


def test_what_is_large_or_random_is_not_folded() -> None:
    import tensorflow as tf

    from tflite_models.lowering.emit import MAX_FOLDED_ELEMENTS, fold

    filled = node(lambda d: tf.fill(d, 1.0), ("int32", [1]))
    assert fold(filled, [np.array([MAX_FOLDED_ELEMENTS + 1], np.int32), np.float32(1)]) is None
    drawn = node(lambda shape: tf.raw_ops.RandomUniform(shape=shape, dtype="float32"), ("int32", 1))
    assert fold(drawn, [np.array([2], np.int32)]) is None


def test_multiples_of_the_batch_are_folded_exactly_beyond_32_bits_and_never_made_numbers() -> None:
    import tensorflow as tf

    from tflite_models.lowering import batch
    from tflite_models.lowering.emit import fold

    one = batch.PRIMES[0]
    with batch.generic(one):
        product = node(lambda a, b: a * b, ("int32", []), ("int32", []))
        (large,) = fold(product, [np.array(one), np.array(1_000_000)])
        assert large == one * 1_000_000 > np.iinfo(np.int32).max
        counted = node(lambda a: tf.cast(a, tf.float32), ("int32", []))
        assert fold(counted, [np.array(one, np.int32)]) is None


def test_an_elementwise_operation_on_more_axes_than_the_runtime_broadcasts_is_right() -> None:

    from tflite_models.lowering.emit import emit

    shapes = [2, 3, 1, 4, 2, 1], [2, 3, 5, 4, 2, 3]
    subtract = node(lambda a, b: a - b, *(("float32", shape) for shape in shapes))
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape, np.float32) for shape in shapes)
    function = DeviceFunction(lambda a, b: emit(subtract, [a, b])[0], [a, b], dynamic=())
    np.testing.assert_allclose(function(a, b)[0], np.subtract(a, b), rtol=1e-6)
