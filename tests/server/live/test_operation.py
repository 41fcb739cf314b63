"""What a running server says of itself, and what the doctor says of it."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.house import ROOT
from tests.server.live.device import Device, request
from tests.server.live.mean_plan import plan_for
from tests.server.live.rounds import LiveRound, assemble
from tests.server.live.scraping import metric
from tests.server.live.served import DeployedTask, Server
from tests.server.live.waiting import eventually


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """For tests that leave it as it was."""
    server = Server(tmp_path_factory.mktemp("operated"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """For a test that does something to it."""
    server = Server(tmp_path)
    server.start()
    yield server
    server.stop()


def deployed(server: Server, plan: Path, population: str) -> DeployedTask:
    eventually(lambda: server.status("/readyz") == 200)
    return server.deploy(
        plan_for(f"operation/{population}", base=plan, goal_count=2, over_selection=1.0)
    )


def commit_a_round(task: DeployedTask) -> LiveRound:
    """And no other, that would be abandoned in time."""
    live = assemble(task, 2)
    live.finish()
    live.assert_committed()
    task.act("cancel")
    return live


def doctor(server: Server, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Its exit code, and its findings by check."""
    command = [sys.executable, "-m", "nightshift", "doctor", "--json"]
    command += ["--data-dir", str(server.data), "--port", str(server.port), *arguments]
    run = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert run.returncode in (0, 1), run.stderr
    findings = json.loads(run.stdout)["findings"]
    return run.returncode, {finding["check"]: finding for finding in findings}


def test_metrics_tell_what_devices_did(server: Server, mean_plan: Path) -> None:
    task = deployed(server, mean_plan, "metrics")
    live = assemble(task, 2)
    device = live.devices[0]
    population = {"population": task.population}
    accepted = metric(server, "nightshift_check_ins_total", outcome="accepted", **population)
    assert accepted >= 2
    assert metric(server, "nightshift_sessions", state="selected", **population) == 2
    live.finish()
    live.assert_committed()
    assert metric(server, "nightshift_upload_bytes_total", **population) == 2 * len(device.data)
    plan = device.assignment.plan
    before = metric(server, "nightshift_download_bytes_total")
    got = request(server.port, "GET", f"/v1/blobs/{plan.sha256}")
    assert metric(server, "nightshift_download_bytes_total") - before == len(got.body)
    headers = {"Range": "bytes=0-9"}
    assert len(request(server.port, "GET", f"/v1/blobs/{plan.sha256}", headers=headers).body) == 10
    assert metric(server, "nightshift_download_bytes_total") - before == len(got.body) + 10
    refused = {"population": "", "outcome": "rejected", "reason": "UNKNOWN_POPULATION"}
    assert Device(server, "made/up").check_in().status == 404
    assert metric(server, "nightshift_check_ins_total", **refused) == 1
    task.act("cancel")
    of_task = {"task": task.task_id}
    ended = eventually(
        lambda: metric(server, "nightshift_rounds_total", outcome="committed", **of_task)
    )
    assert ended == 1
    for fate in ("selected", "accepted"):
        assert metric(server, "nightshift_round_devices_total", fate=fate, **of_task) == 2
    assert metric(server, "nightshift_round_target_devices", **of_task) == 2
    assert metric(server, "nightshift_round_drop_out_ratio", **of_task) == 0
    assert metric(server, "nightshift_lease_held", **population) == 1
    assert metric(server, "nightshift_lease_epoch", **population) == 1
    for phase in ("selecting", "reporting", "updating"):
        assert metric(server, "nightshift_round_phase_seconds_count", phase=phase) >= 1
    events = [
        line["event"]
        for line in map(json.loads, server.log.read_text().splitlines())
        if line.get("round_id") == live.round_id
    ]
    told = ["round_opened", "round_configured", "round_closed", "round_committed"]
    assert events == told
    assert not server.errors()


def test_no_log_line_holds_a_devices_key_id_or_token(server: Server, mean_plan: Path) -> None:
    live = commit_a_round(deployed(server, mean_plan, "log"))
    log = server.log.read_text()
    for device in live.devices:
        for secret in (device.key, device.token, device.session_id):
            assert secret not in log
    for line in log.splitlines():
        assert {"at", "level", "event", "logger"} <= json.loads(line).keys()


def test_a_mistake_of_ours_is_found_in_the_log_by_the_requests_id(
    own_server: Server, mean_plan: Path
) -> None:
    server, task = own_server, deployed(own_server, mean_plan, "mistake")
    shutil.rmtree(server.data / "blobs")
    token = json.loads((server.data / "secrets.json").read_text())["admin_token"]
    reply = request(
        server.port,
        "GET",
        f"/v1/admin/tasks/{task.task_id}/models/0/weights",
        headers={"Authorization": f"Bearer {token}", "X-Request-Id": "of-the-proxy.7"},
    )
    assert reply.status == 500
    assert "of-the-proxy.7" in reply.error.message
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    (failure,) = [line for line in lines if line["event"] == "request_failed"]
    assert failure["request_id"] == "of-the-proxy.7"
    assert failure["level"] == "error"
    assert "BlobNotFound" in failure["exception"]
    assert token not in json.dumps(failure)
    assert metric(server, "nightshift_request_failures_total") == 1


def test_probes_name_each_check_with_its_detail(server: Server) -> None:
    eventually(lambda: server.status("/readyz") == 200)
    for path, checks in (
        ("/healthz", {"actors", "selector"}),
        ("/readyz", {"accepting", "database", "blobs", "leases", "model_update"}),
    ):
        answer = json.loads(request(server.port, "GET", path).body)
        assert set(answer["checks"]) == checks
        for result in answer["checks"].values():
            assert result["ok"]
            assert result["detail"]


def test_a_server_whose_model_update_died_is_not_ready_until_it_has_another(
    own_server: Server,
) -> None:
    server = own_server
    eventually(lambda: server.status("/readyz") == 200)
    first = eventually(server.model_update)
    first.kill()
    eventually(lambda: server.status("/readyz") == 503)
    assert server.status("/healthz") == 200
    eventually(lambda: server.status("/readyz") == 200)
    assert eventually(server.model_update).pid != first.pid


def test_the_doctor_finds_a_good_server_good_and_a_dead_one_wrong(
    own_server: Server, mean_plan: Path
) -> None:
    server, task = own_server, deployed(own_server, mean_plan, "doctor")
    commit_a_round(task)
    eventually(lambda: server.status("/readyz") == 200)
    url = f"http://127.0.0.1:{server.port}"
    code, found = doctor(server, "--server", url)
    assert code == 0, found
    assert found[f"server {url}"]["status"] == "fine"
    assert found[f"address 127.0.0.1:{server.port}"]["status"] == "fine"
    assert found[f"population {task.population}"]["status"] == "fine"
    assert [check for check in found if check.startswith("rounds")] == ["rounds"], found
    assert found["rounds"]["status"] == "fine"
    assert re.search("epoch 1", found[f"population {task.population}"]["detail"])

    server.kill()

    def noticed() -> bool:
        code, found = doctor(server, "--server", url)
        assert code == 1
        assert found[f"server {url}"]["status"] == "wrong"
        return bool(found[f"population {task.population}"]["status"] == "wrong")

    assert eventually(noticed)


def test_the_doctor_reads_rounds_from_the_operators_api_where_there_is_no_database(
    server: Server, mean_plan: Path, tmp_path: Path
) -> None:
    commit_a_round(deployed(server, mean_plan, "elsewhere"))
    token = json.loads((server.data / "secrets.json").read_text())["admin_token"]
    url = f"http://127.0.0.1:{server.port}"
    elsewhere = ["--data-dir", str(tmp_path / "none"), "--admin-token", token]
    code, found = doctor(server, "--server", url, *elsewhere)
    assert code == 0, found
    assert found["database"]["status"] == "skipped"
    assert [check for check in found if check.startswith("rounds")] == ["rounds"], found
    assert found["rounds"]["status"] == "fine"
