"""`nightshift plan` as an author meets it: exit codes, files, and what mistakes are told."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from device_plan.archive import PlanArchive
from device_plan.commands import plan
from tests.house import ROOT

DIGITS = ROOT / "examples" / "digits_task.py"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(plan, [str(argument) for argument in arguments])


def task_file(directory: Path, text: str) -> Path:
    path = directory / "task.py"
    path.write_text(text)
    return path


def test_help_teaches_the_commands():
    result = run("--help")
    assert result.exit_code == 0
    assert "nightshift plan build examples/digits_task.py" in result.output
    assert all(command in result.output for command in ("build", "show", "check"))


def test_help_needs_no_tensorflow():
    code = (
        "import sys; from click.testing import CliRunner; from device_plan.commands import plan;"
        "CliRunner().invoke(plan, ['build', '--help']);"
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_show_prints_the_plan(digits_plan: Path):
    result = run("show", digits_plan)
    assert result.exit_code == 0
    archive = PlanArchive.open(digits_plan)
    for text in ("digits/demo", archive.digest, "hidden/kernel", "BATCH_MATMUL", "passed"):
        assert text in result.output


def test_show_as_json_is_for_programs(digits_plan: Path):
    shown = json.loads(run("show", digits_plan, "--json").output)
    assert shown["digest"] == hashlib.sha256(digits_plan.read_bytes()).hexdigest()
    assert shown["checks"]["passed"] is True
    assert shown["tensors"]["examples"] == [
        {"name": "x", "dtype": "float32", "shape": [-1, 64]},
        {"name": "y", "dtype": "int64", "shape": [-1]},
    ]
    assert {op["name"] for op in shown["ops"]} >= {"SOFTMAX", "ADD"}


def test_show_of_something_else_says_so(tmp_path: Path):
    other = tmp_path / "other.plan"
    other.write_bytes(b"no plan")
    result = run("show", other)
    assert result.exit_code == 2
    assert "not a plan archive" in result.output
    assert run("show", tmp_path / "missing.plan").exit_code == 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("plan = 1", "has no `task`"),
        ("task = 1", "must be a device_plan.task.FederatedTask, not a int"),
        ("def task():\n    return 1", "not a int"),
        ("import no_such_module", "No module named 'no_such_module'"),
        ("x = 1\nraise RuntimeError('oh no')", "line 2: RuntimeError: oh no"),
        ("task = (", "SyntaxError"),
        (
            "from device_plan.task import *\nExampleSelector(collection='')",
            "needs the name of a collection",
        ),
        (
            "from device_plan.cohort import CohortPolicy\nCohortPolicy(goal_count=0)",
            "goal_count must be from 1",
        ),
    ],
)
def test_a_mistake_in_the_task_file_is_one_clear_error(text: str, told: str, tmp_path: Path):
    path = task_file(tmp_path, text)
    result = run("build", path, "-o", tmp_path / "out.plan")
    assert result.exit_code == 2
    assert told in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "out.plan").exists()


def test_a_missing_task_file_is_an_error(tmp_path: Path):
    result = run("build", tmp_path / "none.py", "-o", tmp_path / "out.plan")
    assert result.exit_code == 2
    assert "no such task file" in result.output


SMALL = "from tests.device_plan.tasks import task as small\ntask = small()\n"

WITH_AN_INVERSE = """
import tensorflow as tf
from tests.device_plan.tasks import model_fn, task as small

def network():
    layers = tf.keras.layers
    return tf.keras.Sequential(
        [
            layers.InputLayer((6,)),
            layers.Dense(4, name="square"),
            layers.Reshape((2, 2)),
            layers.Lambda(tf.linalg.inv, name="inverse"),
            layers.Flatten(),
        ]
    )

task = small(model_fn(network))
"""


def test_a_model_that_cannot_be_lowered_exits_with_2(tmp_path: Path):
    path = task_file(tmp_path, WITH_AN_INVERSE)
    result = run("build", path, "-o", tmp_path / "out.plan")
    assert result.exit_code == 2
    assert "layer 'inverse' uses MatrixInverse" in result.output
    assert "nearest supported: matrix products" in " ".join(result.output.split())


def test_a_failed_check_exits_with_1_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from tflite_models.lowering.rules import RULES, Rule

    monkeypatch.setitem(RULES, "ReluGrad", Rule("ReluGrad", lambda dy, _y: dy, ()))
    path = task_file(tmp_path, SMALL)
    result = run("build", path, "-o", tmp_path / "out.plan")
    assert result.exit_code == 1
    assert "the plan fails the check 'equality: one batch'" in result.output
    assert "FAILED" in result.output
    assert list(tmp_path.glob("out*")) == []


def test_check_passes_on_the_plan_of_the_task(digits_plan: Path):
    result = run("check", digits_plan, DIGITS, "--runtimes", "none", "--no-write")
    assert result.exit_code == 0, result.output
    assert "passes all" in result.output


def test_check_of_a_plan_against_another_task_is_an_error(digits_plan: Path, tmp_path: Path):
    result = run("check", digits_plan, task_file(tmp_path, SMALL), "--no-write")
    assert result.exit_code == 2
    assert "this is not the plan of that task" in result.output


def test_the_same_task_gives_the_same_bytes(digits_plan: Path, tmp_path: Path):
    again = tmp_path / "again.plan"
    command = [sys.executable, "-m", "nightshift", "plan", "build", str(DIGITS), "-o", str(again)]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True
        )
        try:
            assert process.wait(timeout=170) == 0, (tmp_path / "log").read_text()
            # Nobody is left in the build's session to be killed.
            with pytest.raises(ProcessLookupError):
                os.killpg(process.pid, 0)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert again.read_bytes() == digits_plan.read_bytes()
