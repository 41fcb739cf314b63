"""The task files in examples/ are complete: they load lightly, and their parts fit together."""

import subprocess
import sys

import numpy as np
import pytest

from device_plan.task import FederatedTask
from device_plan.task_file import load_task
from tests.house import ROOT

FILES = sorted((ROOT / "examples").glob("*_task.py"))

each = pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])

#: Those that come with data, which the demo brings itself.
WITH_DATA = [path for path in FILES if path.stem != "digits_task"]

each_with_data = pytest.mark.parametrize("path", WITH_DATA, ids=[path.stem for path in WITH_DATA])


@pytest.fixture
def task(path) -> FederatedTask:
    return load_task(path)


def test_no_task_file_loads_tensorflow() -> None:
    script = (
        "import sys; from pathlib import Path; from device_plan.task_file import load_task\n"
        "for path in sys.argv[1:]: load_task(Path(path))\n"
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script, *map(str, FILES)], cwd=ROOT, check=True)


@each
def test_a_task_file_says_how_to_build_it(path) -> None:
    assert f"nightshift plan build examples/{path.name} -o " in path.read_text()


@each_with_data
def test_a_tasks_samples_and_proxy_data_fit_its_model(task: FederatedTask) -> None:
    from device_plan.compiler.model import flat_features

    specs = {
        name: (spec.dtype.as_numpy_dtype, tuple(spec.shape[1:]))
        for name, spec in flat_features(task.model_fn().input_spec)
    }
    proxies = task.proxy_fn()
    sample = task.sample_fn(np.random.default_rng(0), 5)
    for examples in (sample, *proxies.clients.values(), *proxies.held_out.values()):
        found = {name: (value.dtype.type, value.shape[1:]) for name, value in examples.items()}
        assert found == specs


@each_with_data
def test_enough_proxy_clients_have_enough_examples(task: FederatedTask) -> None:
    sizes = [len(examples["y"]) for examples in task.proxy_fn().clients.values()]
    enough = sum(size >= task.examples.min_examples for size in sizes)
    assert all(enough >= predicate.clients_per_round for predicate in task.predicates)


@each_with_data
def test_a_predicate_is_about_a_metric_of_the_model(task: FederatedTask) -> None:
    metrics = {metric.name for metric in task.model_fn().get_metrics()}
    assert task.predicates
    assert {predicate.metric for predicate in task.predicates} <= metrics
