"""The model's outputs for single examples, which `eval` gives beside the metrics."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import tensorflow as tf

from device_plan.compiler.model import ModelDescription, flat_features
from device_plan.compiler.process import reset_seeds
from device_plan.plan_pb2 import TensorSpec
from device_plan.task import FederatedTask
from tflite_models.lowering import ForwardPass, Profile

#: Given the checkpoint's tensors by name and a batch's features, the outputs.
Predict: TypeAlias = Callable[[Mapping[str, Any], Sequence[Any]], Sequence[Any]]


class Prediction:
    """The forward pass of a task's model, in inference mode.

    Attributes:
        specs: Of the outputs, named "prediction/0" and so on; the first dimension is -1.
            Empty if the model does not say which features are its input.
    """

    def __init__(self, task: FederatedTask, model: ModelDescription) -> None:
        self._model = model
        reset_seeds(task.seed)
        with tf.Graph().as_default() as graph:
            made = task.model_fn()
            input_name, features = _input(made.input_spec)
            placeholders = tf.nest.map_structure(
                lambda spec: tf.compat.v1.placeholder(spec.dtype, spec.shape), features
            )
            self._features = [name for name, _ in flat_features(features, input_name)]
            leaves = [leaf for _, leaf in flat_features(placeholders, input_name)]
            self._placeholders = [leaf.name for leaf in leaves]
            variables = [*made.trainable_variables, *made.non_trainable_variables]
            self._variables = [v.handle.op.get_attr("shared_name").decode() for v in variables]
            self._variable_specs = [tf.TensorSpec(v.shape, v.dtype) for v in variables]
            outputs = []
            if leaves:
                outputs = tf.nest.flatten(made.predict_on_batch(placeholders, training=False))
            batched = [o for o in outputs if o.shape.rank and o.shape[1:].is_fully_defined()]
            self._outputs = [output.name for output in batched]
            self.specs = [
                TensorSpec(
                    name=f"prediction/{index}",
                    dtype=output.dtype.name,
                    shape=[-1, *output.shape[1:].as_list()],
                )
                for index, output in enumerate(batched)
            ]
        self._graph = graph.as_graph_def()

    def lowered(self, weights: Sequence[str], profile: Profile) -> Predict:
        """The forward pass in builtins.

        Args:
            weights: Names in the checkpoint of the model's variables, trainable ones first.
        """
        names = [spec.name for spec in self._model.examples]
        forward = ForwardPass(
            graph=self._graph,
            variables=self._variables,
            variable_specs=self._variable_specs,
            examples=self._placeholders,
            example_specs=[
                tf.TensorSpec([None, *spec.shape[1:]], tf.as_dtype(spec.dtype))
                for spec in self._model.examples
                if spec.name in self._features
            ],
            outputs=self._outputs,
            profile=profile,
        )

        def predict(checkpoint: Mapping[str, Any], batch: Sequence[Any]) -> Sequence[Any]:
            if not self._outputs:
                return []
            examples = [batch[names.index(name)] for name in self._features]
            return forward([checkpoint[name] for name in weights], examples)

        return predict


def _input(input_spec: Any) -> tuple[str, Any]:
    """The name and the structure of the model's input in an input_spec; () if it is not told."""
    if isinstance(input_spec, Mapping):
        return "x", input_spec.get("x", ())
    if isinstance(input_spec, tuple | list) and len(input_spec) == 2:
        return str(getattr(input_spec, "_fields", ("0",))[0]), input_spec[0]
    return "", ()
