"""A graph that is edited computes what it did, from the inputs that it reads."""

import tempfile

import numpy as np


def _converted() -> bytes:
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([4], name=name) for name in ("a", "b", "c")])
    def step(a, b, c):  # noqa: ARG001
        return {"sum": a + c}

    @tf.function(input_signature=[tf.TensorSpec([4], name="a")])
    def constant(a):  # noqa: ARG001
        return {"one": tf.ones([2])}

    module = tf.Module()
    signatures = {
        "step": step.get_concrete_function(),
        "constant": constant.get_concrete_function(),
    }
    with tempfile.TemporaryDirectory() as directory:
        tf.saved_model.save(module, directory, signatures=signatures)
        return bytes(tf.lite.TFLiteConverter.from_saved_model(directory).convert())


def test_inputs_that_nothing_reads_are_dropped_but_a_signatures_last_one() -> None:
    from tflite_runtime.interpreter import Interpreter

    from device_plan.compiler.flatbuffer import EditableGraph

    graph = EditableGraph(_converted())
    graph.drop_unread_inputs()
    interpreter = Interpreter(model_content=graph.to_bytes())
    signatures = interpreter.get_signature_list()
    assert sorted(signatures["step"]["inputs"]) == ["a", "c"]
    assert signatures["constant"]["inputs"] == ["a"]
    a, c = np.arange(4, dtype=np.float32), np.full(4, 10, np.float32)
    found = interpreter.get_signature_runner("step")(a=a, c=c)
    np.testing.assert_array_equal(found["sum"], a + c)
    np.testing.assert_array_equal(interpreter.get_signature_runner("constant")(a=a)["one"], [1, 1])
