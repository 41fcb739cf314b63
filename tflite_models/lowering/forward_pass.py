"""A model's outputs for a batch of examples, without a data set or a loop."""

from collections.abc import Sequence

import tensorflow as tf
from tensorflow.core.framework import graph_pb2

from tflite_models.lowering.graph_walk import GraphWalk
from tflite_models.lowering.lowered import Lowered, Profile, lower
from tflite_models.lowering.node import node_name
from tflite_models.lowering.source import generic_size
from tflite_models.lowering.values import Value, VariableHandle


class ForwardPass:
    """A graph with variables, as a function of their values and of examples.

    Args:
        graph: The computation.
        variables: The shared names of its resource variables.
        variable_specs: Of their values.
        examples: Placeholders of the examples.
        example_specs: Of the examples; the first dimension is None.
        outputs: Tensors that the computation gives.
        profile: Which substitutions to make (see `lowered`).
    """

    def __init__(
        self,
        *,
        graph: graph_pb2.GraphDef,
        variables: Sequence[str],
        variable_specs: Sequence[tf.TensorSpec],
        examples: Sequence[str],
        example_specs: Sequence[tf.TensorSpec],
        outputs: Sequence[str],
        profile: Profile = "modern",
    ) -> None:
        self._graph = graph
        self._variables = [VariableHandle(name) for name in variables]
        self._examples = [node_name(reference) for reference in examples]
        self._specs = [*variable_specs, *example_specs]
        self._outputs = list(outputs)
        self._profile: Profile = profile
        self._lowered: Lowered | None = None

    def __call__(self, weights: Sequence[Value], examples: Sequence[Value]) -> list[Value]:
        """The outputs; call it while a tf.function is traced. Raises LoweringError."""
        if self._lowered is None:
            generic = generic_size(self._graph)
            self._lowered = lower(self._body, self._specs, generic=generic, profile=self._profile)
        return self._lowered(*weights, *examples)

    def _body(self, *values: Value) -> list[Value]:
        size = len(self._variables)
        walk = GraphWalk(self._graph)
        walk.environment.assign_all(self._variables, values[:size])
        feeds = dict(zip(self._examples, values[size:], strict=True))
        return walk.run(feeds, self._outputs)
