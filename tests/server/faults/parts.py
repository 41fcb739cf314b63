"""How the server's parts are put together in a simulated process."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from server.actors.coordinator import Coordinator
from server.actors.runtime import Actor, Ref
from server.actors.selector import Selector
from server.actors.services import Services
from server.actors.supervised import Supervised
from server.configuration import ServerConfiguration
from server.downloads import Downloads
from server.selector_process import Housekeeper
from server.served_population import ServedPopulations
from server.session_events import SessionEventLog
from server.storage.leases import LeaseState
from server.storage.registry import Registry
from server.telemetry.telemetry import Telemetry
from server.tier import SELECTOR, EmbeddedTier
from server.upload import UploadMemory
from tests.server.faults.exact_plan import POPULATION
from tests.server.faults.simulated_system import SimulatedSystem
from tests.server.faults.virtual_time import VirtualLock

#: Seconds between two looks of a selector process of a cluster.
LOOK_S = 1.0

#: Seconds that a coordinator may take to get the lease, beyond the lease's own time.
PATIENCE_S = 10.0


@dataclass(kw_only=True)
class Parts:
    """What every process that serves devices has."""

    configuration: ServerConfiguration
    system: SimulatedSystem
    registry: Registry
    services: Services
    downloads: Downloads
    memory: UploadMemory
    telemetry: Telemetry
    rng: random.Random


@dataclass
class Directory:
    """The selectors that are registered: those that run, and those that died just now."""

    registered: dict[str, Ref] = field(default_factory=dict)

    def members(self) -> Mapping[str, Ref]:
        return dict(self.registered)


class SimulatedTier(EmbeddedTier):
    """The embedded tier, with its own supervision, around simulated parts.

    Args:
        parts: Of its process.
        directory: Where rounds look for its selector.
    """

    def __init__(self, parts: Parts, directory: Directory) -> None:
        self.configuration = parts.configuration
        self.registry = parts.registry
        self.downloads = parts.downloads
        self.events = SessionEventLog()
        self.telemetry = parts.telemetry
        self.system = parts.system  # type: ignore[assignment]
        self.upload_memory = parts.memory
        self.owner = f"{parts.system.process.name} {parts.rng.randbytes(4).hex()}"
        self.coordinators = {}
        self.closing = False
        self.selector_id = self.selector_name = SELECTOR
        self._served = ServedPopulations(parts.registry, parts.configuration)
        self._serving = VirtualLock(parts.system.world.time)  # type: ignore[assignment]
        self._directory = directory
        self._housekeeper = parts.system.spawn(Housekeeper, name="housekeeper", process=self)
        self.selector = Supervised(self._start_selector)
        self._services = parts.services

    def begin(self) -> Supervised:
        """Begins to serve; the selector."""
        self.serve_populations()
        self._housekeeper.tell("keep_house")
        return self.selector

    def _start_selector(self) -> Ref:
        selector = super()._start_selector()
        self._directory.registered["selector"] = selector
        return selector


class ClusterSelector:
    """A selector process of a cluster.

    Args:
        parts: Of the process.
        directory: Where rounds look for selectors.
    """

    def __init__(self, parts: Parts, directory: Directory) -> None:
        self._parts = parts
        self._directory = directory
        self.served = ServedPopulations(parts.registry, parts.configuration)

    def start(self) -> Supervised:
        """Begins to serve; the selector."""
        parts = self._parts
        selector = Supervised(self._spawn)
        self.served.tell(selector.ref)
        looker = parts.system.spawn(
            Lookout, name=f"lookout/{self.name}", selector=selector, of=self
        )
        parts.system.watch(looker, selector.ref)
        looker.tell("look")
        return selector

    @property
    def name(self) -> str:
        return self._parts.system.process.name

    @property
    def registry(self) -> Registry:
        return self._parts.registry

    def start_coordinator(self, name: str) -> Ref:
        """Raises ValueError: it is there."""
        parts = self._parts
        return parts.system.spawn(
            Coordinator,
            name=name,
            population=POPULATION,
            owner=f"{name}#{parts.rng.randbytes(4).hex()}",
            lease_ttl_s=parts.configuration.lease_ttl_s,
            retry_s=parts.configuration.round_retry_s,
            services=parts.services,
        )

    def _spawn(self) -> Ref:
        parts = self._parts
        selector = parts.system.spawn(
            Selector,
            name=f"selector/{self.name}",
            dispatch="inline",
            selector_id=self.name,
            rng=parts.rng,
            memory=parts.memory,
            downloads=parts.downloads,
            poll_interval_s=parts.configuration.poll_interval_s,
            grace_s=parts.configuration.session_grace_s,
        )
        self._directory.registered[self.name] = selector
        return selector


class Lookout(Actor):
    """Looks after a selector, and, as all lookouts do, after the coordinator.

    It is server.cluster.supervisor without Ray: the lease says who coordinates, and a
    successor's name is made from the epoch that it is to follow.

    Args:
        selector: The process's selector.
        of: Its process.
    """

    def __init__(self, *, selector: Supervised, of: ClusterSelector) -> None:
        self._selector = selector
        self._of = of
        self._dead: set[str] = set()
        self._attempt = (0, 0, 0.0)

    def look(self) -> None:
        """Once a second, whatever happens."""
        self.system.schedule(LOOK_S, self.ref, "look")
        try:
            self._selector.ask("tidy")
            self._of.served.tell(self._selector.ref)
            self._look_after_coordinator()
        except Exception as error:
            self.system.world.trace(f"lookout: {error!r}")  # type: ignore[attr-defined]

    def on_death(self, name: str, reason: BaseException | None) -> None:  # noqa: ARG002
        """The selector or a coordinator has ended."""
        if name == self._selector.ref.name:
            self.system.schedule(LOOK_S, self.ref, "replace_selector")
        self._dead.add(name)

    def replace_selector(self) -> None:
        self.system.watch(self.ref, self._selector.restart())

    def _look_after_coordinator(self) -> None:
        state = self._of.registry.leases.holder(f"coordinator/{POPULATION}")
        free = state is None or state.expired or not state.owner
        if state is not None and not free and _name_of(state) not in self._dead:
            holder = self.system.find(_name_of(state))
            if holder is not None:
                self.system.watch(self.ref, holder)
                return
        self._succeed(0 if state is None else state.epoch)

    def _succeed(self, epoch: int) -> None:
        now = self.system.now()
        of, attempt, since = self._attempt
        if of != epoch + 1:
            attempt, since = 0, now
        name = f"coordinator/{POPULATION}/{epoch + 1}.{attempt}"
        self._attempt = (epoch + 1, attempt, since)
        if self.system.find(name) is not None and name not in self._dead:
            if now - since > PATIENCE_S:
                self._attempt = (epoch + 1, attempt + 1, now)
            return
        try:
            started = self._of.start_coordinator(name)
        except ValueError:
            return
        self._dead.discard(name)
        self.system.watch(self.ref, started)
        started.tell("begin")


def _name_of(state: LeaseState) -> str:
    return state.owner.partition("#")[0]
