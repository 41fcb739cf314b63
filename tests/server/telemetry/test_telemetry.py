"""What Prometheus reads, read with Prometheus' own parser."""

from collections.abc import Mapping

import pytest
import urllib3
from prometheus_client.parser import text_string_to_metric_families

from device_plan.wire_pb2 import HELD_OUT, NO_TASK
from server.telemetry.check_ins import OTHERS
from server.telemetry.rounds import MAX_TASKS, RoundEnd
from server.telemetry.telemetry import SelectorState, Telemetry


def samples(telemetry: Telemetry) -> dict[str, dict[frozenset[tuple[str, str]], float]]:
    """Values by metric and labels."""
    found: dict[str, dict[frozenset[tuple[str, str]], float]] = {}
    for family in text_string_to_metric_families(telemetry.exposition().decode()):
        assert family.documentation, family.name
        for sample in family.samples:
            found.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return found


def value(telemetry: Telemetry, name: str, **labels: str) -> float:
    return samples(telemetry)[name][frozenset(labels.items())]


def ended(task: str = "t", **more: object) -> RoundEnd:
    fields: dict[str, object] = {
        "population": "p",
        "task_id": task,
        "computation": "training",
        "round_id": "t.r1",
        "number": 1,
        "outcome": "committed",
        "seconds": 12.0,
        **more,
    }
    return RoundEnd(**fields)  # type: ignore[arg-type]


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


def test_rounds_are_counted_by_outcome_and_reason_with_their_devices_and_phases() -> None:
    telemetry = Telemetry()
    statistics: Mapping[str, object] = {
        "selected": 13,
        "accepted": 10,
        "unfinished": 1,
        "dropped": 2,
        "target": 13,
        "ended": {"aborted": 1, "rejected": 1},
        "seconds": {"selecting": 4.0, "reporting": 8.0},
        "closed_by": "goal_reached",
        "abandoned_for": None,
    }
    for name in ("t.r1", "t.r2", "t.r3"):
        telemetry.rounds.opened(population="p", task_id="t", round_id=name, number=1, target=13)
    telemetry.rounds.ended(ended(statistics=statistics))
    telemetry.rounds.ended(ended(round_id="t.r2", outcome="abandoned", reason="too_few_devices"))
    name = "nightshift_rounds_total"
    assert value(telemetry, name, task="t", outcome="committed", reason="") == 1
    assert value(telemetry, name, task="t", outcome="abandoned", reason="too_few_devices") == 1
    assert value(telemetry, "nightshift_rounds_open") == 1
    for fate, count in (("selected", 13), ("accepted", 10), ("aborted", 1), ("dropped", 2)):
        assert value(telemetry, "nightshift_round_devices_total", task="t", fate=fate) == count
    assert value(telemetry, "nightshift_round_target_devices", task="t") == 13
    assert value(telemetry, "nightshift_round_drop_out_ratio", task="t") == pytest.approx(2 / 13)
    phase = {"computation": "training", "phase": "reporting"}
    assert value(telemetry, "nightshift_round_phase_seconds_sum", **phase) == 8
    assert value(telemetry, "nightshift_round_phase_seconds_count", **phase) == 1


def test_model_updates_leases_deaths_and_failures_are_counted() -> None:
    telemetry = Telemetry()
    telemetry.rounds.updated(round_id="r", computation="training", seconds=0.5)
    telemetry.rounds.updated(round_id="r", computation="training", seconds=1.0, failure="NaN")
    count = "nightshift_model_update_seconds_count"
    for outcome in ("done", "failed"):
        assert value(telemetry, count, computation="training", outcome=outcome) == 1
    telemetry.leases.acquired("p", 3)
    telemetry.leases.acquired("q", 5)
    telemetry.leases.lost("p", 3, "it expired")
    telemetry.leases.released("q", 5)
    telemetry.leases.acquired("q", 6)
    assert value(telemetry, "nightshift_lease_epoch", population="p") == 3
    assert value(telemetry, "nightshift_lease_held", population="p") == 0
    assert value(telemetry, "nightshift_lease_epoch", population="q") == 6
    assert value(telemetry, "nightshift_lease_held", population="q") == 1
    telemetry.failures.actor_died("coordinator", "coordinator/p", ValueError("x"))
    assert value(telemetry, "nightshift_actor_deaths_total", kind="coordinator") == 1
    kept = telemetry.failures.request_failed("GET", "/x", "mine-1", ValueError("x"))
    made = telemetry.failures.request_failed("GET", "/x", "not one\n", ValueError("x"))
    assert kept == "mine-1"
    assert made != "not one\n"
    assert value(telemetry, "nightshift_request_failures_total") == 2


def test_tasks_beyond_the_bound_are_counted_together() -> None:
    telemetry = Telemetry()
    for number in range(MAX_TASKS + 20):
        telemetry.rounds.ended(ended(task=f"task {number}"))
    totals = samples(telemetry)["nightshift_rounds_total"]
    assert len(totals) == MAX_TASKS + 1
    assert (
        value(telemetry, "nightshift_rounds_total", task=OTHERS, outcome="committed", reason="")
        == 20
    )


def test_a_process_without_a_web_server_can_show_its_metrics() -> None:
    telemetry = Telemetry()
    telemetry.leases.acquired("p", 3)
    port = telemetry.serve("127.0.0.1", 0)
    answer = urllib3.request("GET", f"http://127.0.0.1:{port}/metrics", retries=False)
    assert 'nightshift_lease_epoch{population="p"} 3.0' in answer.data.decode()
