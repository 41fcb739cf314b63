"""Examples for the release checks: the author's, or random ones that the model accepts."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from device_plan.compiler.model import ModelDescription, flat_features
from device_plan.plan_pb2 import TensorSpec
from device_plan.task import FederatedTask, SampleFunction
from device_plan.task_file import InvalidTask

Examples = dict[str, np.ndarray]


class ExampleSource:
    """Gives batches of examples by seed."""

    def __init__(self, task: FederatedTask, model: ModelDescription) -> None:
        self._model = model
        self._sample: SampleFunction | None = task.sample_fn
        with tf.Graph().as_default():
            self._structure = task.model_fn().input_spec

    def draw(self, seed: int, count: int) -> Examples:
        """`count` examples by feature name. Raises InvalidTask if the author's do not fit."""
        rng = np.random.default_rng(seed)
        if self._sample is None:
            return {spec.name: self._random(rng, spec, count) for spec in self._model.examples}
        try:
            drawn = self._sample(rng, count)
        except Exception as error:
            raise InvalidTask(f"sample_fn fails: {type(error).__name__}: {error}") from error
        return self.fitting(drawn, "sample_fn", count)

    def fitting(self, given: Any, source: str, count: int | None = None) -> Examples:
        """The arrays that the model takes, out of a structure like its input_spec.

        Args:
            given: Arrays, nested as the input_spec or by the names of the plan's features.
            source: Where they come from, for errors.
            count: Examples that there must be; None: as many as the first feature has.

        Raises:
            InvalidTask: a feature is missing, has another dtype or shape, or a label is
                out of range.
        """
        arrays = dict(flat_features(given))
        fitting = {}
        for spec in self._model.examples:
            value = arrays.get(spec.name)
            if count is None and isinstance(value, np.ndarray) and value.ndim:
                count = len(value)
            shape = ["n" if count is None else count, *spec.shape[1:]]
            if (
                not isinstance(value, np.ndarray)
                or list(value.shape) != shape
                or value.dtype.name != spec.dtype
            ):
                raise InvalidTask(
                    f"{source} must give feature {spec.name!r} as {spec.dtype} "
                    f"[{', '.join(map(str, shape))}], {_found(value, arrays)}"
                )
            if spec.name == self._model.label and self._model.class_labels:
                self._check_labels(value, source)
            fitting[spec.name] = value
        return fitting

    def _check_labels(self, labels: np.ndarray, source: str) -> None:
        classes = self._model.classes
        wrong = labels[(labels < 0) | (labels >= classes)]
        if wrong.size:
            raise InvalidTask(
                f"{source} gives the label {wrong.flat[0]} in feature {self._model.label!r}; "
                f"the model tells {classes} classes apart, so labels are from 0 to {classes - 1}: "
                "correct the labels, or give the model's last layer more units"
            )

    def _random(self, rng: np.random.Generator, spec: TensorSpec, count: int) -> np.ndarray:
        shape = (count, *spec.shape[1:])
        dtype = np.dtype(spec.dtype)
        is_label = spec.name == self._model.label
        classes = self._model.classes
        if dtype.kind in "iu":
            top = classes if is_label and self._model.class_labels else 2
            return rng.integers(0, top, shape).astype(dtype)
        if dtype.kind == "b" or (is_label and classes <= 1):
            return rng.integers(0, 2, shape).astype(dtype)
        if is_label and len(shape) > 1 and shape[-1] == classes:
            # A distribution over the classes, for losses that take one.
            return rng.dirichlet(np.ones(classes), shape[:-1]).astype(dtype)
        return rng.random(shape).astype(dtype)

    def dataset(self, examples: Examples, batch_size: int, epochs: int) -> tf.data.Dataset:
        """As TFF's client work takes it: each epoch batched on its own, then one after another."""
        names = iter([spec.name for spec in self._model.examples])
        structured = _fill(self._structure, names, examples)
        batches = tf.data.Dataset.from_tensor_slices(structured).batch(batch_size)
        return batches.repeat(epochs)


def _found(value: Any, arrays: dict[str, Any]) -> str:
    if value is None:
        return f"but gives {', '.join(map(repr, arrays)) or 'nothing'}"
    if not isinstance(value, np.ndarray):
        return f"not a {type(value).__name__}: use numpy arrays"
    return f"not {value.dtype} [{', '.join(map(str, value.shape))}]"


def batches(examples: Examples, batch_size: int) -> Iterator[Examples]:
    """Consecutive examples, the last batch smaller."""
    rows = len(next(iter(examples.values())))
    for start in range(0, rows, batch_size):
        yield {name: value[start : start + batch_size] for name, value in examples.items()}


def _fill(structure: Any, names: Iterator[str], examples: Examples) -> Any:
    """The structure of an input_spec with arrays in it; names come in tf.data's order."""
    if isinstance(structure, dict):
        filled = {key: _fill(structure[key], names, examples) for key in sorted(structure)}
        return type(structure)((key, filled[key]) for key in structure)
    if isinstance(structure, tuple | list):
        parts = [_fill(part, names, examples) for part in structure]
        return type(structure)(*parts) if hasattr(structure, "_fields") else tuple(parts)
    return examples[next(names)]
