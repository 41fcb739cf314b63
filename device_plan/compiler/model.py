"""What the compiler needs to know about the author's model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from device_plan.checkpoint import DTYPES
from device_plan.compiler.metric_operations import metric_operations
from device_plan.compiler.process import reset_seeds
from device_plan.plan_pb2 import TensorSpec
from device_plan.task import FederatedTask
from device_plan.task_file import InvalidTask


@dataclass(frozen=True)
class ModelDescription:
    """The author's model from outside.

    Attributes:
        trainable, non_trainable: Names of the weights, in TFF's order.
        trainable_shapes: Of the trainable weights.
        examples: The tensors of one batch in tf.data's order; first dimension -1.
        label: Name of the feature that holds the label, "" if unknown.
        classes: Size of the model's last output dimension, 0 if unknown.
        class_labels: Whether a label is the number of a class, from 0 to classes - 1:
            whole, and one for each vector of the model's output.
        metrics: Names of the metrics that an evaluation gives.
        metric_operations: See the module of that name.
    """

    trainable: tuple[str, ...]
    non_trainable: tuple[str, ...]
    trainable_shapes: tuple[tuple[int, ...], ...]
    examples: tuple[TensorSpec, ...]
    label: str
    classes: int
    class_labels: bool
    metrics: tuple[str, ...]
    metric_operations: dict[str, str]


def describe(task: FederatedTask) -> ModelDescription:
    """Raises InvalidTask if the model cannot be made, or not used in a plan; it says why."""
    reset_seeds(task.seed)
    with tf.Graph().as_default():
        model = _made(task)
        # A weight that was made elsewhere would be one for all devices.
        mine = {variable.ref() for variable in model.trainable_variables}
        shared = mine & {variable.ref() for variable in _made(task).trainable_variables}
        if shared:
            raise InvalidTask(
                "model_fn returns the same model, or models with the same weights, when it is "
                f"called twice (e.g. {next(iter(shared)).deref().name.split(':')[0]!r}): "
                "make the layers inside model_fn"
            )
        input_spec = model.input_spec
        examples = _examples(input_spec)
        output = _output(model, input_spec)
        label = _label(input_spec)
        classes = int(output.shape[-1] or 0) if label and output.shape.rank else 0
        metrics = tuple(model.metric_finalizers())
        _check_predicates(task, metrics)
        return ModelDescription(
            trainable=_names(model.trainable_variables, "trainable"),
            non_trainable=_names(model.non_trainable_variables, "non_trainable"),
            trainable_shapes=tuple(tuple(v.shape.as_list()) for v in model.trainable_variables),
            examples=examples,
            label=label,
            classes=classes,
            class_labels=any(
                spec.name == label and _are_classes(spec, output.shape) for spec in examples
            ),
            metrics=metrics,
            metric_operations=metric_operations(model),
        )


def _made(task: FederatedTask) -> Any:
    try:
        model = task.model_fn()
    except Exception as error:
        raise InvalidTask(
            f"model_fn fails: {type(error).__name__}: {str(error).strip()[:400]}"
        ) from error
    if not isinstance(model, tff.learning.models.VariableModel):
        raise InvalidTask(
            "model_fn must return a tff.learning.models.VariableModel, not a "
            f"{type(model).__name__}: for a Keras model, that is what "
            "tff.learning.models.from_keras_model gives"
        )
    return model


def _names(variables: Any, group: str) -> tuple[str, ...]:
    names = tuple(variable.name.split(":")[0] for variable in variables)
    # Subclassed models may repeat a name; positions never do.
    if len(set(names)) != len(names):
        return tuple(f"{group}/{index}" for index in range(len(names)))
    return names


def _examples(input_spec: Any) -> tuple[TensorSpec, ...]:
    specs = []
    for name, spec in flat_features(input_spec):
        if not isinstance(spec, tf.TensorSpec):
            raise InvalidTask(f"feature {name!r} of input_spec is no tensor: use tf.TensorSpec")
        if spec.dtype.name not in DTYPES.values():
            raise InvalidTask(
                f"feature {name!r} of input_spec has dtype {spec.dtype.name}; devices can have "
                + ", ".join(DTYPES.values())
            )
        if spec.shape.rank is None or spec.shape.rank < 1 or spec.shape[0] is not None:
            raise InvalidTask(
                f"feature {name!r} of input_spec has the shape {spec.shape}; "
                "the first dimension is the batch and must be None"
            )
        if not spec.shape[1:].is_fully_defined():
            raise InvalidTask(
                f"feature {name!r} of input_spec has the shape {spec.shape}; "
                "only the first dimension may be None"
            )
        specs.append(
            TensorSpec(name=name, dtype=spec.dtype.name, shape=[-1, *spec.shape[1:].as_list()])
        )
    return tuple(specs)


def flat_features(structure: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """(name, leaf) in the order in which tf.data flattens a structure: keys sorted."""
    if isinstance(structure, Mapping):
        items = [(str(key), structure[key]) for key in sorted(structure)]
    elif isinstance(structure, tuple | list):
        fields = getattr(structure, "_fields", range(len(structure)))
        items = [(str(k), value) for k, value in zip(fields, structure, strict=True)]
    else:
        return [(prefix or "0", structure)]
    return [
        leaf
        for key, value in items
        for leaf in flat_features(value, f"{prefix}/{key}" if prefix else key)
    ]


def _label(input_spec: Any) -> str:
    """Name of the feature that holds the label, "" if it cannot be told."""
    if isinstance(input_spec, Mapping):
        return "y" if "y" in input_spec else ""
    if isinstance(input_spec, tuple | list) and len(input_spec) == 2:
        return str(getattr(input_spec, "_fields", ("0", "1"))[1])
    return ""


def _are_classes(label: TensorSpec, output: tf.TensorShape) -> bool:
    """Whether each label stands for one vector of the output; Keras allows it a last 1."""
    if np.dtype(label.dtype).kind not in "iu" or not (output.rank and (output[-1] or 0) > 1):
        return False
    rank = len(label.shape)
    return rank == output.rank - 1 or (rank == output.rank and label.shape[-1] == 1)


def _output(model: Any, input_spec: Any) -> Any:
    """The model's predictions for one batch, a symbolic tensor."""
    batch = tf.nest.map_structure(lambda s: tf.compat.v1.placeholder(s.dtype, s.shape), input_spec)
    try:
        computed = model.forward_pass(batch, training=False)
    except Exception as error:
        raise InvalidTask(_why_not_passed(model, batch, error)) from error
    outputs = tf.nest.flatten(computed.predictions)
    if len(outputs) != 1:
        shapes = " and ".join(str(output.shape) for output in outputs)
        raise InvalidTask(
            f"the model has {len(outputs)} outputs, of shapes {shapes}; a plan needs one: "
            "concatenate them into one tensor and let the loss take it apart, or make a "
            "model and a task of each"
        )
    loss = tf.convert_to_tensor(computed.loss)
    if loss.shape.rank != 0:
        raise InvalidTask(
            f"the loss of a batch has the shape {loss.shape}; it must be one number: "
            "return the mean over the examples (Keras: a loss without reduction='none', "
            "or tf.reduce_mean around your own)"
        )
    return outputs[0]


def _why_not_passed(model: Any, batch: Any, error: Exception) -> str:
    if isinstance(batch, Mapping):
        x = batch.get("x", batch)
    else:
        x = batch[0] if isinstance(batch, tuple | list) else batch
    try:
        model.predict_on_batch(x, training=False)
    except Exception as refusal:
        return f"the model does not accept the x of its input_spec: {_last_line(refusal)}"
    return (
        "the loss or a metric does not accept the model's output and the y of its "
        f"input_spec: {_last_line(error)}"
    )


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1].strip()[:400] if lines else repr(error)


def _check_predicates(task: FederatedTask, metrics: tuple[str, ...]) -> None:
    for predicate in task.predicates:
        if predicate.metric not in metrics:
            raise InvalidTask(
                f"the predicate {predicate.metric!r} {predicate.asks} names no metric of the "
                f"model; there are: {', '.join(metrics)}"
            )
        if task.proxy_fn is None:
            raise InvalidTask(
                f"the predicate {predicate.metric!r} {predicate.asks} needs proxy data to be "
                "simulated on: give the task a proxy_fn, or remove the predicate; the model's "
                f"metrics are: {', '.join(metrics)}"
            )
