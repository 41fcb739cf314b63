"""A task's client work twice: as TFF built it, on TensorFlow, and lowered, for device runtimes.

TFF's runtime is left out, which saves most of the time: TensorFlow executes the
graphs that TFF made, from the model's own initial weights moved at random.
"""

import statistics

import numpy as np
import tensorflow_federated as tff

from benchmarks.sessions import SESSIONS
from device_plan.compiler import naming
from device_plan.compiler.block import Block
from device_plan.compiler.cases import session_seed
from device_plan.compiler.device_graph import DeviceGraph, Names, build_device_graph
from device_plan.compiler.examples import ExampleSource, batches
from device_plan.compiler.model import describe
from device_plan.compiler.prediction import Prediction
from device_plan.compiler.process import evaluation_form, named_anew, reset_seeds, training_form
from device_plan.compiler.replay import Replay
from device_plan.compiler.runtime import execute
from device_plan.matrix.case import Case, Cases
from device_plan.matrix.runner import relative_difference
from device_plan.task import FederatedTask
from tflite_models.lowering import Profile

Arrays = dict[str, np.ndarray]


class LoweredTask:
    """A task's TFF computations, to be lowered and compared.

    Attributes:
        checkpoint: What all sessions start from: the tensors that devices download.

    Raises:
        InvalidTask: no plan can be made of the task.
    """

    def __init__(self, task: FederatedTask) -> None:
        self._size = task.batch_size
        self._model = describe(task)
        self._training, self._evaluation = training_form(task), evaluation_form(task)
        self._replays = {
            "training": Replay(self._training.work),
            "evaluation": Replay(self._evaluation.work),
        }
        self._prediction = Prediction(task, self._model)
        self._names = Names(
            examples=self._model.examples,
            checkpoint=naming.checkpoint_names(self._training, self._model),
            evaluated=naming.checkpoint_names(self._evaluation, self._model),
            update=naming.update_names(self._training, self._model),
            metrics=naming.update_names(self._evaluation, self._model),
            weights=[*self._model.trainable, *self._model.non_trainable],
            predictions=[spec.name for spec in self._prediction.specs],
        )
        self._examples = ExampleSource(task, self._model)
        reset_seeds(task.seed)
        made = named_anew(task.model_fn)()
        variables = [*made.trainable_variables, *made.non_trainable_variables]
        weights = {
            name: variable.numpy()
            for name, variable in zip(self._names.weights, variables, strict=True)
        }
        rng = np.random.default_rng(task.seed)
        for name in self._model.trainable:
            # So that no bias is zero.
            moved = 0.1 * rng.standard_normal(weights[name].shape, np.float32)
            weights[name] = weights[name] + np.float32(moved)
        self.checkpoint = self._prepare(weights)
        self._graphs: dict[Profile, DeviceGraph] = {}
        self._cases: dict[int, Cases] = {}

    def graph(self, profile: Profile = "modern") -> DeviceGraph:
        """The device graph. Raises InvalidTask if the model cannot be lowered."""
        if profile not in self._graphs:
            self._graphs[profile] = build_device_graph(
                self._training.work,
                self._evaluation.work,
                self._prediction,
                self._names,
                max_batch=self._size,
                profile=profile,
            )
        return self._graphs[profile]

    def cases(self, draws: int) -> Cases:
        """Sessions of all kinds, each on so many draws of examples, with TFF's results."""
        if draws not in self._cases:
            self._cases[draws] = Cases(
                self.checkpoint, [self._case(name, i) for name in SESSIONS for i in range(draws)]
            )
        return self._cases[draws]

    def differences(self, draws: int) -> dict[str, float]:
        """For each kind of session the median relative difference of tflite-runtime to TFF.

        Raises:
            RuntimeError: the graph does not run there.
        """
        found = execute({"": self.graph().data}, self.cases(draws))[""]
        if found.reason:
            raise RuntimeError(found.reason)
        return dict(found.differences)

    def nudged(self, name: str, draws: int) -> float:
        """How far TFF's own result moves when its checkpoint moves by one rounding.

        Returns:
            The median over the draws of the relative difference to TFF's result. What
            TFF and a device compute cannot be expected to be much closer than this,
            for both round after every operation.
        """
        rng = np.random.default_rng(1)
        moved = {key: _nudge(rng, value) for key, value in self.checkpoint.items()}
        return statistics.median(
            relative_difference(self._reference(name, case.draw, moved), case.reference)
            for case in self.cases(draws).by_name()[name]
        )

    def _case(self, name: str, draw: int) -> Case:
        computation, _, epochs = SESSIONS[name]
        seeded = computation == "training" and self.graph().seeded
        return Case(
            name=name,
            computation=computation,
            draw=draw,
            seed=session_seed(draw) if seeded else None,
            batches=list(batches(self._rows(name, draw), self._size)),
            epochs=epochs,
            reference=self._reference(name, draw, self.checkpoint),
        )

    def _rows(self, name: str, draw: int) -> Arrays:
        _, partial, _ = SESSIONS[name]
        return self._examples.draw(draw, self._size + max(1, self._size // 2) * partial)

    def _reference(self, name: str, draw: int, checkpoint: Arrays) -> Arrays:
        """TFF's result."""
        computation, _, epochs = SESSIONS[name]
        training = computation == "training"
        block = (self._training if training else self._evaluation).work
        downloaded = self._names.checkpoint if training else self._names.evaluated
        values = (checkpoint[key] for key in downloaded)
        feeds = {leaf.tensor: next(values) for leaf in block.inputs if not leaf.is_dataset}
        results = self._replays[computation].run(
            self._examples.dataset(self._rows(name, draw), self._size, epochs),
            feeds,
            session_seed(draw).tolist(),
        )
        # (updates, secure sums ...): the first is summed in the clear.
        summed = [
            value for leaf, value in zip(block.outputs, results, strict=True) if leaf.path[0] == "0"
        ]
        return dict(
            zip(self._names.update if training else self._names.metrics, summed, strict=True)
        )

    def _prepare(self, weights: Arrays) -> Arrays:
        """What devices download before the first round, with these weights in it."""
        form = self._training
        initialize = Block(
            tff.backends.mapreduce.get_state_initialization_computation(form.initialize)
        )
        state = dict(
            zip(naming.state_names(form), Replay(initialize).run(None, {}, (1, 1, 1)), strict=True)
        )
        for name, place in naming.model_weights(self._model, state).items():
            state[place] = weights[name]
        feeds = {leaf.tensor: state[leaf.name] for leaf in form.prepare.inputs}
        results = Replay(form.prepare).run(None, feeds, (1, 1, 1))
        return dict(zip(self._names.checkpoint, results, strict=True))


def _nudge(rng: np.random.Generator, value: np.ndarray) -> np.ndarray:
    if value.dtype.kind != "f":
        return value
    # Of the value's own dtype, or the next number is a double's.
    toward = np.where(rng.random(value.shape) < 0.5, -np.inf, np.inf).astype(value.dtype)
    return np.asarray(np.nextafter(value, toward))
