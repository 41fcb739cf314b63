"""The embedded tier: storage, actors and model update in one process."""

import logging
import os
import random
import secrets
import socket
import threading
from contextlib import suppress
from functools import partial

from server.actors.cells import ActorDied, AskTimeout
from server.actors.coordinator import Coordinator
from server.actors.runtime import Actor, ActorSystem, Ref
from server.actors.selector import Selector
from server.actors.services import Services
from server.actors.supervised import OneSelector, Supervised
from server.configuration import ServerConfiguration
from server.deployment import Deployment
from server.downloads import Downloads
from server.model_update.plan_updates import PlanUpdates
from server.model_update.updater import ModelUpdater
from server.secrets_file import ServerSecrets
from server.served_population import settings_of
from server.session_events import SessionEventLog
from server.storage.blobs import BlobStore, get_content, open_blobs
from server.storage.database import open_database
from server.storage.population_blobs import PopulationBlobs
from server.storage.registry import Registry
from server.telemetry.telemetry import Telemetry
from server.upload import UploadMemory

_log = logging.getLogger(__name__)

#: Seconds between two looks after the house.
HOUSEKEEPING_S = 1.0

#: Seconds until an actor that died is replaced, so that one that dies at once
#: does not keep the machine busy.
RESTART_S = 1.0

#: What the names of coordinators begin with.
COORDINATOR = "coordinator/"

#: The name of the selector's actor, and of the only selector of an embedded tier.
SELECTOR = "selector"


class EmbeddedTier:
    """Everything behind the HTTP application, on the embedded actor runtime.

    Args:
        configuration: The operator's settings.

    Raises:
        UnusableDatabase: the database cannot be opened.
        ValueError, BlobsUnavailable, OSError: the blobs' place cannot be used.
        InvalidKey: one of the configured plan keys cannot be read.
    """

    def __init__(self, configuration: ServerConfiguration) -> None:
        self.configuration = configuration
        self.secrets = ServerSecrets.load_or_create(configuration.data_dir)
        # `nightshift serve` locks the directory: what a killed server left unfinished goes.
        self.blobs = open_blobs(configuration.blobs, sole=True)
        self._engine = open_database(configuration.database_url)
        self.registry = Registry(engine=self._engine)
        self.deployment = Deployment(
            configuration=configuration, registry=self.registry, blobs=self.blobs_of
        )
        self.downloads = Downloads(load=self._content)
        self.events = SessionEventLog()
        self.updater = ModelUpdater()
        self.system = ActorSystem()
        self.telemetry = Telemetry()
        self.upload_memory = UploadMemory(limit=configuration.max_upload_bytes)
        self._housekeeper = self.system.spawn(Housekeeper, name="housekeeper", tier=self)
        self.selector = Supervised(self._start_selector)
        self.owner = f"{socket.gethostname()}/{os.getpid()}/{secrets.token_hex(4)}"
        self.coordinators: dict[str, Ref] = {}
        self._services = Services(
            selectors=OneSelector(SELECTOR, self.selector),
            registry=self.registry,
            blobs=self.blobs_of,
            updater=PlanUpdates(blobs=self.blobs_of, updater=self.updater),
            rng=random.Random(secrets.randbits(64)),
        )
        self._serving = threading.Lock()

    def start(self) -> None:
        """Begins to serve the populations in the registry."""
        self.updater.start()
        self.deployment.describe_old_plans(self.blobs)
        self.serve_populations()
        self._housekeeper.tell("keep_house")

    def close(self) -> None:
        """Ends every actor and child process; unfinished rounds are lost, as they should."""
        for coordinator in self.coordinators.values():
            with suppress(ActorDied, AskTimeout):
                coordinator.ask("release")
        self.flush_events()
        self.system.shutdown()
        self.updater.close()
        self._engine.dispose()

    def blobs_of(self, population: str) -> BlobStore:
        """Where the population's plans, states and checkpoints are."""
        return PopulationBlobs(self.blobs, population)

    def _content(self, population: str, sha256: str) -> bytes:
        return get_content(self.blobs_of(population), sha256)

    def populations_without_lease(self) -> list[str]:
        """Those for which no round can start now."""
        without = []
        for name, coordinator in list(self.coordinators.items()):
            try:
                holds = coordinator.ask("holds_lease")
            except (ActorDied, AskTimeout):
                holds = False
            if not holds:
                without.append(name)
        return without

    def tasks_changed(self, population: str) -> None:
        """A task of the population was created, paused, resumed, cancelled or weighted."""
        self.serve_populations()
        self.coordinators[population].tell("tasks_changed")

    def serve_populations(self) -> None:
        """Tells the selector what the registry says of each population, and coordinates all."""
        with self._serving:
            for population in self.registry.populations.list():
                self.selector.ask(
                    "serve", settings_of(population, self.registry, self.configuration)
                )
                if population.name not in self.coordinators:
                    self.start_coordinator(population.name)

    def _start_selector(self) -> Ref:
        selector = self.system.spawn(
            Selector,
            name=SELECTOR,
            dispatch="inline",
            selector_id=SELECTOR,
            rng=random.Random(secrets.randbits(64)),
            memory=self.upload_memory,
            downloads=self.downloads,
            poll_interval_s=self.configuration.poll_interval_s,
            grace_s=self.configuration.session_grace_s,
        )
        self.system.watch(self._housekeeper, selector)
        return selector

    def start_coordinator(self, name: str) -> None:
        """Spawns a population's coordinator, watched by the housekeeper."""
        coordinator = self.system.spawn(
            Coordinator,
            name=f"{COORDINATOR}{name}",
            population=name,
            owner=self.owner,
            lease_ttl_s=self.configuration.lease_ttl_s,
            retry_s=self.configuration.round_retry_s,
            services=self._services,
        )
        self.coordinators[name] = coordinator
        self.system.watch(self._housekeeper, coordinator)
        coordinator.tell("begin")

    def flush_events(self) -> None:
        """Stores the session shapes counted since the last call."""
        self.events.flush(self.registry.session_shapes)


class Housekeeper(Actor):
    """Stores session shapes, ends what is overdue, and replaces actors that died.

    Args:
        tier: Whose house it is.
    """

    def __init__(self, *, tier: EmbeddedTier) -> None:
        self._tier = tier

    def keep_house(self) -> None:
        """Once a second, whatever happens."""
        for duty in (
            partial(self._tier.selector.ask, "tidy"),
            self._tier.serve_populations,
            self._tier.flush_events,
        ):
            try:
                duty()
            except Exception:
                _log.exception("housekeeping failed; it is tried again")
        self.system.schedule(HOUSEKEEPING_S, self.ref, "keep_house")

    def on_death(self, name: str, reason: BaseException | None) -> None:
        """The selector or a coordinator has ended.

        A coordinator's successor fences whatever it has left running. A
        selector's devices are lost; its successor has none yet.
        """
        kind = SELECTOR if name == SELECTOR else "coordinator"
        self._tier.telemetry.failures.actor_died(kind, name, reason)
        self.system.schedule(RESTART_S, self.ref, "replace", name)

    def replace(self, name: str) -> None:
        """Starts an actor in the place of one that died."""
        try:
            if name == SELECTOR:
                self._tier.selector.restart()
                self._tier.serve_populations()
            else:
                self._tier.start_coordinator(name.removeprefix(COORDINATOR))
        except Exception:
            _log.exception("%s cannot be started", name)
            self.system.schedule(RESTART_S, self.ref, "replace", name)
