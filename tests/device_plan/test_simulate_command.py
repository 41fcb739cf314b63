"""`nightshift task simulate` as an author meets it."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from device_plan.commands.learning_curve import sparkline
from device_plan.commands.simulate import simulate
from tests.device_plan import proxies

TASK = """
import tensorflow as tf
from device_plan.predicates import Predicate
from device_plan.task import ExampleSelector
from tests.device_plan import proxies
from tests.device_plan.tasks import model_fn, network, task as small

task = small(
    model_fn(
        network(),
        metrics=lambda: [tf.keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    ),
    proxy_fn=proxies.data,
    predicates=(
        Predicate(metric="accuracy", at_least=0.0, after_rounds=3),
        Predicate(metric="loss", {bound}, after_rounds=2, clients_per_round=3),
        Predicate(metric="loss", at_most=100.0, after_rounds=50),
    ),
    rounds=3,
)
"""


def task_file(directory: Path, bound: str = "at_most=100.0") -> Path:
    path = directory / "task.py"
    path.write_text(TASK.replace("{bound}", bound))
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(simulate, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """A simulation of four rounds, and where its files are."""
    directory = tmp_path_factory.mktemp("simulated")
    files = [f"--{kind}={directory / name}" for kind, name in FILES.items()]
    return run(task_file(directory), "--rounds", 4, "--evaluate-every", 2, *files), directory


FILES = {"json": "out.json", "csv": "out.csv", "plot": "out.png"}


def test_a_simulation_ends_with_its_curves_and_verdicts(simulated: tuple[Result, Path]) -> None:
    result, _ = simulated
    assert result.exit_code == 0, result.output
    for text in ("held-out accuracy", "training loss", "rounds 0 to 4", "at most 100", "holds"):
        assert text in result.output
    assert "Not judged: loss at most 100 after 50 rounds, for 4 were simulated." in result.output


def test_the_files_hold_the_same_rounds(simulated: tuple[Result, Path]) -> None:
    _, directory = simulated
    written = json.loads((directory / "out.json").read_text())
    with (directory / "out.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [done["number"] for done in written["rounds"]] == [0, 1, 2, 3, 4]
    # Every second round, the last, and the third for its predicate.
    evaluated = [d["number"] for d in written["rounds"] if d["evaluation"] is not None]
    assert evaluated == [0, 2, 3, 4]
    for done, line in zip(written["rounds"], lines, strict=True):
        assert int(line["round"]) == done["number"]
        assert int(line["clients"]) == len(done["clients"])
        evaluation = done["evaluation"] or {"accuracy": None}
        assert line["held-out accuracy"] == (
            "" if evaluation["accuracy"] is None else str(evaluation["accuracy"])
        )
        assert line["training loss"] == str(done["training"].get("loss", ""))
    assert all(len(done["clients"]) == 2 for done in written["rounds"][1:])
    assert [verdict["holds"] for verdict in written["predicates"]] == [True, True]


def test_the_plot_is_a_png_file(simulated: tuple[Result, Path]) -> None:
    from matplotlib.image import imread

    pixels = imread(simulated[1] / "out.png")
    assert pixels.ndim == 3
    # More than an empty page.
    assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 10


def test_a_predicate_that_does_not_hold_exits_with_1(tmp_path: Path) -> None:
    result = run(task_file(tmp_path, "at_most=0.001"), "--rounds", 3)
    assert result.exit_code == 1
    assert "after 2 simulated rounds, the predicate asks at most 0.001" in result.output
    assert "FAILS" in result.output


def test_proxy_data_may_come_from_a_file(tmp_path: Path) -> None:
    rows = proxies.rows(6, 0)
    arrays = {f"{part}/me/{name}": rows[name] for part in ("clients", "held_out") for name in rows}
    np.savez(tmp_path / "proxy.npz", **arrays)
    out = tmp_path / "out.json"
    result = run(
        task_file(tmp_path), "--rounds", 1, "--data", tmp_path / "proxy.npz", "--json", out
    )
    assert result.exit_code == 0, result.output
    written = json.loads(out.read_text())
    assert written["rounds"][1]["clients"] == ["me"]
    # Two epochs of six examples.
    assert written["rounds"][1]["training"]["num_examples"] == 12


def test_wrong_input_is_one_clear_error(tmp_path: Path) -> None:
    task = task_file(tmp_path)
    (tmp_path / "odd.npz").write_bytes(b"no zip")
    np.savez(tmp_path / "empty.npz")
    for arguments, told in (
        ((tmp_path / "none.py",), "no such task file"),
        ((task, "--data", tmp_path / "none.npz"), "cannot read"),
        ((task, "--data", tmp_path / "odd.npz"), "odd.npz"),
        ((task, "--data", tmp_path / "empty.npz"), "must map at least one client's name"),
        ((task, "--rounds", 1, "--clients", 99), "99 clients a round are asked for, but the"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2, result.output
        assert told in result.output
        assert "Traceback" not in result.output


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200))
def test_a_sparkline_rises_where_its_values_rise(values: list[float]) -> None:
    drawn = sparkline(sorted(values))
    assert len(drawn) == min(len(values), 40)
    assert list(drawn) == sorted(drawn)
    if len(values) <= 40:
        heights = dict(zip(sorted(values), drawn, strict=True))
        assert sparkline(values) == "".join(heights[value] for value in values)


def test_a_sparkline_shows_extremes_and_leaves_gaps() -> None:
    assert sparkline([0.0, 1.0, 2.0]) == "▁▅█"
    assert sparkline([1.0, math.nan, 1.0]) == "▁ ▁"
