"""Names of tensors: the author's where there is one, TFF's struct path otherwise."""

from collections.abc import Iterable, Sequence

from device_plan.compiler.block import Block, Leaf
from device_plan.compiler.model import ModelDescription
from device_plan.compiler.process import Form
from device_plan.plan_pb2 import TensorSpec
from device_plan.task_file import InvalidTask

#: Where tff.learning keeps the model in its server state.
_WEIGHTS = "global_model_weights"

#: The paths that tff.learning puts before the metrics of an author.
_METRIC_SCOPES = (
    "client_work/train/",
    "client_work/eval/current_round_metrics/",
    "client_work/",
    "finalizer/",
    "aggregator/",
)
#: fed_eval also sums over all rounds, which here are independent.
_ALL_ROUNDS = "client_work/eval/total_rounds_metrics/"

_QUOTIENTS = frozenset({"RealDiv", "Div", "DivNoNan", "Xdivy"})


def state_names(form: Form) -> list[str]:
    """Of the server state: TFF's struct path, e.g. "global_model_weights/trainable/0"."""
    return [leaf.name for leaf in form.prepare.inputs]


def model_weights(model: ModelDescription, state: Iterable[str]) -> dict[str, str]:
    """For each weight the author knows by name, the state tensor that holds it."""
    known = set(state)
    places = {
        name: f"{_WEIGHTS}/{group}/{index}"
        for group, names in (
            ("trainable", model.trainable),
            ("non_trainable", model.non_trainable),
        )
        for index, name in enumerate(names)
    }
    return {name: place for name, place in places.items() if place in known}


def checkpoint_names(form: Form, model: ModelDescription) -> list[str]:
    """Of prepare's results, which devices download.

    A model weight has the author's name ("hidden/kernel"), another part of the
    server state its own path ("client_work/learning_rate"), and what prepare
    computes its place in the result ("prepared/1/clip").
    """
    authors = {place: name for name, place in model_weights(model, state_names(form)).items()}
    placeholders = {leaf.tensor.split(":")[0]: leaf.name for leaf in form.prepare.inputs}
    names = []
    for leaf in form.prepare.outputs:
        node, _ = form.prepare.source(leaf.tensor)
        path = placeholders.get(node, f"prepared/{leaf.name}")
        names.append(authors.get(path, path))
    return _distinct(names, form.prepare.outputs, "prepared")


def update_names(form: Form, model: ModelDescription) -> list[str]:
    """Of the summands: "delta/hidden/kernel", "metrics/loss/0", "weight" and the like.

    In order: tensors under a named struct are metrics, a struct with the shapes
    of the model's trainable weights is the model's change (or its gradient), and
    the scalar by which the server divides that is the weight.
    """
    leaves = form.zero.outputs
    names = [f"aggregate/{leaf.name}" for leaf in leaves]
    for index, leaf in enumerate(leaves):
        named = [i for i, part in enumerate(leaf.path) if not part.isdigit()]
        if named:
            names[index] = "metrics/" + "/".join(leaf.path[named[0] :])
    deltas = _deltas(leaves, model)
    for index, name in zip(deltas, model.trainable, strict=False):
        names[index] = f"delta/{name}"
    weight = _divisor(form.update, leaves, deltas)
    if weight is not None:
        names[weight] = "weight"
    return _distinct(names, leaves, "aggregate")


def metric_names(form: Form) -> dict[str, str]:
    """For each of update's results beyond the state, as `Leaf.name`: the author's name for it."""
    paths = [leaf.name for leaf in form.update.outputs if leaf.path[0] != "state"]
    paths = [path for path in paths if _ALL_ROUNDS not in path]
    short = {path: _without_scope(path.removeprefix("metrics/")) for path in paths}
    repeated = {name for name in short.values() if list(short.values()).count(name) > 1}
    return {
        path: path.removeprefix("metrics/") if name in repeated else name
        for path, name in short.items()
    }


def check_distinct(checkpoint: Sequence[str], examples: Sequence[TensorSpec]) -> None:
    """Raises InvalidTask if a feature has the name of a checkpoint tensor or of the state."""
    for spec in examples:
        if spec.name in checkpoint or spec.name.startswith("state/"):
            raise InvalidTask(
                f"feature {spec.name!r} of input_spec has the name of a tensor of the model; "
                "rename the feature"
            )


def _deltas(leaves: Sequence[Leaf], model: ModelDescription) -> list[int]:
    """Positions of the first unnamed struct that is shaped like the trainable weights."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for index, leaf in enumerate(leaves):
        if all(part.isdigit() for part in leaf.path):
            groups.setdefault(leaf.path[:-1], []).append(index)
    for indices in groups.values():
        if tuple(leaves[index].shape for index in indices) == model.trainable_shapes:
            return indices
    return []


def _divisor(update: Block, leaves: Sequence[Leaf], deltas: Sequence[int]) -> int | None:
    """The scalar summand by which `update` divides the model's change, if there is one."""
    sums = update.inputs[-len(leaves) :]
    positions = {leaf.tensor.split(":")[0]: index for index, leaf in enumerate(sums)}

    def position(tensor: str) -> int | None:
        node, op = update.source(tensor)
        while op == "Cast":
            node, op = update.source(update.node(node).input[0])
        return positions.get(node)

    divisors = set()
    for node in update.graph.node:
        if node.op in _QUOTIENTS and position(node.input[0]) in deltas:
            divisors.add(position(node.input[1]))
    if len(divisors) != 1:
        return None
    (divisor,) = divisors
    return divisor if divisor is not None and leaves[divisor].shape == () else None


def _without_scope(path: str) -> str:
    for scope in _METRIC_SCOPES:
        if path.startswith(scope):
            return path.removeprefix(scope)
    return path


def _distinct(names: list[str], leaves: Sequence[Leaf], prefix: str) -> list[str]:
    return [
        f"{prefix}/{leaf.name}" if names.count(name) > 1 else name
        for name, leaf in zip(names, leaves, strict=True)
    ]
