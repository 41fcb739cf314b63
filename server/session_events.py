"""What devices say of their finished sessions, counted by shape; nothing individual is kept."""

import threading
from collections import Counter, OrderedDict
from dataclasses import dataclass, field

from device_plan.wire_pb2 import SessionEvents
from server.storage.session_shapes import SessionShapes

#: Sessions remembered so that a repeated report is not counted again.
REMEMBERED = 100_000


@dataclass
class Tally:
    """Counts of one population since the last flush."""

    shapes: Counter[str] = field(default_factory=Counter)
    bytes_up: int = 0
    bytes_down: int = 0


class SessionEventLog:
    """Thread-safe counters, taken from time to time by whoever stores them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tallies: dict[str, Tally] = {}
        self._seen: OrderedDict[tuple[bytes, str], None] = OrderedDict()

    def record(self, device_id: bytes, session: SessionEvents) -> None:
        """Counts a session; one of the same device and id is counted once."""
        key = (device_id, session.session_id)
        with self._lock:
            if session.session_id:
                if key in self._seen:
                    return
                self._seen[key] = None
                if len(self._seen) > REMEMBERED:
                    self._seen.popitem(last=False)
            tally = self._tallies.setdefault(session.population, Tally())
            tally.shapes[session.shape] += 1
            tally.bytes_up += session.bytes_up
            tally.bytes_down += session.bytes_down

    def take(self) -> dict[str, Tally]:
        """The counts since the last call, by population."""
        with self._lock:
            tallies, self._tallies = self._tallies, {}
            return tallies

    def flush(self, shapes: SessionShapes) -> None:
        """Stores the counts since the last call."""
        for population, tally in self.take().items():
            shapes.add_shapes(population, tally.shapes, tally.bytes_up, tally.bytes_down)
