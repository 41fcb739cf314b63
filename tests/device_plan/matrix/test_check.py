"""`nightshift plan check` and `nightshift plan runtimes` as an author meets them."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from device_plan.archive import PlanArchive
from device_plan.commands import plan
from tests.house import ROOT

DIGITS = ROOT / "examples" / "digits_task.py"
NEWEST = "ai-edge-litert 2.3.0"

UNAVAILABLE = """
[[runtime]]
name = "tflite-runtime 9.0"
family = "tflite"
python = "3.99"
requirements = ["tflite-runtime==9.0"]
interpreter = "tflite_runtime.interpreter"
install = "light"
"""


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def run(*arguments: object) -> Result:
    return CliRunner(env={"COLUMNS": "160"}).invoke(plan, [str(argument) for argument in arguments])


@pytest.mark.timeout(600)
def test_a_plan_lists_the_newest_runtime_once_it_equals_tff_there(
    digits_plan: Path, tmp_path: Path
) -> None:
    before, out = digits_plan.read_bytes(), tmp_path / "out.plan"
    arguments = ("check", digits_plan, DIGITS, "--runtimes", NEWEST, "--require", NEWEST)
    result = run(*arguments, "-o", out)
    assert result.exit_code == 0, result.output
    assert digits_plan.read_bytes() == before

    checked = PlanArchive.open(out)
    listed = {entry.name: entry.relative_difference for entry in checked.manifest.runtimes}
    assert set(listed) >= {NEWEST, "tflite-runtime 2.14.0"}
    assert 0 <= listed[NEWEST] <= 1e-5
    assert checked.graph == PlanArchive.open(digits_plan).graph
    (entry,) = [entry for entry in checked.checks["checks"] if entry["name"] == "runtime matrix"]
    assert entry["figures"]["served"] == {NEWEST: "modern"}

    report = json.loads((tmp_path / "out.plan.report.json").read_text())
    assert report["digest"] == checked.digest
    measured = report["results"][0]["measured"]["default"]
    assert measured["seconds_per_step"] > 0
    assert measured["rss_bytes"] > 1e7
    # Timings are in the report alone: another run gives the same plan.
    again = tmp_path / "again.plan"
    assert run(*arguments, "-o", again).exit_code == 0
    assert again.read_bytes() == out.read_bytes()


@pytest.mark.timeout(600)
def test_a_plan_of_which_nothing_new_is_known_keeps_its_signatures(
    digits_plan: Path, tmp_path: Path
) -> None:
    archive = PlanArchive.open(digits_plan)
    # What the bytes of a signature are does not matter to who only keeps them.
    signed = archive.with_signatures(
        archive=b"signed", variants=[b"signed"] * len(archive.variants)
    )
    mine, table = tmp_path / "mine.plan", tmp_path / "table.toml"
    mine.write_bytes(signed)
    result = run("check", mine, DIGITS, "--runtimes", "none")
    assert result.exit_code == 0, result.output
    assert mine.read_bytes() == signed
    kept = next(line for line in result.output.splitlines() if line.startswith("Not repeated"))
    assert "provenance" in kept
    assert "resources: memory" in kept
    assert "equality" not in kept

    table.write_text(UNAVAILABLE)
    result = run("check", mine, DIGITS, "--table", table)
    assert result.exit_code == 0, result.output
    assert "not signed any more" in result.output
    checked = PlanArchive.open(mine)
    assert checked.signature == b""
    assert list(checked.manifest.runtimes) == list(archive.manifest.runtimes)


def test_a_required_runtime_that_cannot_be_had_fails_and_leaves_the_plan(
    digits_plan: Path, tmp_path: Path
) -> None:
    table, mine = tmp_path / "table.toml", tmp_path / "mine.plan"
    table.write_text(UNAVAILABLE)
    mine.write_bytes(digits_plan.read_bytes())
    required = ("--require", "tflite-runtime 9.0", "--runtimes", "none")
    result = run("check", mine, DIGITS, "--table", table, *required)
    assert result.exit_code == 1
    assert "required, but tflite-runtime 9.0 was not run: needs Python 3.99" in result.output
    assert mine.read_bytes() == digits_plan.read_bytes()
    report = json.loads((tmp_path / "mine.plan.report.json").read_text())
    assert report["passed"] is False
    # Once for each of the plan's variants.
    assert {found["status"] for found in report["results"]} == {"not run"}


def test_without_requirement_it_is_not_run_and_the_plan_passes(
    digits_plan: Path, tmp_path: Path
) -> None:
    table = tmp_path / "table.toml"
    table.write_text(UNAVAILABLE)
    result = run("check", digits_plan, DIGITS, "--table", table, "--no-write", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["passed"] is True
    assert report["results"][0]["status"] == "not run"
    assert report["results"][0]["measured"] == {}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--runtimes", "tflight"), "no runtime 'tflight' in the table"),
        (("--require", "tflite-runtime 9.9"), "no runtime 'tflite-runtime 9.9'"),
        (("--table", "none.toml"), "cannot read the table none.toml"),
        (("--no-write", "-o", "out.plan"), "exclude each other"),
    ],
)
def test_a_wrong_option_is_one_clear_error(
    arguments: tuple[str, ...], told: str, digits_plan: Path
) -> None:
    result = run("check", digits_plan, DIGITS, *arguments)
    assert result.exit_code == 2
    # Lines are broken where the terminal ends.
    assert told in " ".join(result.output.split())


def test_the_runtimes_are_listed_with_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    rows = json.loads(run("runtimes", "--json").output)
    newest = {row["name"]: row for row in rows}[NEWEST]
    assert newest["installed"] is False
    assert newest["environment"].startswith(f"{tmp_path}/nightshift/runtimes/ai-edge-litert-2.3.0-")
    shown = run("runtimes").output
    assert all(row["name"] in shown for row in rows)


def test_a_python_that_is_missing_is_listed_as_missing(tmp_path: Path) -> None:
    table = tmp_path / "table.toml"
    table.write_text(UNAVAILABLE)
    assert "3.99 (not found)" in run("runtimes", "--table", table).output
    (row,) = json.loads(run("runtimes", "--table", table, "--json").output)
    assert row["interpreter"] is None
