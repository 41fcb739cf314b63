"""`nightshift simulate`, as it is typed."""

import json
from pathlib import Path

import pytest

from nightshift.cli import main

FIGURES = ("summary", "by_hour", "arrivals_by_minute")


def simulate(*options: str) -> int:
    return main(["simulate", *options])


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty thousand devices for two days, with and without pace steering."""
    directory = tmp_path_factory.mktemp("fleet")
    options = ["--devices", "20000", "--days", "2", "--goal", "40", "--own-retry", "3600"]
    options += ["--step", "10"]
    written = ["-o", str(directory / "fleet.json"), "--plot", str(directory / "fleet.png")]
    assert simulate(*options, "--wake-at", "30", *written) == 0
    return directory


def test_it_writes_all_figures_and_a_picture(fleet: Path) -> None:
    result = json.loads((fleet / "fleet.json").read_text())
    assert set(result["runs"]) == {"steered", "unsteered"}
    for figures in result["runs"].values():
        assert tuple(figures) == FIGURES
        assert all(len(values) == 48 for values in figures["by_hour"].values())
        assert len(figures["arrivals_by_minute"]) == 48 * 60
        assert sum(figures["arrivals_by_minute"]) == sum(figures["by_hour"]["check_ins"])
        assert figures["summary"]["after_the_wake"]["mean_per_s"] > 0
    assert result["scenario"]["devices"] == 20_000
    assert (fleet / "fleet.png").read_bytes().startswith(b"\x89PNG")


def test_a_fleet_has_the_shape_of_the_papers(fleet: Path) -> None:
    runs = json.loads((fleet / "fleet.json").read_text())["runs"]
    steered, unsteered = (runs[name]["summary"] for name in ("steered", "unsteered"))
    # Bonawitz et al. 2019, section 9.
    assert 3 <= steered["day_factor_available"] <= 5.5
    assert 0.06 <= steered["drop_out_rate"] <= 0.10
    assert steered["rounds"]["selected_over_goal"] == pytest.approx(1.3)
    # Pace steering serves as many rounds with fewer requests, evenly over the day.
    assert steered["rounds"]["committed"] > 0.9 * unsteered["rounds"]["committed"]
    assert steered["sum_of_check_ins"] < 0.6 * unsteered["sum_of_check_ins"]
    assert steered["day_factor_check_ins"] < unsteered["day_factor_check_ins"]
    assert steered["sum_of_unsupported"] < 0.2 * unsteered["sum_of_unsupported"]


def test_the_same_seed_writes_the_same_bytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--devices", "500", "--days", "0.1", "--goal", "5", "--pace", "steered", "-o")
    for name in ("one.json", "other.json"):
        assert simulate(*options, str(tmp_path / name)) == 0
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "other.json").read_bytes()
    printed = capsys.readouterr().out
    for words in ("By hour, with pace steering", "rounds committed", "Beside Bonawitz"):
        assert words in printed


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--time-zones", "mars"), "europe"),
        (("--min-delay", "100", "--max-delay", "50"), "min_delay_s"),
        (("--selection-window", "700"), "selection_timeout_s"),
        (("-o", "/nowhere/at/all.json"), "/nowhere/at"),
        (("--devices", "0"), "--devices"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_simulated(
    options: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert simulate(*options) == 2
    assert said in capsys.readouterr().err
