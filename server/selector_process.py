"""A process that serves devices, whichever tier it is of: its selector, and who looks after it."""

import random
import secrets
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial

from server.actors.runtime import Actor, ActorSystem, Ref, SystemDown
from server.actors.selector import Selector
from server.actors.supervised import Supervised
from server.configuration import ServerConfiguration
from server.deployment import Deployment
from server.downloads import Downloads
from server.served_population import ServedPopulations
from server.session_events import SessionEventLog
from server.storage.blobs import BlobStore, get_content
from server.storage.population_blobs import PopulationBlobs
from server.storage.registry import Registry
from server.telemetry.logs import event_log
from server.telemetry.telemetry import Telemetry
from server.upload import UploadMemory

_log = event_log("server.selector_process")

#: Seconds between two looks after the house.
HOUSEKEEPING_S = 1.0

#: Seconds until an actor that died is replaced, so that one that dies at once
#: does not keep the machine busy.
RESTART_S = 1.0

#: The name of the actor that looks after the others, in every such process.
HOUSEKEEPER = "housekeeper"


class SelectorProcess:
    """What the HTTP application of one process works with.

    Args:
        configuration: The operator's settings.
        system: For its actors.
        registry: Of the tier.
        blobs: The store of all populations.
        selector_id: Names the selector among those of its tier.
        selector_name: Of its actor.
    """

    def __init__(
        self,
        *,
        configuration: ServerConfiguration,
        system: ActorSystem,
        registry: Registry,
        blobs: BlobStore,
        selector_id: str,
        selector_name: str,
    ) -> None:
        self.configuration = configuration
        self.registry = registry
        self.blobs = blobs
        self.selector_id = selector_id
        self.selector_name = selector_name
        self.closing = False
        self.deployment = Deployment(
            configuration=configuration, registry=registry, blobs=self.blobs_of
        )
        self.downloads = Downloads(load=self._content)
        self.events = SessionEventLog()
        self.telemetry = Telemetry()
        self.system = system
        self._served = ServedPopulations(registry, configuration)
        self._serving = threading.Lock()
        self._housekeeper = self._start_housekeeper()
        self.selector = Supervised(self._start_selector)

    @property
    def populations(self) -> Sequence[str]:
        """Those that are served here, whoever coordinates them."""
        return self._served.names

    def blobs_of(self, population: str) -> BlobStore:
        """Where the population's plans, states and checkpoints are."""
        return PopulationBlobs(self.blobs, population)

    def serve_populations(self) -> None:
        """Tells the selector what has changed of its populations in the registry."""
        with self._serving:
            self._served.tell(self.selector.ref)

    def flush_events(self) -> None:
        """Stores the session shapes counted since the last call."""
        self.events.flush(self.registry.session_shapes)

    def died(self, name: str, reason: BaseException | None) -> None:
        """An actor that is watched has ended. A selector's devices are lost."""
        self.telemetry.failures.actor_died("selector", name, reason)

    def replace(self, name: str) -> None:  # noqa: ARG002
        """Starts an actor in the place of one that died."""
        if not self.selector.ref.alive:
            self.selector.restart()
        self.serve_populations()

    def housekeeper_ended(self) -> None:
        """Nobody looks after who looks after the others: another takes its place.

        It hears at once of those who have died meanwhile.
        """
        if self.closing:
            return
        with suppress(SystemDown), self._serving:
            self._housekeeper = self._start_housekeeper()
            for ref in self._looked_after():
                self.system.watch(self._housekeeper, ref)
            self.system.schedule(RESTART_S, self._housekeeper, "keep_house")

    def _looked_after(self) -> Iterable[Ref]:
        return (self.selector.ref,)

    def _start_housekeeper(self) -> Ref:
        return self.system.spawn(Housekeeper, name=HOUSEKEEPER, process=self)

    def _begin(self) -> None:
        self.deployment.describe_old_plans(self.blobs)
        self.serve_populations()
        self._housekeeper.tell("keep_house")

    def _content(self, population: str, sha256: str) -> bytes:
        return get_content(self.blobs_of(population), sha256)

    def _start_selector(self) -> Ref:
        # Nobody gives back what one that died had received.
        self.upload_memory = UploadMemory(limit=self.configuration.max_upload_bytes)
        selector = self.system.spawn(
            Selector,
            name=self.selector_name,
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


class Housekeeper(Actor):
    """Stores session shapes, ends what is overdue, and replaces actors that died.

    Args:
        process: Whose house it is.
    """

    def __init__(self, *, process: SelectorProcess) -> None:
        self._process = process

    def on_stop(self) -> None:
        self._process.housekeeper_ended()

    def keep_house(self) -> None:
        """Once a second, whatever happens."""
        if self._process.closing:
            return
        self._try(partial(self._process.selector.ask, "tidy"))
        self.serve_populations()
        self._try(self._process.flush_events)
        self.system.schedule(HOUSEKEEPING_S, self.ref, "keep_house")

    def serve_populations(self) -> None:
        """Another selector has changed something of them; missed, it is seen in a second."""
        self._try(self._process.serve_populations)

    def on_death(self, name: str, reason: BaseException | None) -> None:
        """An actor that is to live has ended."""
        self._process.died(name, reason)
        self.system.schedule(RESTART_S, self.ref, "replace", name)

    def replace(self, name: str) -> None:
        """Starts an actor in the place of one that died."""
        try:
            self._process.replace(name)
        except Exception as error:
            _log.error("actor_not_started", name=name, exc_info=error)
            self.system.schedule(RESTART_S, self.ref, "replace", name)

    def _try(self, duty: Callable[[], object]) -> None:
        try:
            duty()
        except Exception as error:
            if not self._process.closing:
                _log.error("housekeeping_failed", exc_info=error)
