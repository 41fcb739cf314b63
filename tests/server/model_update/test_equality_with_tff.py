"""States and metrics of the updater, from sums, are those of TFF's process on the same clients."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from device_plan.archive import PlanArchive
from device_plan.checkpoint import decode
from server.model_update.updater import ModelUpdater, UpdateFailed
from tests.server.model_update.tff_plan import ROUNDS

#: Sums in another order differ in the last bits; Adam divides by their roots.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tff")
    with (path / "log").open("wb") as log:
        program = subprocess.Popen(
            [sys.executable, "-m", "tests.server.model_update.tff_plan", str(path)],
            cwd=Path(__file__).parents[3],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        code = program.wait()
    # TFF's executors would outlive the program that started them.
    with suppress(ProcessLookupError):
        os.killpg(program.pid, signal.SIGKILL)
    assert code == 0, (path / "log").read_text()[-4000:]
    return path


@pytest.fixture(scope="module")
def plan(directory: Path) -> PlanArchive:
    return PlanArchive.open(directory / "tff.plan")


@pytest.fixture(scope="module")
def updater(plan: PlanArchive) -> Iterator[ModelUpdater]:
    updater = ModelUpdater()
    updater.start()
    updater.warm(plan)
    yield updater
    updater.close()


def tensors(path: Path) -> dict[str, np.ndarray]:
    return decode(path.read_bytes())


def test_several_rounds_of_training_lead_to_the_same_state(
    plan: PlanArchive, directory: Path, updater: ModelUpdater
) -> None:
    state, difference = plan.initial_state, 0.0
    for number in range(1, ROUNDS + 1):
        result = updater.apply(plan, "training", state, tensors(directory / f"sums{number}"))
        assert result.state
        assert result.checkpoint
        after, expected = decode(result.state), tensors(directory / f"state{number}")
        assert after.keys() == expected.keys()
        for name, value in expected.items():
            assert after[name].dtype == value.dtype
            gap = np.abs(after[name].astype(np.float64) - value).max(initial=0.0)
            difference = max(difference, float(gap))
        for name, value in tensors(directory / f"train{number}").items():
            assert result.metrics[name] == pytest.approx(value.item(), rel=1e-6)
        weights = [array for name, array in after.items() if array.ndim and "state" in name]
        for array in decode(result.checkpoint).values():
            assert any(np.array_equal(array, weight) for weight in weights) or not array.ndim
        state = result.state
    assert difference <= TOLERANCE


def test_an_evaluation_gives_the_same_metrics(
    plan: PlanArchive, directory: Path, updater: ModelUpdater
) -> None:
    expected = {name: value.item() for name, value in tensors(directory / "eval").items()}
    for _ in range(2):
        result = updater.apply(plan, "evaluation", None, tensors(directory / "eval_sums"))
        assert result.metrics == pytest.approx(expected, rel=1e-6)


def test_sums_that_overflowed_are_refused_although_tff_would_skip_them(
    plan: PlanArchive, directory: Path, updater: ModelUpdater
) -> None:
    sums = tensors(directory / "sums1")
    name = next(name for name, value in sums.items() if value.ndim == 2)
    overflowed = sums | {name: np.full_like(sums[name], np.inf)}
    with pytest.raises(UpdateFailed, match=name):
        updater.apply(plan, "training", plan.initial_state, overflowed)
