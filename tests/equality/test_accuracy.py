"""A task's proxy data on the devices of a running system teach it what they teach TFF."""

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.house import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROUNDS = 3

#: Relative L2 norm, after the last round. The model is linear, so rounding does not grow.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Those of `python -m benchmarks accuracy` for logistic ranking."""
    directory = tmp_path_factory.mktemp("accuracy")
    command = [
        *(sys.executable, "-m", "benchmarks", "accuracy", "examples/ranking_logistic_task.py"),
        *("--rounds", str(ROUNDS), "--clients", "5", "--every", "1", "--samplings", "0"),
        *("--json", str(directory / "figures.json")),
    ]
    log = directory / "log"
    with log.open("wb") as output:
        benchmark = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        try:
            code = benchmark.wait()
        finally:
            # It ends what it has started.
            benchmark.terminate()
            benchmark.wait()
    assert code == 0, log.read_text()
    found: dict[str, Any] = json.loads((directory / "figures.json").read_text())
    return found


def test_the_system_begins_with_the_weights_of_tffs_simulation(figures: dict[str, Any]) -> None:
    assert figures["result"]["differences"][0] == 0.0


def test_after_every_round_the_system_has_the_weights_of_tffs_simulation(
    figures: dict[str, Any],
) -> None:
    result = figures["result"]
    assert len(result["differences"]) == ROUNDS + 1
    assert max(result["differences"]) <= TOLERANCE
    # Equal because nothing was learned would say nothing.
    assert min(result["learned"][1:]) > 1e3 * TOLERANCE


def test_tff_finds_equal_metrics_of_both(figures: dict[str, Any]) -> None:
    result = figures["result"]
    for ours, theirs in zip(result["system"], result["repeated"], strict=True):
        assert ours == pytest.approx(theirs, rel=TOLERANCE)


def test_the_held_out_devices_measure_what_tff_measures(figures: dict[str, Any]) -> None:
    measured, order = figures["measured"], figures["order"]
    assert str(ROUNDS) in measured
    for number, metrics in measured.items():
        theirs = figures["result"]["system"][order["compared"].index(int(number))]
        assert {name: metrics[name] for name in theirs} == pytest.approx(theirs, rel=TOLERANCE)
