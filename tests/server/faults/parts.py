"""How the server's parts are put together in a simulated process."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from server.actors.runtime import Actor, Ref
from server.actors.services import Services
from server.actors.supervised import Supervised
from server.cluster.tier import ClusterTier
from server.configuration import ServerConfiguration
from server.downloads import Downloads
from server.model_update.updater import UpdateResult
from server.selector_process import SelectorProcess
from server.served_population import ServedPopulations
from server.session_events import SessionEventLog
from server.storage.registry import Registry
from server.telemetry.telemetry import Telemetry
from server.tier import SELECTOR, EmbeddedTier
from tests.server.faults.exact_plan import ExactUpdater
from tests.server.faults.simulated_system import SimulatedSystem
from tests.server.faults.virtual_time import VirtualLock


@dataclass(kw_only=True)
class Parts:
    """What every process that serves devices has."""

    configuration: ServerConfiguration
    system: SimulatedSystem
    registry: Registry
    services: Services
    downloads: Downloads
    telemetry: Telemetry
    updater: ExactUpdater
    rng: random.Random


@dataclass
class Directory:
    """The selectors that are registered: those that run, and those that died just now."""

    registered: dict[str, Ref] = field(default_factory=dict)

    def members(self) -> Mapping[str, Ref]:
        return dict(self.registered)


class _Simulated(SelectorProcess):
    """A tier's own supervision around simulated parts.

    Args:
        parts: Of its process.
        directory: Where rounds look for selectors.
        selector_id: Of its selector.
        selector_name: Of its selector's actor.
    """

    def __init__(
        self, parts: Parts, directory: Directory, *, selector_id: str, selector_name: str
    ) -> None:
        self.configuration = parts.configuration
        self.registry = parts.registry
        self.downloads = parts.downloads
        self.events = SessionEventLog()
        self.telemetry = parts.telemetry
        self.system = parts.system  # type: ignore[assignment]
        self.closing = False
        self.selector_id = selector_id
        self.selector_name = selector_name
        self._services = parts.services
        self._served = ServedPopulations(parts.registry, parts.configuration)
        self._serving = VirtualLock(parts.system.world.time)  # type: ignore[assignment]
        self._directory = directory
        self._housekeeper = self._start_housekeeper()
        self.selector = Supervised(self._start_selector)

    def begin(self) -> Supervised:
        """Begins to serve; the selector."""
        self.serve_populations()
        self._housekeeper.tell("keep_house")
        return self.selector

    def _start_selector(self) -> Ref:
        selector = super()._start_selector()
        self._directory.registered[self.selector_id] = selector
        return selector


class SimulatedTier(_Simulated, EmbeddedTier):
    """The embedded tier."""

    def __init__(self, parts: Parts, directory: Directory) -> None:
        self.owner = f"{parts.system.process.name} {parts.rng.randbytes(4).hex()}"
        self.coordinators = {}
        super().__init__(parts, directory, selector_id=SELECTOR, selector_name=SELECTOR)


class SimulatedClusterTier(_Simulated, ClusterTier):  # type: ignore[misc]
    """The tier of one selector process of a cluster."""

    def __init__(self, parts: Parts, directory: Directory) -> None:
        name = parts.system.process.name
        self._updater = parts.updater
        super().__init__(parts, directory, selector_id=name, selector_name=f"selector/{name}")
        self._supervisor = self._start_supervisor()

    def begin(self) -> Supervised:
        """Begins to serve; the selector."""
        selector = super().begin()
        self._supervisor.tell("begin")
        return selector

    def _start_model_update(self, name: str) -> Ref:
        return self.system.spawn_apart(ModelUpdate, name=name, detached=True, updater=self._updater)


class ModelUpdate(Actor):
    """server.cluster.model_update.ModelUpdate without TensorFlow.

    Args:
        updater: What computes in its place.
    """

    def __init__(self, *, updater: ExactUpdater) -> None:
        self._updater = updater

    def apply(self, *request: Any) -> UpdateResult:
        """As `ExactUpdater.apply`."""
        return self._updater.apply(*request)
