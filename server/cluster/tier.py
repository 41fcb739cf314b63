"""The tier of one selector process: it serves devices, sums, and supervises the others."""

from __future__ import annotations

import os
import random
import secrets
import signal
import socket
from contextlib import suppress
from functools import partial
from typing import Any

from server.actors.cells import ActorDied, AskTimeout
from server.actors.coordinator import Coordinator
from server.actors.master_aggregator import MasterAggregator
from server.actors.runtime import Actor, Ref
from server.actors.selector import Selector
from server.actors.supervised import Supervised
from server.cluster import ray_node
from server.cluster.cluster_services import services_of
from server.cluster.model_update import ModelUpdate
from server.cluster.ray_system import RaySystem
from server.cluster.remote_ref import RemoteRef
from server.cluster.selector_directory import SELECTOR, mailbox_name
from server.cluster.supervisor import COORDINATOR, Supervisor, coordinator_of, owner_of
from server.configuration import ServerConfiguration
from server.deployment import Deployment
from server.downloads import Downloads
from server.secrets_file import ServerSecrets
from server.served_population import settings_of
from server.session_events import SessionEventLog
from server.storage.blobs import BlobStore, get_content
from server.telemetry.logs import event_log
from server.telemetry.telemetry import Telemetry
from server.upload import UploadMemory

_log = event_log("server.cluster.tier")

#: Seconds between two looks after the house.
HOUSEKEEPING_S = 1.0

#: Seconds until a selector actor that died is replaced.
RESTART_S = 1.0

#: The name of that actor in every selector process.
HOUSEKEEPER = "housekeeper"

#: Whose actors have a process each.
APART = (Coordinator, MasterAggregator, ModelUpdate)


class ClusterTier:
    """Everything behind the HTTP application of one selector process.

    Args:
        configuration: The operator's settings; `ray_address` is set, and this
            machine is a node of that Ray.

    Raises:
        UnusableDatabase: the database cannot be opened.
        ConnectionError: Ray does not answer.
        InvalidKey: one of the configured plan keys cannot be read.
    """

    def __init__(self, configuration: ServerConfiguration) -> None:
        assert configuration.ray_address is not None
        self.configuration = configuration
        self.closing = False
        self.selector_id = configuration.selector_id or f"{socket.gethostname()}-{os.getpid()}"
        self.secrets = (
            ServerSecrets.load_file(configuration.secrets)
            if configuration.secrets is not None
            else ServerSecrets.load_or_create(configuration.data_dir)
        )
        ray_node.connect(configuration.ray_address)
        self.system = RaySystem(
            namespace=ray_node.NAMESPACE,
            apart=APART,
            name=mailbox_name(self.selector_id),
            on_cut_off=_end,
        )
        self._services = services_of(self.system, configuration)
        self.registry = self._services.registry
        self.blobs = self._services.store
        self.updater = self._services.remote_updater
        self.telemetry = Telemetry()
        #: The populations that are served here, whoever coordinates them.
        self.coordinators: list[str] = []
        self.deployment = Deployment(
            configuration=configuration, registry=self.registry, blobs=self.blobs_of
        )
        self.downloads = Downloads(load=self._content)
        self.events = SessionEventLog()
        self.upload_memory = UploadMemory(limit=configuration.max_upload_bytes)
        self._housekeeper = self.system.spawn(ClusterHousekeeper, name=HOUSEKEEPER, tier=self)
        self.selector = Supervised(self._start_selector)
        self._supervisor = self.system.spawn(
            Supervisor,
            name="supervisor",
            populations=self._populations,
            leases=self.registry.leases,
            lease_ttl_s=configuration.lease_ttl_s,
            start_coordinator=self._start_coordinator,
            start_model_update=self._start_model_update,
        )

    def start(self) -> None:
        """Begins to serve the populations in the registry."""
        self.deployment.describe_old_plans(self.blobs)
        self.serve_populations()
        self._supervisor.tell("begin")
        self._housekeeper.tell("keep_house")

    def close(self) -> None:
        """Ends this process's part: the coordinators go on, with the other selectors."""
        self.closing = True
        with suppress(Exception):
            self.flush_events()
        self.system.shutdown()
        ray_node.disconnect()

    def blobs_of(self, population: str) -> BlobStore:
        """Where the population's plans, states and checkpoints are."""
        return self._services.blobs(population)

    def populations_without_lease(self) -> list[str]:
        """Those for which no round can start now, as the registry has it."""
        return [name for name in self._populations() if self.holder(name) is None]

    def holder(self, population: str) -> str | None:
        """Who coordinates the population, if anyone does."""
        state = self.registry.leases.holder(COORDINATOR + population)
        if state is None or state.expired or not state.owner:
            return None
        return coordinator_of(state)

    def tasks_changed(self, population: str) -> None:
        """A task of the population was created, paused, resumed, cancelled or weighted."""
        self.serve_populations()
        for other in self._services.selectors.members().values():
            if isinstance(other, RemoteRef):
                self.system.ref_at(other.gate, HOUSEKEEPER).tell("serve_populations")
        self._supervisor.tell("look")
        coordinator = None
        if (name := self.holder(population)) is not None:
            coordinator = self.system.find(name)
        # Without one, the next reads the registry when it takes over.
        if coordinator is not None:
            coordinator.tell("tasks_changed")

    def serve_populations(self) -> None:
        """Tells the selector what the registry says of each population."""
        served = []
        for population in self.registry.populations.list():
            self.selector.ask("serve", settings_of(population, self.registry, self.configuration))
            served.append(population.name)
        self.coordinators = served

    def flush_events(self) -> None:
        """Stores the session shapes counted since the last call."""
        self.events.flush(self.registry.session_shapes)

    def _content(self, population: str, sha256: str) -> bytes:
        return get_content(self.blobs_of(population), sha256)

    def _populations(self) -> list[str]:
        return [population.name for population in self.registry.populations.list()]

    def _start_selector(self) -> Ref:
        selector = self.system.spawn(
            Selector,
            name=SELECTOR + self.selector_id,
            dispatch="inline",
            selector_id=self.selector_id,
            rng=random.Random(secrets.randbits(64)),
            memory=self.upload_memory,
            downloads=self.downloads,
            poll_interval_s=self.configuration.poll_interval_s,
            grace_s=self.configuration.session_grace_s,
        )
        self.system.watch(self._housekeeper, selector)
        return selector

    def _start_coordinator(self, population: str, name: str) -> Ref:
        return self.system.spawn_apart(
            Coordinator,
            name=name,
            detached=True,
            population=population,
            owner=owner_of(name, secrets.token_hex(8)),
            lease_ttl_s=self.configuration.lease_ttl_s,
            retry_s=self.configuration.round_retry_s,
            services=self._services,
        )

    def _start_model_update(self, name: str) -> Ref:
        return self.system.spawn_apart(
            ModelUpdate, name=name, detached=True, services=self._services
        )


class ClusterHousekeeper(Actor):
    """Stores session shapes, ends what is overdue, and replaces a selector that died.

    Args:
        tier: Whose house it is.
    """

    def __init__(self, *, tier: ClusterTier) -> None:
        self._tier = tier

    def keep_house(self) -> None:
        """Once a second, whatever happens."""
        if self._tier.closing:
            return
        for duty in (
            partial(self._tier.selector.ask, "tidy"),
            self._tier.serve_populations,
            self._tier.flush_events,
        ):
            try:
                duty()
            except Exception as error:
                if not self._tier.closing:
                    _log.error("housekeeping_failed", error=repr(error))
        self.system.schedule(HOUSEKEEPING_S, self.ref, "keep_house")

    def serve_populations(self) -> None:
        """Another selector has changed something of them; missed, it is seen in a second."""
        try:
            self._tier.serve_populations()
        except Exception as error:
            if not self._tier.closing:
                _log.error("housekeeping_failed", error=repr(error))

    def on_death(self, name: str, reason: BaseException | None) -> None:
        """The selector has ended: its devices are lost, and its successor has none yet."""
        self._tier.telemetry.failures.actor_died("selector", name, reason)
        self.system.schedule(RESTART_S, self.ref, "replace_selector")

    def replace_selector(self) -> None:
        """Starts another in its place."""
        try:
            self._tier.selector.restart()
            self._tier.serve_populations()
        except (ActorDied, AskTimeout, ValueError) as error:
            _log.error("selector_not_started", error=repr(error))
            self.system.schedule(RESTART_S, self.ref, "replace_selector")


def _end(*_: Any) -> None:
    """Without the cluster a selector is of no use; whoever started it starts another."""
    os.kill(os.getpid(), signal.SIGINT)
