"""What Prometheus reads, read with Prometheus' own parser."""

from device_plan.wire_pb2 import HELD_OUT, NO_TASK
from server.telemetry.telemetry import SelectorState, Telemetry
from tests.server.telemetry.scraped import value


def test_check_ins_bytes_and_state_are_read_when_they_are_asked_for() -> None:
    telemetry = Telemetry()
    telemetry.check_ins.told("p", 0)
    telemetry.check_ins.told("p", NO_TASK)
    telemetry.check_ins.told("p", NO_TASK)
    telemetry.check_ins.told("q", HELD_OUT)
    telemetry.traffic.up("p", 100)
    telemetry.traffic.down(7)
    telemetry.selector_state = lambda: SelectorState(
        sessions={"p": {"waiting": 3, "reported": 1}},
        estimated_devices={"p": 1000.0},
        upload_memory=512,
        draining=True,
    )
    name = "nightshift_check_ins_total"
    assert value(telemetry, name, population="p", outcome="accepted", reason="") == 1
    assert value(telemetry, name, population="p", outcome="rejected", reason="NO_TASK") == 2
    assert value(telemetry, name, population="q", outcome="rejected", reason="HELD_OUT") == 1
    assert value(telemetry, "nightshift_upload_bytes_total", population="p") == 100
    assert value(telemetry, "nightshift_download_bytes_total") == 7
    assert value(telemetry, "nightshift_sessions", population="p", state="waiting") == 3
    assert value(telemetry, "nightshift_estimated_devices", population="p") == 1000
    assert value(telemetry, "nightshift_upload_memory_bytes") == 512
    assert value(telemetry, "nightshift_draining") == 1
    assert value(telemetry, "process_resident_memory_bytes") > 1e6


def test_deaths_and_failures_are_counted() -> None:
    telemetry = Telemetry()
    telemetry.failures.actor_died("coordinator", "coordinator/p", ValueError("x"))
    assert value(telemetry, "nightshift_actor_deaths_total", kind="coordinator") == 1
    kept = telemetry.failures.request_failed("GET", "/x", "mine-1", ValueError("x"))
    made = telemetry.failures.request_failed("GET", "/x", "not one\n", ValueError("x"))
    assert kept == "mine-1"
    assert made != "not one\n"
    assert value(telemetry, "nightshift_request_failures_total") == 2
