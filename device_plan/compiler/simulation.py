"""A task's own learning process in TFF, on proxy data: rounds as the devices would have them.

A client's examples reach TFF as a device would take them: the newest
`max_examples`, in consecutive batches of which the last of an epoch is smaller,
one epoch after another. Clients with fewer than `min_examples` do not take part.
"""

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow_federated as tff

from device_plan.compiler.examples import Examples, ExampleSource
from device_plan.compiler.model import ModelDescription
from device_plan.compiler.process import first_line, named_anew, reset_seeds
from device_plan.predicates import Predicate, Verdict, judge
from device_plan.proxy_data import ClientExamples, ProxyData
from device_plan.task import FederatedTask
from device_plan.task_file import InvalidTask

#: Under which TFF's processes report what the clients measured while training.
_TRAINING_METRICS = "client_work/train/"

#: Likewise of TFF's evaluation, for the round alone and not for all so far.
_EVALUATION_METRICS = "client_work/eval/current_round_metrics/"


@dataclass(frozen=True)
class SimulatedRound:
    """One round, and the model it left.

    Attributes:
        number: From 1; 0 is the initial model.
        clients: Who trained, in the order in which TFF got them.
        training: The clients' metrics while they trained, and those of the
            process's aggregators; empty for the initial model.
        evaluation: The model's metrics on the held-out clients; None if it was
            not evaluated.
        seconds: Of training and evaluation.
    """

    number: int
    clients: tuple[str, ...]
    training: Mapping[str, float]
    evaluation: Mapping[str, float] | None
    seconds: float


class Simulation:
    """A task's process and its evaluation, on checked proxy data.

    Needs a TFF runtime (device_plan.compiler.oracle.tff_runtime) around all its use.

    Args:
        processes: The task's learning process and TFF's evaluation of its model, if they
            were built before: they keep no state between calls.

    Raises:
        InvalidTask: the process cannot be built, or the data do not fit the model.
    """

    def __init__(
        self,
        task: FederatedTask,
        model: ModelDescription,
        data: ProxyData,
        processes: tuple[Any, Any] | None = None,
    ) -> None:
        self._task = task
        self._source = ExampleSource(task, model)
        self._clients = self._take_part(data.clients, "clients")
        held_out = self._take_part(data.held_out, "held_out")
        self._held_out = [
            self._source.dataset(examples, task.batch_size, 1) for examples in held_out.values()
        ]
        self._process, self._evaluation = processes or _processes(task)

    def clients_per_round(self, wanted: int | None) -> int:
        """The number of clients in each round: `wanted`, or as the task's cohort has it.

        Raises:
            InvalidTask: there are fewer clients than wanted.
        """
        there_are = len(self._clients)
        if wanted is None:
            return min(self._task.cohort.goal_count, there_are)
        if wanted > there_are:
            raise InvalidTask(
                f"{wanted} clients a round are asked for, but the proxy data have {there_are} "
                f"with at least {self._task.examples.min_examples} examples"
            )
        return wanted

    def cohort(self, number: int, clients: int, seed: int) -> tuple[str, ...]:
        """Who trains in round `number`: without repetition, from the seed and the number alone."""
        names = sorted(self._clients)
        drawn = np.random.default_rng([seed, number]).choice(len(names), clients, replace=False)
        return tuple(names[index] for index in drawn)

    def run(
        self,
        *,
        rounds: int,
        clients_per_round: int | None = None,
        evaluate_after: Collection[int] = (),
        seed: int = 0,
    ) -> Iterator[SimulatedRound]:
        """The initial model as round 0, then each round when it is done.

        Args:
            rounds: How many are simulated.
            clients_per_round: None: see `clients_per_round`.
            evaluate_after: Numbers of the rounds whose model is evaluated.
            seed: Of the choice of clients.

        Raises:
            InvalidTask: there are too few clients, or TFF cannot execute the process.
        """
        count = self.clients_per_round(clients_per_round)
        reset_seeds(self._task.seed)
        state = self._process.initialize()
        for number in range(rounds + 1):
            started = time.monotonic()
            cohort: tuple[str, ...] = ()
            training: dict[str, float] = {}
            try:
                if number:
                    cohort = self.cohort(number, count, seed)
                    output = self._process.next(state, self._datasets(cohort))
                    state = output.state
                    training = scalars(output.metrics, _TRAINING_METRICS)
                evaluation = self._evaluated(state) if number in evaluate_after else None
            except Exception as error:
                raise InvalidTask(
                    f"TFF fails in simulated round {number}: {first_line(error)}"
                ) from error
            self._state = state
            yield SimulatedRound(number, cohort, training, evaluation, time.monotonic() - started)

    def weights(self) -> list[np.ndarray]:
        """The trainable weights after the last round of `run`, in TFF's order."""
        return [np.asarray(w) for w in self._process.get_model_weights(self._state).trainable]

    def _datasets(self, cohort: Iterable[str]) -> list[Any]:
        task = self._task
        return [
            self._source.dataset(self._clients[name], task.batch_size, task.epochs)
            for name in cohort
        ]

    def _evaluated(self, state: Any) -> dict[str, float]:
        weights = self._process.get_model_weights(state)
        evaluation = self._evaluation
        initial = evaluation.set_model_weights(evaluation.initialize(), weights)
        metrics = scalars(evaluation.next(initial, self._held_out).metrics)
        return {
            name.removeprefix(_EVALUATION_METRICS): value
            for name, value in metrics.items()
            if name.startswith(_EVALUATION_METRICS)
        }

    def _take_part(self, clients: Mapping[str, ClientExamples], part: str) -> dict[str, Examples]:
        """What the task's selector chooses of each client that has enough examples."""
        selector = self._task.examples
        chosen = {}
        for name, examples in clients.items():
            where = f"proxy data, {part}, client {name!r}"
            fitting = self._source.fitting(examples, where)
            count = len(next(iter(fitting.values())))
            if count >= selector.min_examples:
                chosen[name] = {
                    feature: value[-selector.max_examples :] for feature, value in fitting.items()
                }
        if not chosen:
            raise InvalidTask(
                f"proxy data: none of the {len(clients)} {part} has the "
                f"{selector.min_examples} examples that the task's selector asks for"
            )
        return chosen


def _processes(task: FederatedTask) -> tuple[Any, Any]:
    try:
        reset_seeds(task.seed)
        learning = task.process_fn(named_anew(task.model_fn))
        return learning, tff.learning.algorithms.build_fed_eval(named_anew(task.model_fn))
    except Exception as error:
        raise InvalidTask(
            f"model_fn and process_fn give no learning process: {first_line(error)}"
        ) from error


def judged(
    simulation: Simulation, predicates: Sequence[Predicate]
) -> Iterator[SimulatedRound | Verdict]:
    """Simulates what the predicates ask for; each verdict comes after its round.

    Predicates of the same clients and seed share one simulation.
    """
    worlds: dict[tuple[int, int], list[Predicate]] = {}
    for predicate in predicates:
        count = simulation.clients_per_round(predicate.clients_per_round)
        worlds.setdefault((count, predicate.seed), []).append(predicate)
    for (count, seed), asking in worlds.items():
        after = {predicate.after_rounds for predicate in asking}
        for done in simulation.run(
            rounds=max(after), clients_per_round=count, evaluate_after=after, seed=seed
        ):
            yield done
            if done.evaluation is not None:
                for predicate in asking:
                    if predicate.after_rounds == done.number:
                        yield judge(predicate, done.evaluation)


def scalars(metrics: Any, stripped: str = "") -> dict[str, float]:
    """The numbers in nested metrics, their keys joined by "/", without the prefix `stripped`."""
    found: dict[str, float] = {}

    def collect(value: Any, name: str) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                collect(inner, f"{name}/{key}" if name else str(key))
        elif np.ndim(value) == 0 and np.asarray(value).dtype.kind in "fiub":
            found[name.removeprefix(stripped)] = float(value)

    collect(metrics, "")
    return found


def proxy_data(task: FederatedTask) -> ProxyData:
    """What the task's proxy_fn gives.

    Raises:
        InvalidTask: the task has none, or it fails.
    """
    if task.proxy_fn is None:
        raise InvalidTask(
            "the task has no proxy data to be simulated on: give it a proxy_fn that returns "
            "device_plan.proxy_data.ProxyData"
        )
    try:
        data = task.proxy_fn()
    except Exception as error:
        raise InvalidTask(f"proxy_fn fails: {first_line(error)}") from error
    if not isinstance(data, ProxyData):
        raise InvalidTask(
            f"proxy_fn must return device_plan.proxy_data.ProxyData, not a {type(data).__name__}"
        )
    return data
