"""The embedded tier: storage, actors and model update in one process."""

import os
import random
import secrets
import socket
from collections.abc import Iterable
from contextlib import suppress

from server.actors.cells import ActorDied, AskTimeout
from server.actors.coordinator import Coordinator
from server.actors.runtime import ActorSystem, Ref
from server.actors.services import Services
from server.actors.supervised import OneSelector
from server.configuration import ServerConfiguration
from server.model_update.plan_updates import PlanUpdates
from server.model_update.updater import ModelUpdater
from server.open_plans import OpenPlans
from server.secrets_file import ServerSecrets
from server.selector_process import SelectorProcess
from server.storage.blobs import open_blobs
from server.storage.database import open_database
from server.storage.registry import Registry

#: What the names of coordinators begin with.
COORDINATOR = "coordinator/"

#: The name of the selector's actor, and of the only selector of an embedded tier.
SELECTOR = "selector"


class EmbeddedTier(SelectorProcess):
    """Everything behind the HTTP application, on the embedded actor runtime.

    Args:
        configuration: The operator's settings.

    Raises:
        UnusableDatabase: the database cannot be opened.
        ValueError, BlobsUnavailable, OSError: the blobs' place cannot be used.
        InvalidKey: one of the configured plan keys cannot be read.
    """

    def __init__(self, configuration: ServerConfiguration) -> None:
        self.secrets = ServerSecrets.load_or_create(configuration.data_dir)
        self._engine = open_database(configuration.database_url)
        self.updater = ModelUpdater()
        self.owner = f"{socket.gethostname()}/{os.getpid()}/{secrets.token_hex(4)}"
        self.coordinators: dict[str, Ref] = {}
        super().__init__(
            configuration=configuration,
            system=ActorSystem(),
            registry=Registry(engine=self._engine),
            # `nightshift serve` locks the directory: what a killed server left unfinished goes.
            blobs=open_blobs(configuration.blobs, sole=True),
            selector_id=SELECTOR,
            selector_name=SELECTOR,
        )
        plans = OpenPlans(self.blobs_of)
        self._services = Services(
            selectors=OneSelector(SELECTOR, self.selector),
            registry=self.registry,
            blobs=self.blobs_of,
            plans=plans,
            updater=PlanUpdates(plans=plans, updater=self.updater),
            rng=random.Random(secrets.randbits(64)),
        )

    def start(self) -> None:
        """Begins to serve the populations in the registry."""
        self.updater.start()
        self._begin()

    def close(self) -> None:
        """Ends every actor and child process; unfinished rounds are lost, as they should."""
        self.closing = True
        for coordinator in self.coordinators.values():
            with suppress(ActorDied, AskTimeout):
                coordinator.ask("release")
        self.flush_events()
        self.system.shutdown()
        self.updater.close()
        self._engine.dispose()

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
        """Tells the selector what has changed in the registry, and coordinates all populations."""
        super().serve_populations()
        with self._serving:
            for name in self.populations:
                if name not in self.coordinators:
                    self.start_coordinator(name)

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

    def _looked_after(self) -> Iterable[Ref]:
        return (*super()._looked_after(), *self.coordinators.values())

    def died(self, name: str, reason: BaseException | None) -> None:
        """The selector or a coordinator has ended.

        A coordinator's successor fences whatever it has left running. A
        selector's devices are lost; its successor has none yet.
        """
        if name == SELECTOR:
            super().died(name, reason)
        else:
            self.telemetry.failures.actor_died("coordinator", name, reason)

    def replace(self, name: str) -> None:
        """Starts an actor in the place of one that died."""
        if name == SELECTOR:
            super().replace(name)
        elif not self.coordinators[name.removeprefix(COORDINATOR)].alive:
            self.start_coordinator(name.removeprefix(COORDINATOR))
