import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from android_stub.gate import (
    AlwaysReady,
    Closed,
    Conditions,
    ConditionsFile,
    Gate,
    GatePolicy,
)


@dataclass
class Fixed:
    value: Conditions

    def conditions(self, now: float) -> Conditions:  # noqa: ARG002
        return self.value

    def next_change(self, now: float) -> float | None:  # noqa: ARG002
        return None


@pytest.mark.parametrize(
    ("idle", "charging", "unmetered"), list(itertools.product((True, False), repeat=3))
)
def test_gate_is_open_only_if_idle_and_charging_and_unmetered(idle, charging, unmetered):
    gate = Gate(source=Fixed(Conditions(idle=idle, charging=charging, unmetered=unmetered)))
    expected = None
    if not unmetered:
        expected = Closed.METERED
    if not charging:
        expected = Closed.NOT_CHARGING
    if not idle:
        expected = Closed.IN_USE
    assert gate.check(0.0) is expected


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"battery_percent": 29}, Closed.BATTERY_LOW),
        ({"battery_percent": 30}, None),
        ({"hot": True}, Closed.HOT),
        ({"free_bytes": (100 << 20) - 1}, Closed.DISK_FULL),
        ({"free_bytes": 100 << 20}, None),
    ],
)
def test_battery_heat_and_disk_close_the_gate_at_their_thresholds(changed, expected):
    conditions = Conditions(idle=True, charging=True, unmetered=True, **changed)
    assert Gate(source=Fixed(conditions)).check(0.0) is expected


def test_policy_moves_the_thresholds():
    low = Conditions(idle=True, charging=True, unmetered=True, battery_percent=10)
    policy = GatePolicy(min_battery_percent=5)
    assert Gate(source=Fixed(low), policy=policy).check(0.0) is None


def test_a_test_bench_device_is_always_ready():
    assert Gate(source=AlwaysReady()).check(1e9) is None
    assert Gate(source=AlwaysReady()).next_change(1e9) is None


def test_a_conditions_file_is_read_at_every_look(tmp_path: Path):
    path = tmp_path / "conditions.json"
    gate = Gate(source=ConditionsFile(path))
    assert gate.check(0.0) is Closed.IN_USE
    path.write_text(json.dumps({"idle": True, "charging": True, "unmetered": True}))
    assert gate.check(0.0) is None
    path.write_text(json.dumps({"idle": True, "charging": True, "unmetered": False}))
    assert gate.check(0.0) is Closed.METERED


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "3",
        "{",
        '{"idle": true}',
        '{"idle": "yes", "charging": true, "unmetered": true}',
        '{"idle": true, "charging": true, "unmetered": true, "battery_percent": "x"}',
    ],
)
def test_a_conditions_file_that_makes_no_sense_closes_the_gate(tmp_path: Path, text: str):
    path = tmp_path / "conditions.json"
    path.write_text(text)
    assert Gate(source=ConditionsFile(path)).check(0.0) is not None
