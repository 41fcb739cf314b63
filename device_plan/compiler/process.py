"""The author's learning process, and TFF's form of it for devices and servers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
import tensorflow_federated as tff

from device_plan.compiler.block import Block
from device_plan.task import FederatedTask, ModelFunction
from device_plan.task_file import InvalidTask


@dataclass(frozen=True)
class Form:
    """tff.backends.mapreduce.MapReduceForm, piece by piece.

    Attributes:
        what: "training" or "evaluation".
        process: The tff.learning process itself.
        initialize: The tff.Computation that gives the first server state.
        work: The client's work: (examples, checkpoint) -> (summands, ...).
    """

    what: str
    process: Any
    initialize: Any
    prepare: Block
    work: Block
    zero: Block
    accumulate: Block
    merge: Block
    report: Block
    update: Block


def training_form(task: FederatedTask) -> Form:
    """The form of the author's own process. Raises InvalidTask."""
    return _form("training", task, lambda: task.process_fn(named_anew(task.model_fn)))


def evaluation_form(task: FederatedTask) -> Form:
    """The form of TFF's evaluation of the same model. Raises InvalidTask."""
    return _form(
        "evaluation",
        task,
        lambda: tff.learning.algorithms.build_fed_eval(named_anew(task.model_fn)),
    )


def reset_seeds(seed: int) -> None:
    """Makes Keras' next initial weights and names depend on the seed alone."""
    tf.keras.backend.clear_session()
    tf.keras.utils.set_random_seed(seed)


def named_anew(model_fn: ModelFunction) -> ModelFunction:
    """The same models, whose layers have the same names however often they are made."""

    def make() -> Any:
        # Without it the second model's `dense` would be `dense_1`.
        tf.keras.backend.reset_uids()
        return model_fn()

    return make


def _form(what: str, task: FederatedTask, build: Callable[[], Any]) -> Form:
    reset_seeds(task.seed)
    try:
        process = build()
        compute = process.next
    except Exception as error:
        raise InvalidTask(f"{_cause(what)}: {first_line(error)}") from error
    try:
        form = tff.backends.mapreduce.get_map_reduce_form_for_computation(compute)
    except Exception as error:
        raise InvalidTask(
            f"TFF cannot divide the {what} process between server and devices: {first_line(error)}"
        ) from error
    if form.securely_aggregates_tensors:
        raise InvalidTask(
            f"the {what} process sums {_secure(form)} securely; secure aggregation is not "
            "supported yet: use an aggregator that sums in the clear, such as the default"
        )
    return Form(
        what=what,
        process=process,
        initialize=process.initialize,
        **{
            name: Block(getattr(form, name))
            for name in ("prepare", "work", "zero", "accumulate", "merge", "report", "update")
        },
    )


def _cause(what: str) -> str:
    if what == "training":
        return "model_fn and process_fn give no learning process"
    return "TFF cannot evaluate the model of model_fn"


def _secure(form: Any) -> str:
    # work gives (what is summed in the clear, and three structs of what is summed securely).
    _, *secure = form.work.type_signature.result
    count = sum(len(tff.structure.flatten(part)) for part in secure)
    return f"{count} tensor{'s' if count != 1 else ''}"


def first_line(error: Exception) -> str:
    """The part of an error that speaks to the author, without a traceback in it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "Error:" in line] or lines
    return f"{type(error).__name__}: {telling[-1] if telling else 'no message'}"[:600]
