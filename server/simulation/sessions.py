"""What becomes of devices that were selected: how long they take, and who drops out."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from server.simulation.availability import HOUR_MS, Availability, Devices, Times
from server.simulation.scenario import Scenario


class Fate(IntEnum):
    """How a session ends if the round waits for it."""

    #: The update arrives.
    UPLOADED = 0
    #: Someone picks the phone up or unplugs it; the device says so.
    INTERRUPTED = 1
    #: Computing fails; the device says so.
    FAILED = 2
    #: The network loses the device; nobody says anything.
    VANISHED = 3


@dataclass(frozen=True)
class Sessions:
    """The sessions of one round, in the order in which they end."""

    devices: Devices
    ends: Times
    fates: NDArray[np.int8]


class Fates:
    """Draws what becomes of sessions.

    Args:
        scenario: Durations and chances.
        availability: Tells day from night where a device is.
        until: Until when each device is available.
    """

    def __init__(self, scenario: Scenario, availability: Availability, until: Times) -> None:
        self._scenario = scenario
        self._availability = availability
        self._until = until
        self._rng = np.random.default_rng([scenario.seed, 3])
        rng = np.random.default_rng([scenario.seed, 4])
        self._speed = rng.standard_normal(scenario.devices, np.float32)

    def draw(self, devices: Devices, now_ms: int) -> Sessions:
        """The sessions that devices begin now."""
        scenario, rng, count = self._scenario, self._rng, len(devices)
        logarithm = scenario.speed_sd * self._speed[devices]
        logarithm = logarithm + scenario.session_sd * rng.standard_normal(count)
        lasts = scenario.session_s * np.exp(logarithm) * 1000
        by_day = self._availability.by_day(devices, np.full(count, now_ms, np.int32))
        per_hour = np.where(by_day, scenario.pickups_per_hour_day, scenario.pickups_per_hour_night)
        picked_up = rng.exponential(1.0, count) * HOUR_MS / np.maximum(per_hour, 1e-9)
        interrupted = np.minimum(picked_up, self._until[devices] - now_ms)
        fails = rng.random(count)
        lost = rng.random(count) < scenario.loss
        fates = np.where(lost, Fate.VANISHED, Fate.UPLOADED).astype(np.int8)
        failing = fails < scenario.failures
        # A failure shows anywhere in the computation.
        lasts = np.where(failing, lasts * fails / max(scenario.failures, 1e-9), lasts)
        fates[failing] = Fate.FAILED
        cut = interrupted < lasts
        fates[cut] = Fate.INTERRUPTED
        ends = now_ms + np.minimum(np.where(cut, interrupted, lasts), 1e9)
        order = np.argsort(ends, kind="stable")
        return Sessions(devices[order], ends[order].astype(np.int32), fates[order])
