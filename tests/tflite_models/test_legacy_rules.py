"""What old runtimes lack is replaced by what they have, and computes the same."""

import numpy as np

from tests.tflite_models.on_device import DeviceFunction, on_device


def by_substitution(op: str, *inputs: object):
    from tflite_models.lowering.rules.legacy import LEGACY

    return LEGACY[op].apply(list(inputs), {})[0]


def test_the_sign_equals_numpys_also_of_infinities_zeros_and_what_is_no_number():
    x = np.array([-np.inf, -3, -1e-30, -0.0, 0.0, 1e-30, 2, np.inf, np.nan], np.float32)
    (ours,) = on_device(lambda x: by_substitution("Sign", x), x)
    np.testing.assert_array_equal(ours, np.sign(x))


def test_the_sign_of_whole_numbers_equals_numpys():
    x = np.array([-5, 0, 7], np.int32)
    (ours,) = on_device(lambda x: by_substitution("Sign", x), x)
    np.testing.assert_array_equal(ours, np.sign(x))


def test_the_legacy_profile_leaves_no_operation_that_old_runtimes_lack():
    import tensorflow as tf

    from tflite_models.lowering import batch
    from tflite_models.lowering.lowered import lower

    def body(x, indices):
        kept = tf.sign(x) * x
        return [kept, tf.math.unsorted_segment_sum(kept, indices, 4)]

    specs = [tf.TensorSpec([None, 3], tf.float32), tf.TensorSpec([None], tf.int32)]
    lowered = lower(body, specs, generic=batch.PRIMES[0], profile="legacy")
    assert not {node.op for node in lowered.graph.node} & {"Sign", "UnsortedSegmentSum"}
    example = [np.zeros((2, 3), np.float32), np.zeros(2, np.int32)]
    function = DeviceFunction(lambda *values: lowered(*values), example, dynamic=(0, 1))
    for size in (1, 2, 6):
        rng = np.random.default_rng(size)
        x = rng.standard_normal((size, 3)).astype(np.float32)
        indices = rng.integers(0, 4, size).astype(np.int32)
        expected = np.zeros((4, 3), np.float32)
        np.add.at(expected, indices, np.abs(x))
        for ours, theirs in zip(function(x, indices), [np.abs(x), expected], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)


def test_the_approximate_gelu_is_not_fused_into_an_operation_that_old_runtimes_lack():
    import tensorflow as tf
    from tensorflow.lite.python.schema_py_generated import BuiltinOperator, Model

    from tflite_models.lowering import batch
    from tflite_models.lowering.graph_walk import GraphWalk
    from tflite_models.lowering.lowered import lower

    spec = tf.TensorSpec([None, 4], tf.float32)
    traced = tf.function(lambda x: tf.nn.gelu(x, approximate=True), input_signature=[spec])
    graph = traced.get_concrete_function().graph
    lowered = lower(
        lambda x: GraphWalk(graph.as_graph_def()).run({"x": x}, [graph.outputs[0].name]),
        [spec],
        generic=batch.PRIMES[0],
        profile="legacy",
    )
    x = np.linspace(-4, 4, 20, dtype=np.float32).reshape(5, 4)
    function = DeviceFunction(lambda x: lowered(x), [x])
    file = Model.GetRootAsModel(function.graph, 0)
    used = {file.OperatorCodes(i).BuiltinCode() for i in range(file.OperatorCodesLength())}
    assert BuiltinOperator.GELU not in used
    np.testing.assert_allclose(function(x)[0], traced(x), rtol=1e-5, atol=1e-6)
