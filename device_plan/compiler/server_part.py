"""The server's side of a computation, as graphs that plain TensorFlow runs."""

from collections.abc import Sequence

from device_plan.compiler import naming
from device_plan.compiler.block import Block, Leaf
from device_plan.compiler.model import ModelDescription
from device_plan.compiler.process import Form
from device_plan.plan_pb2 import Binding, GraphFunction, ServerPart, TensorSpec
from device_plan.task_file import InvalidTask


def server_part(
    form: Form,
    model: ModelDescription,
    *,
    checkpoint: Sequence[TensorSpec],
    sums: Sequence[TensorSpec],
) -> ServerPart:
    """prepare, report and update of the form, with the plan's names."""
    state = [leaf.spec() for leaf in form.prepare.inputs]
    reported = [leaf.spec(f"reported/{leaf.name}") for leaf in form.report.outputs]
    names = naming.metric_names(form)
    after = [leaf for leaf in form.update.outputs if leaf.path[0] == "state"]
    measured = [leaf for leaf in form.update.outputs if leaf.name in names]
    metrics = [leaf.spec(names[leaf.name]) for leaf in measured]
    if len(after) != len(state) or len(form.update.inputs) != len(state) + len(reported):
        raise InvalidTask(
            f"the {form.what} process does not keep the structure of its server state "
            "from round to round"
        )
    return ServerPart(
        prepare=_function(
            form.prepare, form.prepare.inputs, state, form.prepare.outputs, checkpoint
        ),
        report=_function(form.report, form.report.inputs, sums, form.report.outputs, reported),
        update=_function(
            form.update,
            form.update.inputs,
            [*state, *reported],
            [*after, *measured],
            [*state, *metrics],
        ),
        state=state,
        sums=sums,
        metrics=metrics,
        model_weights=naming.model_weights(model, [spec.name for spec in state]),
    )


def _function(
    block: Block,
    inputs: Sequence[Leaf],
    input_specs: Sequence[TensorSpec],
    outputs: Sequence[Leaf],
    output_specs: Sequence[TensorSpec],
) -> GraphFunction:
    return GraphFunction(
        graph_def=block.graph.SerializeToString(deterministic=True),
        initialize_op=block.initialize,
        inputs=_bindings(inputs, input_specs),
        outputs=_bindings(outputs, output_specs),
    )


def _bindings(leaves: Sequence[Leaf], specs: Sequence[TensorSpec]) -> list[Binding]:
    return [
        Binding(spec=spec, tensor=leaf.tensor) for leaf, spec in zip(leaves, specs, strict=True)
    ]
