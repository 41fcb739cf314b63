"""TFLite graphs for tests, converted from plain functions."""

import tempfile
from collections.abc import Callable, Mapping
from typing import Any

#: A function of tensors by name, and their shapes; a dtype other than float32
#: stands beside the shape.
Step = tuple[Callable[..., Mapping[str, Any]], Mapping[str, Any]]


def convert(*, select_tensorflow: bool = False, **signatures: Step) -> bytes:
    """The TFLite file with these signatures; None in a shape stays open."""
    import tensorflow as tf

    class Module(tf.Module):
        pass

    module = Module()
    functions = {}
    for name, (step, inputs) in signatures.items():
        specs = {}
        for key, declared in inputs.items():
            shape, dtype = declared if isinstance(declared[-1], str) else (declared, "float32")
            specs[key] = tf.TensorSpec(shape, dtype, name=key)
        functions[name] = tf.function(step, autograph=False).get_concrete_function(**specs)
    with tempfile.TemporaryDirectory() as directory:
        tf.saved_model.save(module, directory, signatures=functions)
        converter = tf.lite.TFLiteConverter.from_saved_model(directory)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        if select_tensorflow:
            converter.target_spec.supported_ops.append(tf.lite.OpsSet.SELECT_TF_OPS)
        return bytes(converter.convert())
