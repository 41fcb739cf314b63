"""The tier of one selector process: it serves devices, sums, and supervises the others."""

from __future__ import annotations

import os
import secrets
import signal
import socket
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from server.actors.coordinator import Coordinator
from server.actors.master_aggregator import MasterAggregator
from server.actors.runtime import Ref
from server.cluster import ray_node
from server.cluster.cluster_services import services_of
from server.cluster.model_update import ModelUpdate
from server.cluster.ray_system import RaySystem
from server.cluster.remote_ref import RemoteRef
from server.cluster.selector_directory import SELECTOR, mailbox_name
from server.cluster.supervisor import COORDINATOR, Supervisor, coordinator_of, owner_of
from server.configuration import ServerConfiguration
from server.secrets_file import ServerSecrets
from server.selector_process import HOUSEKEEPER, SelectorProcess

#: Whose actors have a process each.
APART = (Coordinator, MasterAggregator, ModelUpdate)

#: The name of the supervisor's actor in every selector process.
SUPERVISOR = "supervisor"


class ClusterTier(SelectorProcess):
    """Everything behind the HTTP application of one selector process.

    Args:
        configuration: The operator's settings; `ray_address` is set, and this
            machine is a node of that Ray.

    Raises:
        UnusableDatabase: the database cannot be opened.
        ConnectionError: Ray does not answer.
        InvalidKey: one of the configured plan keys cannot be read.
    """

    system: RaySystem

    def __init__(self, configuration: ServerConfiguration) -> None:
        assert configuration.ray_address is not None
        selector_id = configuration.selector_id or f"{socket.gethostname()}-{os.getpid()}"
        self.secrets = (
            ServerSecrets.load_file(configuration.secrets)
            if configuration.secrets is not None
            else ServerSecrets.load_or_create(configuration.data_dir)
        )
        ray_node.connect(configuration.ray_address)
        system = RaySystem(
            namespace=ray_node.NAMESPACE,
            apart=APART,
            name=mailbox_name(selector_id),
            on_cut_off=_end,
        )
        self._services = services_of(system, configuration)
        self.updater = self._services.updater
        super().__init__(
            configuration=configuration,
            system=system,
            registry=self._services.registry,
            blobs=self._services.store,
            selector_id=selector_id,
            selector_name=SELECTOR + selector_id,
        )
        self._supervisor = self._start_supervisor()

    def start(self) -> None:
        """Begins to serve the populations in the registry."""
        self._begin()
        self._supervisor.tell("begin")

    def close(self) -> None:
        """Ends this process's part: the coordinators go on, with the other selectors."""
        self.closing = True
        with suppress(Exception):
            self.flush_events()
        self.system.shutdown()
        ray_node.disconnect()

    def populations_without_lease(self) -> list[str]:
        """Those for which no round can start now, as the registry has it."""
        return [name for name in self.populations if self.holder(name) is None]

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

    def died(self, name: str, reason: BaseException | None) -> None:
        """The selector or the supervisor has ended."""
        if name == SUPERVISOR:
            self.telemetry.failures.actor_died("supervisor", name, reason)
        else:
            super().died(name, reason)

    def replace(self, name: str) -> None:
        """Starts an actor in the place of one that died."""
        if name != SUPERVISOR:
            super().replace(name)
        elif not self._supervisor.alive:
            self._supervisor = self._start_supervisor()
            self._supervisor.tell("begin")

    def _looked_after(self) -> Iterable[Ref]:
        return (*super()._looked_after(), self._supervisor)

    def _start_supervisor(self) -> Ref:
        supervisor = self.system.spawn(
            Supervisor,
            name=SUPERVISOR,
            populations=lambda: self.populations,
            leases=self.registry.leases,
            lease_ttl_s=self.configuration.lease_ttl_s,
            start_coordinator=self._start_coordinator,
            start_model_update=self._start_model_update,
        )
        self.system.watch(self._housekeeper, supervisor)
        return supervisor

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


def _end(*_: Any) -> None:
    """Without the cluster a selector is of no use; whoever started it starts another."""
    os.kill(os.getpid(), signal.SIGINT)
