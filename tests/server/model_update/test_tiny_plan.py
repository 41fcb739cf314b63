"""TensorFlow's results of a plan made by hand are those of the same arithmetic in numpy."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from device_plan.archive import PlanArchive
from device_plan.checkpoint import decode, encode
from server.model_update.updater import ModelUpdater, UpdateFailed
from tests.server.model_update.tiny_plan import weights


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> PlanArchive:
    path = tmp_path_factory.mktemp("plan") / "tiny.plan"
    subprocess.run(
        [sys.executable, "-m", "tests.server.model_update.tiny_plan", str(path)],
        check=True,
        cwd=Path(__file__).parents[3],
        stderr=subprocess.DEVNULL,
    )
    return PlanArchive.open(path)


@pytest.fixture(scope="module")
def updater() -> Iterator[ModelUpdater]:
    updater = ModelUpdater()
    updater.start()
    yield updater
    updater.close()


def sums(weight: float = 4.0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(5)
    return {
        "kernel": random.normal(size=(2, 3)).astype(np.float32),
        "bias": random.normal(size=3).astype(np.float32),
        "weight": np.asarray(weight, np.float32),
        "loss": np.asarray(6.0, np.float32),
    }


def test_a_round_of_training_gives_state_checkpoint_and_metrics(
    plan: PlanArchive, updater: ModelUpdater
) -> None:
    state, expected = plan.initial_state, dict(weights())
    for number in range(1, 4):
        result = updater.apply(plan, "training", state, sums())
        expected = {name: expected[name] + 0.5 * sums()[name] / 4 for name in expected}
        assert result.state
        assert result.checkpoint
        tensors = decode(result.checkpoint)
        assert set(tensors) == set(expected)
        for name, value in expected.items():
            np.testing.assert_allclose(tensors[name], value, rtol=1e-6)
        after = decode(result.state)
        np.testing.assert_array_equal(after["model/0"], tensors["kernel"])
        np.testing.assert_array_equal(after["model/1"], tensors["bias"])
        assert after["rounds"] == number
        assert after["rounds"].dtype == np.int64
        assert result.metrics["loss"] == 1.5
        assert result.metrics["rounds"] == number
        np.testing.assert_allclose(result.metrics["bias"], expected["bias"], rtol=1e-6)
        state = result.state


def test_the_same_request_gives_the_same_bytes(plan: PlanArchive, updater: ModelUpdater) -> None:
    first, second = (updater.apply(plan, "training", plan.initial_state, sums()) for _ in range(2))
    assert first == second


def test_each_evaluation_starts_anew_and_reports_its_round(
    plan: PlanArchive, updater: ModelUpdater
) -> None:
    for correct in (3.0, 6.0):
        counts = {"correct": np.asarray(correct, np.float32), "count": np.asarray(8, np.int64)}
        result = updater.apply(plan, "evaluation", None, counts)
        assert result.metrics == {"accuracy": correct / 8}
        assert result.state is None
        assert result.checkpoint is None


def test_a_metric_that_is_not_finite_is_none(plan: PlanArchive, updater: ModelUpdater) -> None:
    counts = {"correct": np.asarray(0, np.float32), "count": np.asarray(0, np.int64)}
    assert updater.apply(plan, "evaluation", None, counts).metrics == {"accuracy": None}


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_poisoned_model_is_refused_and_the_next_round_succeeds(
    plan: PlanArchive, updater: ModelUpdater, poison: float
) -> None:
    poisoned = sums() | {"bias": np.array([0, poison, 0], np.float32)}
    with pytest.raises(UpdateFailed, match=r"NaN in 'model/1'|not finite in 'bias'"):
        updater.apply(plan, "training", plan.initial_state, poisoned)
    with pytest.raises(UpdateFailed, match=r"NaN|not finite"):
        updater.apply(plan, "training", plan.initial_state, sums(weight=0.0))
    assert updater.apply(plan, "training", plan.initial_state, sums()).state


def test_tensors_that_are_not_the_plans_are_named(plan: PlanArchive, updater: ModelUpdater) -> None:
    missing = {name: value for name, value in sums().items() if name != "loss"}
    for wrong, message in (
        (missing, "loss"),
        (sums() | {"more": np.zeros(1)}, "more"),
        (sums() | {"bias": np.zeros(4, np.float32)}, r"'bias' is float32\[4\]"),
        (sums() | {"bias": np.zeros(3)}, r"'bias' is float64\[3\]"),
    ):
        with pytest.raises(UpdateFailed, match=message):
            updater.apply(plan, "training", plan.initial_state, wrong)
    with pytest.raises(UpdateFailed, match="server state"):
        updater.apply(plan, "training", encode(dict(weights())), sums())
    with pytest.raises(UpdateFailed, match="MalformedCheckpoint"):
        updater.apply(plan, "training", b"not tensors", sums())
