"""When a device comes back: inside the window the server gave, or a default.

The device draws one uniform time as soon as it learns a window, so that the
server shapes the arrivals of a whole population without a device's clock
being right (the pace steering of Bonawitz et al. 2019, §2.3).
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from android_stub.randomness import Uniform, between
from device_plan.wire_pb2 import RetryWindow, RetryWindows

#: Seconds until the next attempt when no window is known, ± `SPREAD`.
TRANSIENT_DELAY_S = 15 * 60.0
#: The same after an error that trying again will not mend.
PERMANENT_DELAY_S = 4 * 3600.0
#: Relative half-width of the draw around a default delay.
SPREAD = 0.2
#: Seconds above which no window is believed: a mistaken server must not lose its devices.
MAX_DELAY_S = 2 * 86_400.0


class Pace:
    """Draws delays in seconds.

    Args:
        draws: The source of uniform draws.
        time_scale: Divides the default delays, and only them: an accelerated
            fleet must not sleep for hours, but a server's windows are real.
    """

    def __init__(self, *, draws: Uniform, time_scale: float = 1.0) -> None:
        if not time_scale > 0:
            raise ValueError(f"time_scale must be positive, not {time_scale}")
        self._draws = draws
        self._time_scale = time_scale

    def inside(self, window: RetryWindow) -> float:
        """Uniform in the window, at most `MAX_DELAY_S`."""
        low = min(window.min_delay_ms / 1000.0, MAX_DELAY_S)
        high = min(window.max_delay_ms / 1000.0, MAX_DELAY_S)
        return between(self._draws, low, high)

    def default(self, *, permanent: bool) -> float:
        """15 min ± 20 %, or 4 h ± 20 % after a permanent error, divided by the time scale."""
        middle = PERMANENT_DELAY_S if permanent else TRANSIENT_DELAY_S
        delay = between(self._draws, middle * (1 - SPREAD), middle * (1 + SPREAD))
        return delay / self._time_scale


class KnownDelays:
    """Delays drawn from the latest windows of one population's answers.

    The draw happens when the window arrives, and is kept as a moment: what
    a device heard a minute ago tells it when to come back from then on.
    """

    __slots__ = ("accepted_at", "rejected_at")

    def __init__(self) -> None:
        self.accepted_at: float | None = None
        self.rejected_at: float | None = None

    def learn(self, windows: RetryWindows, *, pace: Pace, now: float) -> None:
        """Replaces what an answer's windows say anew; absent windows change nothing."""
        if windows.HasField("if_accepted"):
            self.accepted_at = now + pace.inside(windows.if_accepted)
        if windows.HasField("if_rejected"):
            self.rejected_at = now + pace.inside(windows.if_rejected)


class DueTimes:
    """When each population is due next; kept in a file so that a restart does not stampede.

    Args:
        path: A JSON file, or None to keep the times in memory only.
    """

    __slots__ = ("_due", "_path")

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._due: dict[str, float] = {}
        if path is not None and path.exists():
            try:
                read: Mapping[str, float] = json.loads(path.read_text())
                self._due = {str(name): float(at) for name, at in read.items()}
            except (ValueError, TypeError, AttributeError):
                # A damaged file costs one early check-in, nothing more.
                self._due = {}

    def get(self, population: str, now: float) -> float:
        """The due time; `now` for a population never scheduled.

        A time further ahead than any draw can be means that the clock was set
        back; the population is then due at once.
        """
        due = self._due.get(population, now)
        return due if due <= now + MAX_DELAY_S else now

    def set(self, population: str, at: float) -> None:
        self._due[population] = at
        if self._path is not None:
            temporary = self._path.with_suffix(".new")
            temporary.write_text(json.dumps(self._due))
            os.replace(temporary, self._path)  # noqa: PTH105 (atomic on one file system)
