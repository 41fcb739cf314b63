"""A lowered function: a graph of operations that the TFLite converter maps to builtins.

A function is traced with the generic batch size (see `batch`), walked once more
with the substitutions for old runtimes if it is to run there, and generalized
to a batch of any size.
"""

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import tensorflow as tf
from tensorflow.core.framework import graph_pb2
from tensorflow.python.framework.func_graph import FuncGraph

from tflite_models.lowering import batch
from tflite_models.lowering.generalize import generalize
from tflite_models.lowering.graph_walk import GraphWalk
from tflite_models.lowering.rules.legacy import LEGACY
from tflite_models.lowering.values import Value

#: "modern" for current runtimes, "legacy" for those that lack newer operations.
Profile: TypeAlias = Literal["modern", "legacy"]


class Lowered:
    """A graph that can be called while another one is traced.

    Args:
        graph: For a batch of any size.
        inputs: Names of its placeholders.
        outputs: Its results, as tensor names.
    """

    def __init__(
        self, graph: graph_pb2.GraphDef, inputs: Sequence[str], outputs: Sequence[str]
    ) -> None:
        self.graph = graph
        self._inputs = list(inputs)
        self._outputs = list(outputs)

    def __call__(self, *values: Value) -> list[tf.Tensor]:
        feeds = {name: tf.identity(value) for name, value in zip(self._inputs, values, strict=True)}
        results = tf.graph_util.import_graph_def(
            self.graph, input_map=feeds, return_elements=self._outputs, name=""
        )
        return list(results)


def lower(
    body: Callable[..., Sequence[Value]],
    specs: Sequence[tf.TensorSpec],
    *,
    generic: int,
    profile: Profile,
) -> Lowered:
    """Traces `body` on tensors of the given specs.

    Args:
        body: Builds the function, when called, from operations with builtins and rules.
        specs: Of its inputs; a first dimension of None is the batch.
        generic: The number that stands for the batch size.
        profile: Which substitutions to make.

    Raises:
        LoweringError: something in the function has no form in builtins.
    """
    inputs = [f"input_{index}" for index in range(len(specs))]
    with batch.generic(generic):
        graph, outputs = _trace(body, specs, inputs, generic)
        if profile == "legacy":
            walk, results = GraphWalk(graph, rules=LEGACY), outputs
            graph, outputs = _trace(
                lambda *values: walk.run(dict(zip(inputs, values, strict=True)), results),
                specs,
                inputs,
                generic,
            )
    batched = [i for i, spec in enumerate(specs) if spec.shape.rank and spec.shape[0] is None]
    example = inputs[batched[0]] if batched else ""
    return Lowered(generalize(graph, size=generic, example=example), inputs, outputs)


def _trace(
    body: Callable[..., Sequence[Value]],
    specs: Sequence[tf.TensorSpec],
    inputs: Sequence[str],
    generic: int,
) -> tuple[graph_pb2.GraphDef, list[str]]:
    # A function's graph, so that constants can be evaluated outside it.
    graph = FuncGraph("lowered")
    with graph.as_default():
        values = [
            tf.compat.v1.placeholder(spec.dtype, _shape(spec, generic), name=name)
            for spec, name in zip(specs, inputs, strict=True)
        ]
        outputs = [tf.identity(value) for value in body(*values)]
    return graph.as_graph_def(), [output.name for output in outputs]


def _shape(spec: tf.TensorSpec, generic: int) -> tf.TensorShape:
    return tf.TensorShape([generic if side is None else side for side in spec.shape])
