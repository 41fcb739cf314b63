"""The device graph: client work and evaluation as one TFLite file with four signatures."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from device_plan.compiler.block import Block
from device_plan.compiler.conversion import convert
from device_plan.compiler.flatbuffer import EditableGraph, Renaming, TrainingGraph
from device_plan.compiler.prediction import Prediction
from device_plan.compiler.shared_memory import keep_apart
from device_plan.plan_pb2 import Signature, TensorSpec
from device_plan.task_file import InvalidTask
from tflite_models.lowering import ClientWork, LoweringError, Profile
from tflite_models.lowering.rules.legacy import LEGACY

#: In the order in which TFLite numbers its subgraphs, which is alphabetical.
#: The first must hold operations, or XNNPACK is never applied: `batch` always does.
SIGNATURES = ("batch", "begin", "eval", "finish")


@dataclass(frozen=True)
class DeviceGraph:
    """A converted graph.

    Attributes:
        data: The TFLite file.
        signatures: As the file has them, with the plan's names.
        seeded: Whether `begin` takes SEED.
        has_legacy_form: Whether the legacy profile would substitute an operation.
    """

    data: bytes
    signatures: Mapping[str, Signature]
    seeded: bool
    has_legacy_form: bool


#: The input of `begin` that random numbers start from.
SEED = "session/seed"


def client_work(
    block: Block, examples: Sequence[TensorSpec], *, max_batch: int, profile: Profile
) -> ClientWork:
    """The lowering of a `work` block of TFF's form."""
    (dataset,) = [leaf for leaf in block.inputs if leaf.is_dataset]
    return ClientWork(
        graph=block.graph,
        initialize=block.initialize,
        dataset=dataset.tensor,
        parameters=[leaf.tensor for leaf in block.inputs if not leaf.is_dataset],
        # (updates, secure_sum_bitwidth, secure_sum, secure_modular_sum): the first is summed.
        results=[leaf.tensor for leaf in block.outputs if leaf.path[0] == "0"],
        batch=[
            tf.TensorSpec([None, *spec.shape[1:]], tf.as_dtype(spec.dtype)) for spec in examples
        ],
        max_batch=max_batch,
        profile=profile,
    )


@dataclass(frozen=True, kw_only=True)
class Names:
    """What the tensors of the graph are called, in the order of the computations' own.

    Attributes:
        examples: The features, in tf.data's order.
        checkpoint: The training work's parameters.
        evaluated: The evaluation work's parameters.
        update: The training work's results.
        metrics: The evaluation work's results.
        weights: The model's variables, trainable ones first.
        predictions: The model's outputs for an example.
    """

    examples: Sequence[TensorSpec]
    checkpoint: Sequence[str]
    evaluated: Sequence[str]
    update: Sequence[str]
    metrics: Sequence[str]
    weights: Sequence[str]
    predictions: Sequence[str]


def build_device_graph(
    training: Block,
    evaluation: Block,
    prediction: Prediction,
    names: Names,
    *,
    max_batch: int,
    profile: Profile,
) -> DeviceGraph:
    """Lowers and converts.

    Args:
        training, evaluation: The `work` blocks.
        prediction: The model's forward pass.
        max_batch: Examples in a batch, at most.
        profile: For current or for old runtimes.

    Raises:
        InvalidTask: something in the model has no form in builtins; it is named.
    """
    work, measuring = (
        client_work(block, names.examples, max_batch=max_batch, profile=profile)
        for block in (training, evaluation)
    )
    with lowering_errors():
        module = _Module(work, measuring, prediction.lowered(names.weights, profile), names)
        concrete = {name: module.concrete(name) for name in SIGNATURES}
    data = convert(concrete, {**measuring.origins, **work.origins})
    features = [spec.name for spec in names.examples]
    state = [f"state/{index}" for index in range(len(work.state_specs))]
    seed = [SEED] if work.seeded else []
    graph = EditableGraph(data)
    graph.drop_unread_inputs()
    keep_apart(graph.model)
    graph.rename(
        {
            "begin": _renaming(names.checkpoint, seed, [], state),
            "batch": _renaming(names.checkpoint, state, features, state),
            "finish": _renaming(names.checkpoint, state, [], names.update),
            "eval": _renaming(names.evaluated, [], features, [*names.metrics, *names.predictions]),
        }
    )
    data = graph.to_bytes()
    signatures = TrainingGraph(data).signatures()
    return DeviceGraph(data, signatures, work.seeded, module.has_legacy_form())


class _Module(tf.Module):  # type: ignore[misc]
    """The four functions, with argument names that TensorFlow accepts."""

    def __init__(
        self,
        training: ClientWork,
        evaluation: ClientWork,
        prediction: Callable[..., Sequence[Any]],
        names: Names,
    ) -> None:
        super().__init__()
        parameters = _named("checkpoint", training.parameter_specs)
        seed = _named("state", [tf.TensorSpec([3], tf.int32)] if training.seeded else [])
        state = _named("state", training.state_specs)
        batch = _named("example", training.batch_specs)
        measured = _named("checkpoint", evaluation.parameter_specs)
        p, s, q = len(parameters), len(state), len(measured)
        self.begin = _function(lambda *a: training.begin(a[:p], *a[p:]), [*parameters, *seed])
        self.batch = _function(
            lambda *a: training.batch(a[:p], a[p : p + s], a[p + s :]),
            [*parameters, *state, *batch],
        )
        self.finish = _function(lambda *a: training.finish(a[:p], a[p:]), [*parameters, *state])

        def evaluate(*a: Any) -> list[Any]:
            weights = dict(zip(names.evaluated, a[:q], strict=True))
            predicted = prediction(weights, a[q:])
            return [*evaluation.single(a[:q], a[q:]), *predicted]

        self.eval = _function(evaluate, [*measured, *batch])

    def concrete(self, name: str) -> Any:
        return getattr(self, name).get_concrete_function()

    def has_legacy_form(self) -> bool:
        used = {
            node.op for name in SIGNATURES for node in self.concrete(name).graph.as_graph_def().node
        }
        return not used.isdisjoint(LEGACY)


def _named(prefix: str, specs: Sequence[tf.TensorSpec]) -> list[tf.TensorSpec]:
    return [
        tf.TensorSpec(spec.shape, spec.dtype, name=f"{prefix}_{index}")
        for index, spec in enumerate(specs)
    ]


def _function(body: Any, specs: Sequence[tf.TensorSpec]) -> Any:
    def named(*arguments: Any) -> dict[str, Any]:
        # An output that is an input needs an operation of its own.
        return {f"output_{i}": tf.identity(value) for i, value in enumerate(body(*arguments))}

    return tf.function(named, input_signature=specs, autograph=False)


def _renaming(
    checkpoint: Sequence[str], state: Sequence[str], examples: Sequence[str], outputs: Sequence[str]
) -> Renaming:
    groups = (("checkpoint", checkpoint), ("state", state), ("example", examples))
    return Renaming(
        inputs={f"{prefix}_{i}": name for prefix, names in groups for i, name in enumerate(names)},
        outputs={f"output_{i}": name for i, name in enumerate(outputs)},
    )


@contextlib.contextmanager
def lowering_errors() -> Iterator[None]:
    try:
        yield
    except LoweringError as error:
        raise InvalidTask(f"the model cannot be lowered: {error}") from error
