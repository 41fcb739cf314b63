"""What is simulated: the fleet, the task, the network, and how the server paces devices."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from device_plan.cohort import CohortPolicy
from server.protocol.pace_steering import PacePolicy

#: Offsets from UTC in hours, with the share of the devices that live there.
TimeZones = Mapping[float, float]

#: Time zones to choose from. Shares of people, rounded; the first is the population
#: that the paper's figures are about.
TIME_ZONES: Mapping[str, TimeZones] = {
    "us": {-5.0: 0.47, -6.0: 0.29, -7.0: 0.07, -8.0: 0.17},
    "europe": {0.0: 0.16, 1.0: 0.62, 2.0: 0.22},
    "india": {5.5: 1.0},
    "world": {
        **{-8.0: 0.02, -6.0: 0.05, -5.0: 0.06, -3.0: 0.06, 0.0: 0.06, 1.0: 0.12, 2.0: 0.08},
        **{3.0: 0.08, 5.5: 0.21, 7.0: 0.06, 8.0: 0.16, 9.0: 0.04},
    },
    "one": {0.0: 1.0},
}


@dataclass(frozen=True, kw_only=True)
class Habits:
    """When devices are idle, charging and on an unmetered network. Local hours.

    A device has a night and, on some days, an hour or more by day. The
    mean beginning and length of its nights are its owner's and drawn once;
    each night then differs from them a little.

    Raises:
        ValueError: a value is out of its range; the message names it.
    """

    #: Nights on which the device is left charging.
    night_share: float = 0.65
    #: When the night begins, and its standard deviation over owners.
    night_begins: float = 23.0
    night_begins_sd: float = 1.8
    #: How long it lasts, and its standard deviation over owners.
    night_hours: float = 7.5
    night_hours_sd: float = 1.5
    #: Standard deviation from one night of an owner to the next, of both.
    night_to_night_sd: float = 0.5
    #: Days on which the device is also left charging by day, between 8 and 22.
    day_share: float = 0.9
    #: How long that lasts on average (uniform from half to one and a half of it).
    day_hours: float = 2.8

    def __post_init__(self) -> None:
        for name in ("night_share", "day_share"):
            _check(0 <= getattr(self, name) <= 1, name, getattr(self, name), "from 0 to 1")
        _check(self.night_share + self.day_share > 0, "night_share", 0, "above 0, or day_share")
        _check(20 <= self.night_begins <= 26, "night_begins", self.night_begins, "20 to 26")
        _check(1 <= self.night_hours <= 10, "night_hours", self.night_hours, "from 1 to 10")
        _check(0.1 <= self.day_hours <= 6, "day_hours", self.day_hours, "from 0.1 to 6")
        for name in ("night_begins_sd", "night_hours_sd", "night_to_night_sd"):
            _check(0 <= getattr(self, name) <= 3, name, getattr(self, name), "from 0 to 3")


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One simulated fleet and server. Times in seconds unless they say otherwise.

    Raises:
        ValueError: a value is out of its range; the message names it.
    """

    devices: int
    days: float = 3.0
    seed: int = 7
    cohort: CohortPolicy
    pace: PacePolicy = field(default_factory=PacePolicy)
    #: Whether the server's windows are obeyed; if not, devices ask every `own_retry_s`.
    steered: bool = True
    time_zones: TimeZones = field(default_factory=lambda: TIME_ZONES["us"])
    habits: Habits = field(default_factory=Habits)
    selectors: int = 1
    #: What a device waits, ± 20 %, if it got no answer or none that it obeys.
    own_retry_s: float = 900.0
    #: Check-ins and uploads that the network loses.
    loss: float = 0.01
    #: Sessions that fail in computing, whatever the time of day.
    failures: float = 0.03
    #: Someone picks the phone up: per hour of a session by night, and by day.
    pickups_per_hour_night: float = 0.3
    pickups_per_hour_day: float = 1.5
    #: Seconds that a session of a device of median speed takes, and the standard
    #: deviations of its logarithm over devices and from session to session.
    session_s: float = 90.0
    speed_sd: float = 0.4
    session_sd: float = 0.25
    #: Devices whose runtime no plan supports.
    unsupported: float = 0.02
    #: All devices hear of the population within this long from the beginning.
    rollout_s: float = 6 * 3600.0
    #: When something wakes devices at once (None: never), in seconds from the beginning,
    #: down to a page of the calendar; of those that are idle then, the share, and
    #: within how long.
    wake_at_s: float | None = None
    wake_share: float = 0.1
    wake_within_s: float = 60.0
    #: Seconds that a model update and its commit take.
    update_s: float = 5.0
    #: The virtual clock's step; check-ins of one step are answered together.
    step_s: float = 1.0

    def __post_init__(self) -> None:
        _check(1 <= self.devices <= 50_000_000, "devices", self.devices, "from 1 to 50000000")
        _check(0 < self.days <= 20, "days", self.days, "above 0 and at most 20")
        _check(1 <= self.selectors <= 256, "selectors", self.selectors, "from 1 to 256")
        for name in ("loss", "failures", "unsupported", "wake_share"):
            _check(0 <= getattr(self, name) <= 0.9, name, getattr(self, name), "from 0 to 0.9")
        for name in ("own_retry_s", "session_s", "rollout_s", "wake_within_s", "step_s"):
            value = getattr(self, name)
            _check(math.isfinite(value) and value > 0, name, value, "a positive number")
        for name in (
            *("pickups_per_hour_night", "pickups_per_hour_day"),
            *("speed_sd", "session_sd", "update_s"),
        ):
            value = getattr(self, name)
            _check(math.isfinite(value) and value >= 0, name, value, "0 or more")
        _check(
            bool(self.time_zones) and all(share > 0 for share in self.time_zones.values()),
            "time_zones",
            self.time_zones,
            "offsets with positive shares",
        )
        _check(
            all(-12 <= offset <= 14 for offset in self.time_zones),
            "time_zones",
            list(self.time_zones),
            "offsets from -12 to 14 hours",
        )
        _check(self.step_s <= 60, "step_s", self.step_s, "at most 60")

    @property
    def seconds(self) -> float:
        """How long is simulated."""
        return self.days * 86_400.0

    def to_json(self) -> dict[str, Any]:
        values = asdict(self)
        values["time_zones"] = {str(offset): share for offset, share in self.time_zones.items()}
        return values


def parse_time_zones(text: str) -> TimeZones:
    """A name of `TIME_ZONES`, or pairs such as ``-5:0.6,1:0.4``.

    Raises:
        ValueError: it is neither.
    """
    if text in TIME_ZONES:
        return TIME_ZONES[text]
    try:
        pairs = [pair.split(":") for pair in text.split(",")]
        zones = {float(offset): float(share) for offset, share in pairs}
    except ValueError:
        zones = {}
    if not zones or not all(share > 0 and math.isfinite(share) for share in zones.values()):
        raise ValueError(
            f"time zones must be one of {', '.join(TIME_ZONES)}, or hours from UTC with shares "
            f"such as -5:0.6,1:0.4, not {text!r}"
        )
    return zones


def _check(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        raise ValueError(f"{name} must be {allowed}, not {value}")
