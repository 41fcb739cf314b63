"""A case's client work twice: as TFF built it, on TensorFlow, and lowered, on tflite-runtime."""

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow_federated as tff

from device_plan.compiler import naming
from device_plan.compiler.block import Block
from device_plan.compiler.cases import session_seed
from device_plan.compiler.device_graph import Names, build_device_graph
from device_plan.compiler.examples import ExampleSource, batches
from device_plan.compiler.model import describe
from device_plan.compiler.prediction import Prediction
from device_plan.compiler.process import evaluation_form, named_anew, reset_seeds, training_form
from device_plan.compiler.replay import Replay
from device_plan.compiler.runtime import DeviceRuntime
from device_plan.matrix.case import SEED
from device_plan.matrix.runner import relative_difference
from device_plan.plan_pb2 import PlanManifest
from tests.tflite_models.case import LayerCase
from tflite_models.lowering import Profile

Arrays = dict[str, np.ndarray]


class LoweredCase:
    """A case of federated averaging, ready to be compared.

    TFF's runtime is not needed: TensorFlow executes the graph of the client's work
    that TFF made, and the checkpoint is the model's own initial weights, moved at random.

    Raises:
        InvalidTask: the case's model cannot be lowered.
    """

    #: Kinds of session: rows in terms of the batch size, and epochs.
    SESSIONS = ("one batch", "partial batch, two epochs", "evaluation")

    def __init__(self, case: LayerCase, profile: Profile = "modern") -> None:
        task = case.task()
        self._size = task.batch_size
        self._model = describe(task)
        training, evaluation = training_form(task), evaluation_form(task)
        self._training, self._evaluation = training.work, evaluation.work
        self._replays = {"training": Replay(training.work), "evaluation": Replay(evaluation.work)}
        checkpoint = naming.checkpoint_names(training, self._model)
        self._evaluated = naming.checkpoint_names(evaluation, self._model)
        self._update = naming.update_names(training, self._model)
        self._metrics = naming.update_names(evaluation, self._model)
        prediction = Prediction(task, self._model)
        names = Names(
            examples=self._model.examples,
            checkpoint=checkpoint,
            evaluated=self._evaluated,
            update=self._update,
            metrics=self._metrics,
            weights=[*self._model.trainable, *self._model.non_trainable],
            predictions=[spec.name for spec in prediction.specs],
        )
        graph = build_device_graph(
            training.work,
            evaluation.work,
            prediction,
            names,
            max_batch=task.batch_size,
            profile=profile,
        )
        self.graph = graph.data
        self._seeded = graph.seeded
        self._checkpoint_names = checkpoint
        self._examples = ExampleSource(task, self._model)
        manifest = PlanManifest(
            metrics=[
                leaf.spec(name)
                for leaf, name in zip(evaluation.zero.outputs, self._metrics, strict=True)
            ],
            signatures=graph.signatures,
        )
        self._device = DeviceRuntime(manifest, graph.data)
        reset_seeds(task.seed)
        made = named_anew(task.model_fn)()
        variables = [*made.trainable_variables, *made.non_trainable_variables]
        own = [*self._model.trainable, *self._model.non_trainable]
        self._initial = {
            name: variable.numpy() for name, variable in zip(own, variables, strict=True)
        }
        self._movable = set(self._model.trainable)
        if not set(checkpoint) <= set(self._initial):
            # What an optimizer keeps in the server's state, as its learning rate.
            initialize = Block(
                tff.backends.mapreduce.get_state_initialization_computation(training.initialize)
            )
            state = Replay(initialize).run(None, {}, (1, 1, 1))
            named = dict(zip(naming.state_names(training), state, strict=True))
            self._initial |= {n: named[n] for n in checkpoint if n not in self._initial}

    def difference(self, session: str, draws: Sequence[int]) -> float:
        """The median over the draws of the relative difference of device and TFF."""
        return statistics.median(self._difference(session, draw) for draw in draws)

    def nudged(self, session: str, draws: Sequence[int]) -> float:
        """The median relative difference of TFF to itself from weights moved by one rounding."""
        found = []
        for draw in draws:
            weights = self._weights(draw)
            rng = np.random.default_rng([draw, 1])
            moved = {
                name: np.nextafter(
                    value, np.where(rng.random(value.shape) < 0.5, -np.inf, np.inf)
                ).astype(value.dtype)
                if value.dtype.kind == "f"
                else value
                for name, value in weights.items()
            }
            found.append(
                relative_difference(
                    self._reference(session, draw, moved), self._reference(session, draw, weights)
                )
            )
        return statistics.median(found)

    def _difference(self, session: str, draw: int) -> float:
        weights = self._weights(draw)
        rows = self._rows(session, draw)
        if session == "evaluation":
            ours = self._device.evaluate(weights, batches(rows, self._size))
        else:
            start = {**weights, SEED: session_seed(draw)} if self._seeded else weights
            epochs = self._epochs(session)
            ours = self._device.train(start, list(batches(rows, self._size)) * epochs)
        return relative_difference(ours, self._reference(session, draw, weights))

    def _reference(self, session: str, draw: int, weights: Arrays) -> Arrays:
        evaluating = session == "evaluation"
        block = self._evaluation if evaluating else self._training
        names = self._evaluated if evaluating else self._checkpoint_names
        dataset = self._examples.dataset(
            self._rows(session, draw), self._size, self._epochs(session)
        )
        tensors = [leaf.tensor for leaf in block.inputs if not leaf.is_dataset]
        values = {tensor: weights[name] for tensor, name in zip(tensors, names, strict=True)}
        replay = self._replays["evaluation" if evaluating else "training"]
        results = replay.run(dataset, values, session_seed(draw).tolist())
        summed = _summed(block)
        kept = [value for value, is_summed in zip(results, summed, strict=True) if is_summed]
        return dict(zip(self._metrics if evaluating else self._update, kept, strict=True))

    def _rows(self, session: str, draw: int) -> Any:
        whole = session == "one batch"
        return self._examples.draw(draw, self._size if whole else self._size + 1)

    @staticmethod
    def _epochs(session: str) -> int:
        return 2 if session == "partial batch, two epochs" else 1

    def _weights(self, draw: int) -> Arrays:
        """The initial weights, trainable ones moved so that no bias is zero."""
        rng = np.random.default_rng([draw, 2])
        return {
            name: value + np.float32(0.1) * rng.standard_normal(value.shape, dtype=np.float32)
            if name in self._movable
            else value
            for name, value in self._initial.items()
        }


def _summed(block: Block) -> list[bool]:
    """Which of a client work's results are summed in the clear."""
    return [leaf.path[0] == "0" for leaf in block.outputs]
