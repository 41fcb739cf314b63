"""The runner on this environment's own tflite-runtime, with the digits plan against TFF."""

import ast
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from device_plan.archive import PlanArchive
from device_plan.matrix import runner
from device_plan.matrix.bundle import write_bundle
from device_plan.matrix.case import Cases
from device_plan.matrix.matrix import run
from device_plan.matrix.result import Result
from device_plan.matrix.runner import relative_difference
from tests.device_plan.matrix.runtimes_here import HERE, here
from tests.house import ROOT, imports_of


@pytest.fixture(scope="module")
def plan(digits_plan: Path) -> PlanArchive:
    return PlanArchive.open(digits_plan)


@pytest.fixture(scope="module")
def cases(plan: PlanArchive) -> Cases:
    """TFF's results on digits."""
    from device_plan.compiler.build import check_plan
    from examples.digits_task import task

    return check_plan(plan, task).cases


def on_this_runtime(plan: PlanArchive, cases: Cases) -> Result:
    (result,) = run({"modern": plan.graph}, cases, [HERE], here())
    return result


def test_the_digits_plan_equals_tff_on_this_runtime(plan: PlanArchive, cases: Cases) -> None:
    result = on_this_runtime(plan, cases)
    assert result.passed, result.reason
    assert list(result.differences) == list(cases.by_name())
    assert set(result.measured) == {"default", "none"}
    assert result.largest is not None
    assert result.largest <= 1e-5


def test_a_plan_that_differs_from_tff_in_one_weight_fails(plan: PlanArchive, cases: Cases) -> None:
    name = "delta/logits/bias"
    wrong = [
        replace(case, reference={**case.reference, name: case.reference[name] + np.float32(1e-2)})
        if case.name == "one batch"
        else case
        for case in cases.cases
    ]
    result = on_this_runtime(plan, Cases(cases.checkpoint, wrong))
    assert result.status == "failed"
    assert result.reason.startswith("one batch differs from TFF by ")
    assert result.differences["a partial last batch"] <= 1e-5


def test_a_graph_that_is_none_does_not_load(cases: Cases) -> None:
    (result,) = run({"modern": b"no graph"}, cases, [HERE], here())
    assert result.status == "failed"
    assert result.reason.startswith("the graph does not load: ")


def test_examples_that_cases_share_are_stored_once(cases: Cases, tmp_path: Path) -> None:
    write_bundle(tmp_path, cases)
    size = (tmp_path / "cases.npz").stat().st_size
    write_bundle(tmp_path, Cases(cases.checkpoint, [*cases.cases, *cases.cases]))
    assert (tmp_path / "cases.npz").stat().st_size == size
    index = json.loads((tmp_path / "cases.json").read_text())
    assert len(index["cases"]) == 2 * len(cases.cases)
    with np.load(tmp_path / "checkpoint.npz") as stored:
        assert len(stored.files) <= len(cases.checkpoint)


FLOATS = hnp.arrays(np.float32, 4, elements=st.floats(-1e3, 1e3, width=32))


@given(FLOATS, FLOATS, FLOATS)
def test_the_difference_is_the_larger_of_change_and_counts(
    a: np.ndarray, b: np.ndarray, noise: np.ndarray
) -> None:
    reference = {"delta/a": a, "delta/b": b, "weight": np.float32(5)}
    ours = {"delta/a": a + noise, "delta/b": b, "weight": np.float32(5)}
    whole = np.linalg.norm(np.concatenate([a, b]).astype(np.float64))
    apart = np.linalg.norm((a + noise).astype(np.float64) - a)
    expected = apart / max(whole, 1.2e-38)
    assert relative_difference(ours, reference) == pytest.approx(expected, rel=1e-12)
    # A wrong count does not disappear beside large changes.
    ours["weight"] = np.float32(6)
    assert relative_difference(ours, reference) == pytest.approx(max(expected, 0.2))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_differs_infinitely(bad: float) -> None:
    ours = {"delta/a": np.array([1, bad], np.float32)}
    assert relative_difference(ours, {"delta/a": np.ones(2, np.float32)}) == math.inf


def test_the_runner_is_one_file_of_python_3_8_with_numpy_alone() -> None:
    source = Path(runner.__file__).read_text()
    ast.parse(source, feature_version=(3, 8))
    imported = {found.names[0].partition(".")[0] for found in imports_of(source, "runner")}
    assert imported <= {*sys.stdlib_module_names, "numpy"}


def test_the_matrix_loads_no_tensorflow_and_no_runtime() -> None:
    code = (
        "import sys\n"
        "from device_plan.matrix import evidence, matrix, runner, table\n"
        "sys.exit(bool({'tensorflow', 'tflite_runtime'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
