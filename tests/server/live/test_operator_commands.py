"""`nightshift task` and `nightshift models` against a real server."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from device_plan.checkpoint import decode
from tests.house import ROOT
from tests.server.live.mean_plan import plan_for
from tests.server.live.rounds import assemble
from tests.server.live.served import DeployedTask, Server


def nightshift(server: Server, *arguments: str, token: bool = True) -> subprocess.CompletedProcess:
    where = ["--server", f"http://127.0.0.1:{server.port}"]
    where += ["--data-dir", str(server.data)] if token else ["--admin-token", "wrong"]
    return subprocess.run(
        [sys.executable, "-m", "nightshift", *arguments, *where],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def plan_file(tmp_path: Path, mean_plan: Path, population: str) -> str:
    path = tmp_path / "mean.plan"
    path.write_bytes(plan_for(population, base=mean_plan, goal_count=2, over_selection=1.0))
    return str(path)


def test_an_operator_deploys_watches_pauses_and_fetches(
    server: Server, mean_plan: Path, tmp_path: Path
) -> None:
    plan = plan_file(tmp_path, mean_plan, "commands/whole")
    created = nightshift(server, "task", "create", plan, "--rounds", "7", "--json")
    assert created.returncode == 0, created.stderr
    (described,) = json.loads(created.stdout)
    assert (described["rounds"], described["status"]) == (7, "active")
    task_id = described["task_id"]

    live = assemble(DeployedTask(server, task_id, "commands/whole"), 2)
    live.finish()
    live.assert_committed()

    listed = nightshift(server, "task", "list", "--population", "commands/whole")
    assert task_id in listed.stdout
    assert "1 of 7" in listed.stdout
    shown = json.loads(nightshift(server, "task", "show", task_id, "--json").stdout)
    assert shown["rounds_history"][0]["outcome"] == "committed"
    assert "committed" in nightshift(server, "task", "show", task_id).stdout

    models = json.loads(nightshift(server, "models", "list", task_id, "--json").stdout)
    assert [model["round"] for model in models] == [0, 1]
    assert json.loads(nightshift(server, "models", "show", task_id, "1").stdout)["round"] == 1
    target = tmp_path / "model.safetensors"
    fetched = nightshift(server, "models", "get", task_id, "1", "-o", str(target))
    assert str(target) in fetched.stdout
    weights = decode(target.read_bytes())["weights"]
    np.testing.assert_array_equal(weights, DeployedTask(server, task_id, "").weights(1))

    for action, status in (("pause", "paused"), ("resume", "active"), ("cancel", "cancelled")):
        done = nightshift(server, "task", action, task_id, "--json")
        assert json.loads(done.stdout)[0]["status"] == status
    again = nightshift(server, "task", "resume", task_id)
    assert again.returncode == 1
    assert "is cancelled" in again.stderr


def test_what_is_wrong_is_said_in_one_sentence(
    server: Server, mean_plan: Path, tmp_path: Path
) -> None:
    plan = plan_file(tmp_path, mean_plan, "commands/wrong")
    damaged = tmp_path / "damaged.plan"
    damaged.write_bytes(Path(plan).read_bytes()[:1000])
    cases = [
        (nightshift(server, "task", "create", str(damaged)), "not a plan"),
        (nightshift(server, "task", "show", "no-such-task"), "no task 'no-such-task'"),
        (nightshift(server, "models", "show", "no-such-task", "1"), "no-such-task"),
        (nightshift(server, "task", "list", token=False), "admin token"),
    ]
    for done, sentence in cases:
        assert done.returncode == 1, done.stdout
        assert sentence in done.stderr
        assert "Traceback" not in done.stderr


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    absent = Server(tmp_path)
    done = nightshift(absent, "task", "list", token=False)
    assert done.returncode == 1
    assert f"cannot reach the server at http://127.0.0.1:{absent.port}" in done.stderr
    done = nightshift(absent, "task", "list")
    assert done.returncode == 1
    assert "no admin token" in done.stderr
