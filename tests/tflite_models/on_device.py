"""Runs a function of tensors as a phone would: converted to TFLite builtins, on the device runtime.

That an operation converts does not mean that it computes the same; only this tells.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


class DeviceFunction:
    """A function of tensors, converted once and run at any batch size.

    Args:
        function: Takes tensors, returns a tensor or a sequence of tensors.
        examples: An array for each parameter: its dtype and, where not dynamic, its shape.
        dynamic: Which parameters have a first dimension that is not known when converting.

    Raises:
        Exception: the converter's, if something has no builtin.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        examples: Sequence[np.ndarray],
        *,
        dynamic: Sequence[int] = (0,),
    ) -> None:
        import tensorflow as tf
        from tflite_runtime.interpreter import Interpreter

        specs = [
            tf.TensorSpec(
                [None, *example.shape[1:]] if index in dynamic else example.shape,
                example.dtype,
                name=f"input_{index}",
            )
            for index, example in enumerate(examples)
        ]

        def named(*arguments: Any) -> dict[str, Any]:
            outputs = function(*arguments)
            listed = outputs if isinstance(outputs, list | tuple) else [outputs]
            # An output that is an input or a constant needs an operation of its own.
            return {f"output_{index}": tf.identity(value) for index, value in enumerate(listed)}

        module = tf.Module()
        module.function = tf.function(named, input_signature=specs, autograph=False)
        concrete = module.function.get_concrete_function()
        converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], module)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        #: The TFLite file.
        self.graph: bytes = converter.convert()
        self._run = Interpreter(model_content=self.graph, num_threads=1).get_signature_runner()

    def __call__(self, *inputs: np.ndarray) -> list[np.ndarray]:
        """The outputs, in the function's order."""
        # The names tell which is which: the file's own order is arbitrary.
        outputs = self._run(**{f"input_{index}": value for index, value in enumerate(inputs)})
        return [outputs[f"output_{index}"] for index in range(len(outputs))]


def on_device(
    function: Callable[..., Any], *inputs: np.ndarray, dynamic: Sequence[int] = (0,)
) -> list[np.ndarray]:
    """The outputs of a function, converted to TFLite and run on tflite-runtime.

    Args:
        function: Takes tensors, returns a tensor or a sequence of tensors.
        inputs: One array for each parameter.
        dynamic: Which parameters have a first dimension that is not known when
            converting: by default the first, which holds the examples.
    """
    return DeviceFunction(function, inputs, dynamic=dynamic)(*inputs)
