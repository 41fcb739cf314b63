"""A graph computes on the device runtime what numpy does, however its tensors share memory."""

import numpy as np


def test_a_tensor_that_a_view_of_it_is_written_over_is_still_right_for_its_last_reader() -> None:
    import tensorflow as tf
    from tflite_runtime.interpreter import Interpreter

    from device_plan.compiler.flatbuffer import EditableGraph
    from device_plan.compiler.shared_memory import keep_apart

    @tf.function(input_signature=[tf.TensorSpec([None, 8]), tf.TensorSpec([None, 4])])
    def function(x, y):
        shared = tf.exp(x) * 3.0 + tf.reduce_max(x)
        over = tf.reshape(shared, [-1, 4]) * y
        # It needs the product, so it comes after it.
        return {"late": shared * tf.reduce_sum(over)}

    module = tf.Module()
    module.function = function
    concrete = [function.get_concrete_function()]
    converter = tf.lite.TFLiteConverter.from_concrete_functions(concrete, module)
    graph = EditableGraph(converter.convert())
    assert keep_apart(graph.model) > 0
    x = np.linspace(-1, 1, 24, dtype=np.float32).reshape(3, 8)
    y = np.linspace(2, 3, 24, dtype=np.float32).reshape(6, 4)
    found = Interpreter(model_content=graph.to_bytes()).get_signature_runner()(x=x, y=y)
    shared = np.exp(x) * 3 + x.max()
    over = shared.reshape(6, 4) * y
    np.testing.assert_allclose(found["late"], shared * over.sum(), rtol=1e-5)


def test_a_graph_without_views_is_left_as_it_is() -> None:
    import tensorflow as tf

    from device_plan.compiler.flatbuffer import EditableGraph
    from device_plan.compiler.shared_memory import keep_apart

    @tf.function(input_signature=[tf.TensorSpec([None, 8])])
    def function(x):
        y = tf.exp(x) + 1.0
        return y * tf.reduce_sum(y)

    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()])
    data = converter.convert()
    graph = EditableGraph(data)
    before = graph.to_bytes()
    assert keep_apart(graph.model) == 0
    assert graph.to_bytes() == before
