"""`nightshift plan publish` against a real server."""

import json
import subprocess
from pathlib import Path

from device_plan.archive import PlanArchive
from device_plan.signing import create_key
from tests.server.live.device import Device
from tests.server.live.mean_plan import RUNTIME, plan_for
from tests.server.live.served import Server
from tests.server.live.test_operator_commands import nightshift


def plan_file(directory: Path, mean_plan: Path, population: str, *, passed: bool = True) -> Path:
    """A plan that passed its checks, or of which one failed."""
    archive = PlanArchive(plan_for(population, base=mean_plan, goal_count=1, over_selection=1.0))
    checks = {"checks": [{"name": "equality", "passed": passed, "summary": "as told"}]}
    path = directory / "mean.plan"
    path.write_bytes(
        archive.with_evidence(
            runtimes={"modern": archive.manifest.runtimes}, checks=checks, provenance=None
        )
    )
    return path


def publish(server: Server, plan: Path, *options: str) -> subprocess.CompletedProcess:
    return nightshift(server, "plan", "publish", str(plan), *options)


def test_a_plan_that_passed_is_signed_and_its_tasks_run(
    server: Server, mean_plan: Path, tmp_path: Path
) -> None:
    create_key(tmp_path / "release.pem")
    plan = plan_file(tmp_path, mean_plan, "publish/signed")
    options = ("--key", str(tmp_path / "release.pem"), "--rounds", "5", "--json")
    done = publish(server, plan, *options)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    (task_id,) = said["tasks"]
    task = server.admin.get(f"tasks/{task_id}")
    assert (task["plan_digest"], task["rounds"]) == (said["digest"], 5)
    assert said["digest"] != PlanArchive.open(plan).digest
    Device(server, "publish/signed", runtime=RUNTIME).join()


def test_for_people_the_digest_and_the_tasks_are_printed(
    server: Server, mean_plan: Path, tmp_path: Path
) -> None:
    plan = plan_file(tmp_path, mean_plan, "publish/unsigned")
    done = publish(server, plan)
    assert done.returncode == 0, done.stderr
    assert f"digest {PlanArchive.open(plan).digest}" in done.stdout
    (task,) = server.admin.get("tasks?population=publish/unsigned")["tasks"]
    assert f"task {task['task_id']} (training of publish/unsigned)" in done.stdout
    assert "Warning: the plan is not signed" in done.stderr


def test_a_plan_of_which_a_check_failed_does_not_reach_the_server(
    server: Server, mean_plan: Path, tmp_path: Path
) -> None:
    plan = plan_file(tmp_path, mean_plan, "publish/failed", passed=False)
    done = publish(server, plan)
    assert done.returncode == 1
    assert "fails the check 'equality'" in done.stderr
    assert f"nightshift plan show {plan}" in done.stderr
    assert server.admin.get("tasks?population=publish/failed")["tasks"] == []
