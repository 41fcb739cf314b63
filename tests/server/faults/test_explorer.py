"""The explorer, run as its command is, finds nothing in the server and whatever is planted."""

import os
import subprocess
import sys

import pytest

from tests.house import ROOT
from tests.server.faults.explorer import catalogue, run
from tests.server.faults.fault import Fault
from tests.server.faults.setting import SETTINGS, Setting


def explore(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.server.faults", *options],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.timeout(900)
def test_two_thousand_schedules_of_faults_break_no_promise() -> None:
    done = explore("--schedules", "2000", "--seed", "0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2000 schedules from seed 0" in done.stdout


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("plant", "invariant"),
    [
        ("no-fence", "no commit by a stale lease holder"),
        ("double-count", "a device counts at most once a round"),
        ("slot-leak", "nothing is left at rest"),
    ],
)
def test_a_planted_bug_is_found(plant: str, invariant: str) -> None:
    done = explore("--schedules", "1000", "--seed", "0", "--first", "--plant", plant)
    assert done.returncode == 1, done.stdout + done.stderr
    assert invariant in done.stdout
    assert "--replay" in done.stdout


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_whatever_a_store_is_asked_may_reach_it_twice(setting: Setting) -> None:
    for point, times in catalogue(setting).items():
        if point.startswith("store "):
            for occurrence in {1, min(2, times)}:
                outcome = run(setting, 0, [Fault(point, occurrence, "repeat", 0.0)])
                assert not outcome.violations, (point, occurrence, outcome.violations[0])


def test_a_seed_means_the_same_run_in_every_process() -> None:
    one, other = (explore("--replay", "5") for _ in range(2))
    assert len(one.stdout.splitlines()) > 100
    assert one.stdout == other.stdout
