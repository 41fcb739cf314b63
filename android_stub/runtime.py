"""What the devices of one process share."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock

from android_stub.engine import Engines
from android_stub.misfortune import MisfortuneRates
from android_stub.server_api import ServerApi
from android_stub.session import RETRY_DELAYS_S
from device_plan.archive import DevicePart


class Plans:
    """Plans in memory by their SHA-256, the least recently used dropped first.

    Virtual devices share the bytes, yet each downloads a plan once: a device
    asks here only for a plan that it has itself received.
    """

    def __init__(self, *, kept: int = 8) -> None:
        self._kept = kept
        self._plans: OrderedDict[str, DevicePart] = OrderedDict()
        self._lock = Lock()

    def get(self, digest: str) -> DevicePart | None:
        with self._lock:
            plan = self._plans.get(digest)
            if plan is not None:
                self._plans.move_to_end(digest)
            return plan

    def put(self, digest: str, plan: DevicePart) -> None:
        with self._lock:
            self._plans[digest] = plan
            self._plans.move_to_end(digest)
            while len(self._plans) > self._kept:
                self._plans.popitem(last=False)


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Server, clock, interpreters and plans of one process.

    Args:
        api: Connections to the server.
        clock: Seconds, never going back by much.
        client_version: Told to the server at check-in.
        misfortune: For fleets: how often sessions go wrong.
        retry_delays_s: Seconds before each further attempt at a request.
    """

    api: ServerApi
    clock: Callable[[], float]
    engines: Engines = field(default_factory=Engines)
    plans: Plans = field(default_factory=Plans)
    client_version: str = "nightshift-reference"
    misfortune: MisfortuneRates | None = None
    retry_delays_s: tuple[float, ...] = RETRY_DELAYS_S
