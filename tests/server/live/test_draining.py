"""A server that gets SIGTERM lets uploads end, sends other devices away, and ends."""

import json
import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import urllib3

from device_plan import wire_pb2 as wire
from tests.server.live.device import Device, request
from tests.server.live.mean_plan import plan_for
from tests.server.live.rounds import LiveRound, assemble
from tests.server.live.served import FAST, Server
from tests.server.live.waiting import eventually

Start = Callable[..., Server]

#: Seconds; a test that waited for so long would fail.
LONG = 600


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    servers = []

    def start(*, drain_s: float, drain_min_s: float = 0.0) -> Server:
        options = ("--drain-s", str(drain_s), "--drain-min-s", str(drain_min_s))
        server = Server(tmp_path, (*FAST, *options))
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.kill()


def computed(server: Server, plan: Path) -> LiveRound:
    """A round of two devices, one of which has computed its update and said so."""
    name = "draining/mean"
    task = server.deploy(plan_for(name, base=plan, goal_count=2, over_selection=1.0))
    live = assemble(task, 2)
    assert live.devices[0].report().status == 200
    return live


def logged(server: Server) -> list[dict[str, object]]:
    lines = server.log.read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def end_of_drain(server: Server) -> dict[str, object]:
    (end,) = [line for line in logged(server) if line["event"] == "drain_ended"]
    return end


def drains(server: Server) -> bool:
    return server.status("/readyz") == 503


def test_an_upload_under_way_ends_and_new_devices_are_sent_away(
    start: Start, mean_plan: Path
) -> None:
    server = start(drain_s=LONG)
    eventually(lambda: server.status("/readyz") == 200)
    device = computed(server, mean_plan).devices[0]
    server.process.terminate()
    eventually(lambda: drains(server))
    assert server.status("/healthz") == 200
    url = f"http://127.0.0.1:{server.port}/readyz"
    ready = json.loads(urllib3.request("GET", url, retries=False).data)
    assert not ready["checks"]["accepting"]["ok"]
    assert ready["checks"]["database"]["ok"]

    told = Device(server, device.population).check_in().read(wire.CheckInResponse)
    assert told.rejection.reason == wire.DRAINING
    window = told.retry_windows.if_rejected
    assert 0 < window.min_delay_ms < window.max_delay_ms <= 10_000
    assert told.retry_windows.if_accepted.max_delay_ms > 0
    stranger = Device(server, "no/such").check_in()
    assert stranger.reason == "UNKNOWN_POPULATION"
    metrics = request(server.port, "GET", "/metrics").body.decode()
    counted = f'{{outcome="rejected",population="{device.population}",reason="DRAINING"}} 1.0'
    assert f"nightshift_check_ins_total{counted}" in metrics
    assert "nightshift_draining 1.0" in metrics

    assert device.upload().status == 200
    assert device.submit().status == 200
    assert server.process.wait(30) == 0
    assert end_of_drain(server)["uploads_lost"] == 0
    assert not server.errors()


def test_what_is_only_in_memory_is_stored_and_the_lease_given_back(
    start: Start, mean_plan: Path
) -> None:
    server = start(drain_s=LONG)
    device = computed(server, mean_plan).devices[0]
    server.process.terminate()
    eventually(lambda: drains(server))
    session = wire.SessionEvents(population=device.population, session_id="s", shape="-v[]+^")
    reply = request(
        server.port,
        "POST",
        "/v1/events",
        headers={"Authorization": f"Bearer {device.key}"},
        body=wire.EventsRequest(sessions=[session]).SerializeToString(),
    )
    assert reply.status == 200
    device.abort()
    assert server.process.wait(30) == 0
    with sqlite3.connect(server.data / "nightshift.db") as database:
        assert database.execute("SELECT shape, count FROM session_shapes").fetchall() == [
            ("-v[]+^", 1)
        ]
        assert database.execute("SELECT owner FROM leases").fetchall() == [("",)]


def test_a_device_that_never_uploads_holds_the_end_up_only_so_long(
    start: Start, mean_plan: Path
) -> None:
    server = start(drain_s=0.5)
    computed(server, mean_plan)
    server.process.terminate()
    assert server.process.wait(30) == 0
    assert end_of_drain(server)["uploads_lost"] == 1


def test_a_load_balancer_is_given_time_to_notice(start: Start) -> None:
    server = start(drain_s=LONG, drain_min_s=LONG)
    server.process.terminate()
    eventually(lambda: drains(server))
    # Nothing is under way, and still it answers, until somebody is impatient.
    assert server.status("/healthz") == 200
    assert server.process.poll() is None
    server.process.terminate()
    assert server.process.wait(30) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(
    start: Start, mean_plan: Path, number: signal.Signals
) -> None:
    server = start(drain_s=LONG)
    computed(server, mean_plan)
    server.process.terminate()
    eventually(lambda: drains(server))
    server.process.send_signal(number)
    assert server.process.wait(30) == 0
    assert not [line for line in logged(server) if line["event"] == "drain_ended"]


def test_a_supervisor_that_signals_every_process_does_not_cut_the_drain_short(
    start: Start, mean_plan: Path
) -> None:
    server = start(drain_s=LONG)
    model_update = eventually(server.model_update)
    device = computed(server, mean_plan).devices[0]
    os.killpg(server.process.pid, signal.SIGTERM)
    eventually(lambda: drains(server))
    assert model_update.is_running()
    assert device.upload().status == 200
    assert device.submit().status == 200
    assert server.process.wait(30) == 0
    assert end_of_drain(server)["uploads_lost"] == 0
