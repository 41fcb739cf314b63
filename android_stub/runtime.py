"""What the devices of one process share."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Lock

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from android_stub.engine import Engines
from android_stub.misfortune import MisfortuneRates
from android_stub.server_api import ServerApi
from android_stub.session import RETRY_DELAYS_S
from device_plan.archive import DevicePart
from device_plan.signing import NotTrusted, verify_device_part


class WrongPopulation(NotTrusted):
    """The plan is signed, but for other devices."""


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
        client_version: Told to the server at check-in,
        attributes: and what cohorts may be stratified by, e.g. {"country": "de"}.
        misfortune: For fleets: how often sessions go wrong.
        retry_delays_s: Seconds before each further attempt at a request.
        plan_keys: Pinned public keys: no plan is loaded that none of them signed.
            Empty: whatever the server sends is.
    """

    api: ServerApi
    clock: Callable[[], float]
    engines: Engines = field(default_factory=Engines)
    plans: Plans = field(default_factory=Plans)
    client_version: str = "nightshift-reference"
    attributes: Mapping[str, str] = field(default_factory=dict)
    misfortune: MisfortuneRates | None = None
    retry_delays_s: tuple[float, ...] = RETRY_DELAYS_S
    plan_keys: tuple[Ed25519PublicKey, ...] = ()

    def verify(self, plan: DevicePart, *, population: str) -> None:
        """Passes a plan that may be executed for the population.

        Raises:
            NotTrusted: keys are pinned, and none of them signed it for the population.
        """
        if not self.plan_keys:
            return
        verify_device_part(plan, self.plan_keys)
        # A signed plan of another population is genuine, but not for these examples.
        if plan.manifest.population != population:
            raise WrongPopulation(
                f"the plan was signed for the population {plan.manifest.population!r}, "
                f"not for {population!r}"
            )
