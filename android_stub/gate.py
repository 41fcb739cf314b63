"""The gate: a device takes part only while nobody would notice.

Idle, charging and on an unmetered network (Bonawitz et al. 2019, §3), with
enough battery, cool and with room on the disk. The gate is asked before a
check-in, at every poll, before every training batch and before an upload.
"""

import json
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What the operating system says of the device at one moment."""

    idle: bool
    charging: bool
    unmetered: bool
    #: 0 to 100.
    battery_percent: int = 100
    #: True from Android's THERMAL_STATUS_MODERATE on.
    hot: bool = False
    #: Bytes that may still be written.
    free_bytes: int = 1 << 40


class Closed(Enum):
    """Why the gate is closed; the value is a phrase for people."""

    IN_USE = "in use"
    NOT_CHARGING = "not charging"
    METERED = "on a metered network"
    BATTERY_LOW = "battery low"
    HOT = "too hot"
    DISK_FULL = "too little free space"


class ConditionSource(Protocol):
    """Where conditions come from: the system, a file, or a simulated night."""

    def conditions(self, now: float) -> Conditions: ...

    def next_change(self, now: float) -> float | None:
        """When the conditions may next differ (seconds, the clock of `now`); None: unknown."""


@dataclass(frozen=True, kw_only=True)
class GatePolicy:
    """Thresholds; the defaults are those of Android's federated compute service."""

    min_battery_percent: int = 30
    min_free_bytes: int = 100 << 20


class Gate:
    """Turns conditions into open, or closed and why."""

    def __init__(self, *, source: ConditionSource, policy: GatePolicy | None = None) -> None:
        self._source = source
        self._policy = policy or GatePolicy()

    def check(self, now: float) -> Closed | None:
        """None while the gate is open; the first reason otherwise.

        Args:
            now: Seconds on the clock that the source was made for.
        """
        seen = self._source.conditions(now)
        if not seen.idle:
            return Closed.IN_USE
        if not seen.charging:
            return Closed.NOT_CHARGING
        if not seen.unmetered:
            return Closed.METERED
        if seen.battery_percent < self._policy.min_battery_percent:
            return Closed.BATTERY_LOW
        if seen.hot:
            return Closed.HOT
        if seen.free_bytes < self._policy.min_free_bytes:
            return Closed.DISK_FULL
        return None

    def next_change(self, now: float) -> float | None:
        return self._source.next_change(now)


class AlwaysReady:
    """Idle, charging and unmetered for ever: a device on a test bench."""

    def conditions(self, now: float) -> Conditions:  # noqa: ARG002 (the protocol's argument)
        return Conditions(idle=True, charging=True, unmetered=True)

    def next_change(self, now: float) -> float | None:  # noqa: ARG002
        return None


class ConditionsFile:
    """Conditions in a JSON file that a person edits while the device runs.

    The keys are the fields of `Conditions`, e.g.
    ``{"idle": true, "charging": true, "unmetered": false}``. A missing or
    unreadable file closes the gate, as a system that does not answer would.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def conditions(self, now: float) -> Conditions:  # noqa: ARG002
        try:
            read = json.loads(self._path.read_text())
            return Conditions(
                idle=read["idle"] is True,
                charging=read["charging"] is True,
                unmetered=read["unmetered"] is True,
                battery_percent=int(read.get("battery_percent", 100)),
                hot=read.get("hot", False) is not False,
                free_bytes=int(read.get("free_bytes", 1 << 40)),
            )
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return Conditions(idle=False, charging=False, unmetered=False)

    def next_change(self, now: float) -> float | None:
        return now + 1.0
