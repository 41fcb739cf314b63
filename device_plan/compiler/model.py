"""What the compiler needs to know about the author's model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from device_plan.checkpoint import DTYPES
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
    """

    trainable: tuple[str, ...]
    non_trainable: tuple[str, ...]
    trainable_shapes: tuple[tuple[int, ...], ...]
    examples: tuple[TensorSpec, ...]
    label: str
    classes: int


def describe(task: FederatedTask) -> ModelDescription:
    """Raises InvalidTask if the model cannot be made or its input_spec is not usable."""
    reset_seeds(task.seed)
    with tf.Graph().as_default():
        try:
            model = task.model_fn()
            input_spec = model.input_spec
        except Exception as error:
            raise InvalidTask(
                f"model_fn fails: {type(error).__name__}: {str(error).strip()[:400]}"
            ) from error
        examples = _examples(input_spec)
        label, classes = _labels(model, input_spec)
        return ModelDescription(
            trainable=_names(model.trainable_variables, "trainable"),
            non_trainable=_names(model.non_trainable_variables, "non_trainable"),
            trainable_shapes=tuple(tuple(v.shape.as_list()) for v in model.trainable_variables),
            examples=examples,
            label=label,
            classes=classes,
        )


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


def _labels(model: Any, input_spec: Any) -> tuple[str, int]:
    if isinstance(input_spec, Mapping):
        x, label = input_spec.get("x"), "y" if "y" in input_spec else ""
    elif isinstance(input_spec, tuple | list) and len(input_spec) == 2:
        x, label = input_spec[0], getattr(input_spec, "_fields", ("0", "1"))[1]
    else:
        return "", 0
    try:
        features = tf.nest.map_structure(lambda s: tf.compat.v1.placeholder(s.dtype, s.shape), x)
        output = model.predict_on_batch(features, training=False)
        return label, int(output.shape[-1] or 0) if output.shape.rank else 0
    except Exception as error:
        raise InvalidTask(
            "the model does not accept the x of its input_spec: "
            f"{str(error).strip().splitlines()[-1][:400] if str(error).strip() else error!r}"
        ) from error
