"""A simulation is the task's own TFF process on the clients' examples, and nothing else."""

import functools
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from device_plan.predicates import Predicate
from device_plan.proxy_data import ProxyData
from device_plan.task import ExampleSelector, FederatedTask
from device_plan.task_file import InvalidTask
from tests.device_plan import proxies
from tests.house import ROOT

#: Between two runs of the same TFF computation; sums may be taken in another order.
TOLERANCE = 1e-6


def small_task(**changes: Any) -> FederatedTask:
    import tensorflow as tf

    from tests.device_plan import tasks

    model = tasks.model_fn(
        tasks.network("relu"),
        metrics=lambda: [tf.keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
    settings = {
        "examples": ExampleSelector(collection="rows", min_examples=5, max_examples=10),
        "proxy_fn": proxies.data,
        **changes,
    }
    return tasks.task(model, **settings)


@pytest.fixture(scope="module")
def simulate() -> Iterator[Callable[..., Any]]:
    """Makes simulations, in a TFF runtime that they share."""
    from device_plan.compiler.model import describe
    from device_plan.compiler.oracle import start_worker, tff_runtime
    from device_plan.compiler.simulation import Simulation

    def simulation(task: FederatedTask, data: ProxyData | None = None) -> Simulation:
        return Simulation(task, describe(task), proxies.data() if data is None else data)

    with tff_runtime():
        start_worker()
        yield simulation


@pytest.fixture(scope="module")
def two_rounds(simulate: Callable[..., Any]) -> tuple[Any, list[Any]]:
    """A simulation of the small task after two rounds of three clients, and its rounds."""
    simulated = simulate(small_task())
    rounds = list(simulated.run(rounds=2, clients_per_round=3, evaluate_after=(0, 2), seed=7))
    return simulated, rounds


def batches_by_hand(client: str, *, epochs: int) -> Any:
    """A client's batches, written out: four rows, four rows, the rest, and again."""
    import tensorflow as tf

    examples = {**proxies.data().clients, **proxies.data().held_out}[client]
    newest = {name: value[-10:] for name, value in examples.items()}
    batches = [
        tf.data.Dataset.from_tensors(
            OrderedDict((name, newest[name][start : start + 4]) for name in ("x", "y"))
        )
        for _ in range(epochs)
        for start in range(0, len(newest["y"]), 4)
    ]
    return functools.reduce(lambda before, batch: before.concatenate(batch), batches)


@pytest.fixture(scope="module")
def by_hand(two_rounds: tuple[Any, list[Any]]) -> tuple[list[np.ndarray], Any, Any]:
    """TFF's process called directly on the same clients: weights, last metrics, evaluation."""
    import tensorflow_federated as tff

    from device_plan.compiler.process import reset_seeds

    task = small_task()
    reset_seeds(task.seed)
    process = task.process_fn(task.model_fn)
    evaluation = tff.learning.algorithms.build_fed_eval(task.model_fn)
    state = process.initialize()
    for done in two_rounds[1][1:]:
        output = process.next(state, [batches_by_hand(c, epochs=2) for c in done.clients])
        state = output.state
    weights = process.get_model_weights(state)
    evaluated = evaluation.next(
        evaluation.set_model_weights(evaluation.initialize(), weights),
        [batches_by_hand(client, epochs=1) for client in ("h0", "h1")],
    )
    return (
        [np.asarray(weight) for weight in weights.trainable],
        output.metrics["client_work"]["train"],
        evaluated.metrics["client_work"]["eval"]["current_round_metrics"],
    )


def test_the_model_after_two_rounds_is_that_of_the_process_called_by_hand(
    two_rounds: tuple[Any, list[Any]], by_hand: tuple[list[np.ndarray], Any, Any]
) -> None:
    for ours, expected in zip(two_rounds[0].weights(), by_hand[0], strict=True):
        np.testing.assert_allclose(ours, expected, rtol=0, atol=TOLERANCE)


def test_the_metrics_are_those_of_the_process_and_the_evaluation_called_by_hand(
    two_rounds: tuple[Any, list[Any]], by_hand: tuple[list[np.ndarray], Any, Any]
) -> None:
    first, second, third = two_rounds[1]
    for name, value in by_hand[1].items():
        assert third.training[name] == pytest.approx(float(value), abs=TOLERANCE)
    assert third.evaluation.keys() == by_hand[2].keys()
    for name, value in by_hand[2].items():
        assert third.evaluation[name] == pytest.approx(float(value), abs=TOLERANCE)
    assert third.evaluation["num_examples"] == 10 + 6
    assert first.training == {}
    assert first.evaluation["accuracy"] != third.evaluation["accuracy"]
    assert second.evaluation is None


def test_clients_with_too_few_examples_do_not_take_part(two_rounds: tuple[Any, list[Any]]) -> None:
    simulated, rounds = two_rounds
    drawn = {name for number in range(50) for name in simulated.cohort(number, 3, 0)}
    assert drawn == {"c0", "c2", "c3", "c4"}
    assert all(len(set(done.clients)) == 3 for done in rounds[1:])


def test_a_simulation_runs_again_in_the_same_way(two_rounds: tuple[Any, list[Any]]) -> None:
    simulated, rounds = two_rounds
    again = list(simulated.run(rounds=2, clients_per_round=3, evaluate_after=(0, 2), seed=7))
    for first, second in zip(rounds, again, strict=True):
        assert first.clients == second.clients
        assert first.training == pytest.approx(second.training, abs=TOLERANCE)
        if first.evaluation is not None:
            assert first.evaluation == pytest.approx(second.evaluation, abs=TOLERANCE)


def test_another_seed_draws_other_clients_and_rounds_do_not_depend_on_how_many_follow(
    two_rounds: tuple[Any, list[Any]],
) -> None:
    simulated, rounds = two_rounds
    assert rounds[1].clients == simulated.cohort(1, 3, 7)
    cohorts = {seed: [simulated.cohort(n, 3, seed) for n in range(10)] for seed in range(2)}
    assert cohorts[0] != cohorts[1]


def test_a_round_has_as_many_clients_as_the_task_wants_updates_if_there_are(
    two_rounds: tuple[Any, list[Any]],
) -> None:
    simulated, _ = two_rounds
    assert simulated.clients_per_round(None) == 2
    assert simulated.clients_per_round(4) == 4
    with pytest.raises(InvalidTask, match=r"5 clients a round .* have 4 with at least 5 examples"):
        simulated.clients_per_round(5)


def test_predicates_of_the_same_clients_share_a_simulation_and_each_is_judged_once(
    two_rounds: tuple[Any, list[Any]],
) -> None:
    from device_plan.compiler.simulation import judged
    from device_plan.predicates import Verdict

    simulated, rounds = two_rounds
    wanted = [
        Predicate(metric="accuracy", at_least=2.0, after_rounds=2, clients_per_round=3, seed=7),
        Predicate(metric="loss", at_most=100.0, after_rounds=1, clients_per_round=3, seed=7),
        Predicate(metric="loss", at_most=100.0, after_rounds=1, seed=7),
    ]
    events = list(judged(simulated, wanted))
    verdicts = [event for event in events if isinstance(event, Verdict)]
    assert len(events) - len(verdicts) == 3 + 2
    assert [verdict.predicate for verdict in verdicts] == [wanted[1], wanted[0], wanted[2]]
    assert [verdict.holds for verdict in verdicts] == [True, False, True]
    assert verdicts[1].value == pytest.approx(rounds[2].evaluation["accuracy"], abs=TOLERANCE)


def test_data_that_do_not_fit_the_model_are_refused_by_client_and_feature(
    simulate: Callable[..., Any],
) -> None:
    def refusal(change: dict[str, np.ndarray]) -> str:
        clients = {"odd one": {**proxies.rows(6, 0), **change}}
        with pytest.raises(InvalidTask) as caught:
            simulate(small_task(), ProxyData(clients=clients, held_out=clients))
        return str(caught.value)

    where = "proxy data, clients, client 'odd one'"
    assert refusal({"x": np.zeros((6, 2), np.float32)}) == (
        f"{where} must give feature 'x' as float32 [6, 6], not float32 [6, 2]"
    )
    assert refusal({"y": np.zeros(6, np.int32)}) == (
        f"{where} must give feature 'y' as int64 [6], not int32 [6]"
    )
    assert f"{where} gives the label 4 in feature 'y'; the model tells 4 classes apart" in refusal(
        {"y": np.arange(6, dtype=np.int64)}
    )


def test_clients_that_are_all_too_small_are_refused(simulate: Callable[..., Any]) -> None:
    with pytest.raises(InvalidTask, match=r"none of the 2 held_out has the 5 examples"):
        simulate(small_task(), proxies.data(held_out=(1, 2)))


def test_a_proxy_fn_that_fails_or_returns_something_else_is_named() -> None:
    from device_plan.compiler.simulation import proxy_data

    def failing() -> ProxyData:
        raise FileNotFoundError("no /data/proxy.npz")

    with pytest.raises(InvalidTask, match=r"proxy_fn fails: FileNotFoundError: no /data/proxy.npz"):
        proxy_data(small_task(proxy_fn=failing))
    with pytest.raises(InvalidTask, match=r"proxy_fn must return .*ProxyData, not a dict"):
        proxy_data(small_task(proxy_fn=dict))
    with pytest.raises(InvalidTask, match="give it a proxy_fn"):
        proxy_data(small_task(proxy_fn=None))


def test_a_simulation_starts_from_the_plans_initial_model(simulate: Callable[..., Any]) -> None:
    from device_plan.compiler.oracle import initial_state
    from device_plan.compiler.process import training_form

    simulated = simulate(small_task())
    list(simulated.run(rounds=0))
    state = initial_state(training_form(small_task()), small_task().seed)
    # The global model leads TFF's server state.
    for ours, planned in zip(simulated.weights(), state, strict=False):
        np.testing.assert_array_equal(ours, planned)


def test_nothing_of_tff_is_left_to_complain_when_the_interpreter_ends() -> None:
    script = """
import atexit, gc, sys

def services():
    gc.collect()
    return sum(type(thing).__name__ == "ServiceManager" for thing in gc.get_objects())

atexit.register(lambda: sys.stdout.write(f"left {services()}"))
from device_plan.compiler.oracle import start_worker, tff_runtime
with tff_runtime():
    start_worker()
"""
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout == "left 0"
    assert "Exception ignored" not in run.stderr
