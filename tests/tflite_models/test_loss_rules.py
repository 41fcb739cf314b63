"""Losses by rule run on the device runtime as in TensorFlow."""

import numpy as np
import pytest

from tests.tflite_models.on_device import DeviceFunction


def cross_entropy_on_device(classes: int) -> DeviceFunction:
    from tflite_models.lowering.rules import RULES

    rule = RULES["SparseSoftmaxCrossEntropyWithLogits"]
    return DeviceFunction(
        lambda logits, labels: rule.apply([logits, labels], {}),
        [np.zeros((2, classes), np.float32), np.zeros(2, np.int64)],
        dynamic=(0, 1),
    )


@pytest.mark.parametrize("classes", [2, 7, 11])
def test_sparse_cross_entropy_runs_at_any_batch_size(classes):
    """With seven classes the converter would see a RELU6 in a clipped label."""
    import tensorflow as tf

    function = cross_entropy_on_device(classes)
    for size in (1, 2, 9):
        rng = np.random.default_rng(size)
        logits = (20 * rng.standard_normal((size, classes))).astype(np.float32)
        labels = rng.integers(0, classes, size)
        expected = tf.raw_ops.SparseSoftmaxCrossEntropyWithLogits(features=logits, labels=labels)
        for ours, theirs in zip(function(logits, labels), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_label_that_is_no_class_gives_no_number_and_spares_the_other_examples():
    function = cross_entropy_on_device(classes=3)
    logits = np.array([[1, 2, 3], [3, 2, 1], [0, 0, 0]], np.float32)
    loss, gradient = function(logits, np.array([5, 1, -1]))
    assert np.isnan(loss).tolist() == [True, False, True]
    assert np.isnan(gradient).any(axis=1).tolist() == [True, False, True]
    np.testing.assert_allclose(gradient[1].sum(), 0, atol=1e-6)


def test_top_k_runs_at_any_batch_size_and_counts_no_target_that_is_no_class():
    import tensorflow as tf

    from tflite_models.lowering.rules import RULES

    function = DeviceFunction(
        lambda scores, targets: RULES["InTopKV2"].apply([scores, targets, np.int32(2)], {}),
        [np.zeros((2, 7), np.float32), np.zeros(2, np.int32)],
        dynamic=(0, 1),
    )
    for size in (1, 2, 9):
        rng = np.random.default_rng(size)
        scores = rng.permuted(np.tile(np.arange(7, dtype=np.float32), (size, 1)), axis=1)
        scores[0, 3] = np.inf
        targets = rng.integers(-1, 8, size).astype(np.int32)
        expected = tf.raw_ops.InTopKV2(predictions=scores, targets=targets, k=2)
        np.testing.assert_array_equal(function(scores, targets)[0], expected)
