"""Proof that the server may add updates instead of running TFF's accumulate."""

import numpy as np
import tensorflow as tf

from device_plan.compiler.block import Block, Leaf
from device_plan.compiler.process import Form
from device_plan.task_file import InvalidTask

_ADDITIONS = frozenset({"Add", "AddV2"})


class NotAdditive(InvalidTask):
    """The aggregation is not a plain sum, so aggregators cannot do it."""


def prove(form: Form) -> int:
    """The number of tensors that are summed.

    `accumulate` must add the update to the accumulator and `merge` must add two
    accumulators, tensor by tensor, starting from zeros. Then the sum in any
    order and grouping is what TFF computes, up to rounding.

    Raises:
        NotAdditive: naming the tensor and the operation.
    """
    summands = len(form.zero.outputs)
    for block, name in ((form.accumulate, "accumulate"), (form.merge, "merge")):
        _prove_sum(form.what, block, name, summands)
    for leaf, value in zip(form.zero.outputs, _constants(form.zero), strict=True):
        if np.any(value):
            raise NotAdditive(
                f"the aggregation of the {form.what} process starts {leaf.name!r} from a value "
                f"other than zero; {_ADVICE}"
            )
    return summands


_ADVICE = "devices' updates can only be summed: use an aggregator made of sums and means"


def _prove_sum(what: str, block: Block, name: str, summands: int) -> None:
    inputs, outputs = block.inputs, block.outputs
    if len(outputs) != summands or len(inputs) != 2 * summands:
        raise NotAdditive(
            f"the aggregation of the {what} process ({name}) takes {len(inputs)} tensors to "
            f"{len(outputs)}; {_ADVICE}"
        )
    for index, leaf in enumerate(outputs):
        node, op = block.source(leaf.tensor)
        expected = {_node(inputs[index]), _node(inputs[summands + index])}
        operands = {block.source(i)[0] for i in block.node(node).input if not i.startswith("^")}
        if op not in _ADDITIONS or operands != expected:
            raise NotAdditive(
                f"the aggregation of the {what} process combines {leaf.name!r} by {op}, "
                f"not by adding the update to the sum ({name}); {_ADVICE}"
            )


def _node(leaf: Leaf) -> str:
    return leaf.tensor.split(":")[0]


def _constants(block: Block) -> list[np.ndarray]:
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(block.graph, name="")
        with tf.compat.v1.Session(graph=graph) as session:
            if block.initialize:
                session.run(graph.get_operation_by_name(block.initialize))
            return list(session.run([leaf.tensor for leaf in block.outputs]))
