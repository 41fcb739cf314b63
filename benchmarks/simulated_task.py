"""TFF's own simulation of a task, on recorded cohorts and on cohorts of its own.

Run as a program, because it needs TensorFlow: `python -m benchmarks.simulated_task
DIRECTORY`. In the directory it finds a `benchmarks.simulation_order.Order` with the
system's models, and leaves a Result.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow_federated as tff

from benchmarks.simulation_order import Metrics, Order, Result, weights_file
from device_plan.checkpoint import decode
from device_plan.compiler.model import ModelDescription, describe
from device_plan.compiler.oracle import start_worker, tff_runtime
from device_plan.compiler.process import reset_seeds
from device_plan.compiler.simulation import Simulation, proxy_data
from device_plan.task_file import load_task


class Repeating(Simulation):
    """A simulation that can also repeat recorded cohorts."""

    def repeat(
        self, cohorts: Sequence[Sequence[str]], initial: Sequence[np.ndarray] | None = None
    ) -> Iterator[int]:
        """The numbers of the rounds, from 0 for the initial model, each when it is done.

        Args:
            cohorts: Names of the clients of rounds 1, 2, ...
            initial: Trainable weights to begin with instead of the task's own.
        """
        reset_seeds(self._task.seed)
        self._state = self._process.initialize()
        if initial is not None:
            others = self._process.get_model_weights(self._state).non_trainable
            weights = tff.learning.models.ModelWeights(list(initial), others)
            self._state = self._process.set_model_weights(self._state, weights)
        yield 0
        for number, cohort in enumerate(cohorts, start=1):
            self._state = self._process.next(self._state, self._datasets(cohort)).state
            yield number

    def metrics(self) -> Metrics:
        """Of the last round's model on the held-out clients."""
        return self._evaluated(self._state)

    def all_weights(self) -> list[np.ndarray]:
        """Trainable and other weights after the last round, in TFF's order."""
        weights = self._process.get_model_weights(self._state)
        return [np.asarray(w) for w in (*weights.trainable, *weights.non_trainable)]

    def evaluated(self, trainable: list[np.ndarray], others: list[np.ndarray]) -> Metrics:
        """The metrics of a model from elsewhere on the held-out clients."""
        weights = tff.learning.models.ModelWeights(trainable, others)
        return self._evaluated(self._process.set_model_weights(self._state, weights))


def simulate(order: Order, directory: Path) -> Result:
    """Needs a TFF runtime (device_plan.compiler.oracle.tff_runtime)."""
    task = load_task(Path(order.task_file))
    model = describe(task)
    simulation = Repeating(task, model, proxy_data(task))
    rounds = len(order.cohorts)
    system, repeated, differences, learned = [], [], [], []
    kept: dict[int, list[np.ndarray]] = {}
    for number in simulation.repeat(order.cohorts):
        _tell(f"recorded cohorts: round {number} of {rounds}")
        if number in order.compared:
            theirs = kept[number] = simulation.all_weights()
            trainable, others = _weights(directory, number, model)
            system.append(simulation.evaluated(trainable, others))
            repeated.append(simulation.metrics())
            differences.append(_relative([*trainable, *others], theirs))
            learned.append(_relative(kept[0], theirs))
    moved, apart = [], []
    beginning = _moved(kept[0][: len(model.trainable)])
    for number in simulation.repeat(order.cohorts, beginning):
        _tell(f"recorded cohorts, weights moved by a rounding: round {number} of {rounds}")
        if number in order.compared:
            moved.append(simulation.metrics())
            apart.append(_relative(simulation.all_weights(), kept[number]))
    sampled = []
    for seed in order.seeds:
        metrics = []
        for done in simulation.run(
            rounds=rounds,
            clients_per_round=order.clients,
            evaluate_after=order.compared,
            seed=seed,
        ):
            _tell(f"own cohorts, seed {seed}: round {done.number} of {rounds}")
            if done.evaluation is not None:
                metrics.append(done.evaluation)
        sampled.append(metrics)
    return Result(
        system=system,
        repeated=repeated,
        sampled=sampled,
        moved=moved,
        differences=differences,
        apart=apart,
        learned=learned,
    )


def _moved(weights: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Each weight replaced by the next float32 above or below it, at random."""
    rng = np.random.default_rng(0)
    return [
        np.nextafter(w, np.where(rng.random(w.shape) < 0.5, -np.inf, np.inf).astype(w.dtype))
        for w in weights
    ]


def _weights(
    directory: Path, number: int, model: ModelDescription
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    tensors = decode(weights_file(directory, number).read_bytes())
    return [tensors[n] for n in model.trainable], [tensors[n] for n in model.non_trainable]


def _relative(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> float:
    """The distance relative to their norm; absolute if they are all zero."""
    pairs = zip(ours, theirs, strict=True)
    distance = _norm([a.astype(np.float64) - b for a, b in pairs])
    return distance / (_norm(theirs) or 1.0)


def _norm(weights: Sequence[np.ndarray]) -> float:
    return float(np.sqrt(sum(np.sum(np.square(w.astype(np.float64))) for w in weights)))


def _tell(line: str) -> None:
    sys.stderr.write(f"{line} …\n")
    sys.stderr.flush()


def main() -> None:
    directory = Path(sys.argv[1])
    with tff_runtime():
        start_worker()
        simulate(Order.read(directory), directory).write(directory)


if __name__ == "__main__":
    main()
