"""The pulse of an actor system: proof that its timer and its threads go on."""

from collections.abc import Callable

from server.actors.runtime import Actor
from server.health.probe import NotWell

#: Seconds between two beats.
BEAT_S = 1.0

#: Seconds without a beat after which the process counts as stuck: far more than a
#: machine that is short of time needs.
STUCK_AFTER_S = 20.0


class Heartbeat:
    """When the last beat was.

    Args:
        now: Seconds, monotonic; the same clock that the beats are told in.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._last = now()

    def beat(self) -> None:
        self._last = self._now()

    def check(self) -> str:
        """How long ago it was. Raises NotWell if that is too long."""
        age = self._now() - self._last
        if age > STUCK_AFTER_S:
            raise NotWell(f"the actors have not moved for {age:.0f} s: restart the process")
        return f"the actors moved {age:.1f} s ago"


class Pulse(Actor):
    """Beats once a second, once it was told `beat`.

    Args:
        on_beat: Told each time; it must not fail or wait.
    """

    def __init__(self, *, on_beat: Callable[[], None]) -> None:
        self._on_beat = on_beat

    def beat(self) -> None:
        """One beat; the next follows by itself."""
        self._on_beat()
        self.system.schedule(BEAT_S, self.ref, "beat")
