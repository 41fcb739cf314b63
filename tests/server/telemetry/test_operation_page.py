"""docs/operation.md names the metrics and events that there are."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_plan.wire_pb2 import NO_TASK
from server.storage.database import open_database
from server.storage.registry import Registry
from server.telemetry.rounds import RoundMetrics
from server.telemetry.telemetry import SelectorState, Telemetry
from tests.house import ROOT
from tests.server.storage.conftest import create_tasks

PAGE = (ROOT / "docs" / "operation.md").read_text()


@pytest.fixture
def lively(tmp_path: Path) -> Iterator[Telemetry]:
    """One with a sample of each metric."""
    telemetry = Telemetry()
    telemetry.check_ins.told("p", NO_TASK)
    telemetry.traffic.up("p", 1)
    telemetry.selector_state = lambda: SelectorState(
        sessions={"p": {"waiting": 1}}, estimated_devices={"p": 1.0}
    )
    telemetry.failures.actor_died("coordinator", "coordinator/p", None)
    telemetry.failures.request_failed("GET", "/", "", ValueError())
    engine = open_database(f"sqlite:///{tmp_path}/nightshift.db")
    registry = Registry(engine=engine)
    metrics = RoundMetrics(registry, telemetry.metrics)
    task = create_tasks(registry).evaluation
    lease = registry.leases.acquire("coordinator/digits/demo", "me", 60.0)
    assert lease
    statistics = {"selected": 2, "target": 2, "seconds": {"reporting": 1.0}}
    registry.rounds.abandon(
        lease, registry.rounds.open(lease, task, 1, 0), "too_few_updates", statistics
    )
    metrics.read()
    yield telemetry
    engine.dispose()


def test_the_table_of_metrics_is_complete_and_has_their_labels(lively: Telemetry) -> None:
    listed = {
        name: set(re.findall(r"`(\w+)`", labels))
        for name, labels in re.findall(r"^\| `(nightshift_\w+)` \|([^|]*)\|", PAGE, re.MULTILINE)
    }
    exposed: dict[str, set[str]] = {}
    for line in lively.exposition().decode().splitlines():
        match = re.match(r"(nightshift_\w+?)(?:_bucket|_sum|_count)?(?:\{(.*)\})? ", line)
        if match:
            exposed.setdefault(match[1], set()).update(re.findall(r"(\w+)=", match[2] or ""))
    for labels in exposed.values():
        labels.discard("le")
    assert listed == exposed


def test_the_alerts_ask_for_metrics_that_there_are() -> None:
    listed = set(re.findall(r"^\| `(nightshift_\w+)`", PAGE, re.MULTILINE))
    (rules,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    asked = set(re.findall(r"nightshift_\w+", rules))
    assert asked
    assert asked <= listed


def test_the_table_of_events_is_complete() -> None:
    told: set[str] = set()
    for path in (ROOT / "server").rglob("*.py"):
        text = path.read_text()
        if "event_log(" in text:
            told |= set(re.findall(r'(?:_log\.\w+|say)\(\s*f?"([a-z_{}.]+)"', text))
    told.remove("round_{outcome}")
    told |= {"round_committed", "round_abandoned"}
    _, _, section = PAGE.partition("## The log")
    rows = re.findall(r"^\| (`.*?) \|", section.partition("\n## ")[0], re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == told
