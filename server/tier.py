"""The embedded tier: storage, actors and model update in one process."""

import logging
import os
import random
import secrets
import socket
import time
from contextlib import suppress

from device_plan import signing
from device_plan.archive import MalformedPlan, PlanArchive
from server.actors.cells import ActorDied, AskTimeout
from server.actors.coordinator import Coordinator
from server.actors.runtime import Actor, ActorSystem, Ref
from server.actors.selector import PopulationSettings, Selector
from server.actors.services import Services
from server.configuration import ServerConfiguration
from server.downloads import Downloads
from server.model_update.updater import ModelUpdater
from server.protocol.pace_steering import PacePolicy, PaceSteering
from server.schedule import Schedule
from server.secrets_file import ServerSecrets
from server.session_events import SessionEventLog
from server.storage.blobs import (
    BlobDamaged,
    BlobNotFound,
    LocalBlobs,
    get_content,
    put_content,
)
from server.storage.database import open_database
from server.storage.errors import UnknownPopulation
from server.storage.plans import PlanVariant
from server.storage.registry import Registry
from server.telemetry.telemetry import Telemetry
from server.upload import UploadMemory

_log = logging.getLogger(__name__)

#: Seconds between two writes of the session shapes.
HOUSEKEEPING_S = 1.0

#: Seconds until a coordinator that died is replaced, so that one that dies at once
#: does not keep the machine busy.
RESTART_S = 1.0

#: What the names of coordinators begin with.
COORDINATOR = "coordinator/"


class EmbeddedTier:
    """Everything behind the HTTP application, on the embedded actor runtime.

    Args:
        configuration: The operator's settings.

    Raises:
        UnusableDatabase: the data directory's database cannot be opened.
        InvalidKey: one of the configured plan keys cannot be read.
    """

    def __init__(self, configuration: ServerConfiguration) -> None:
        self.configuration = configuration
        self._plan_keys = [signing.load_public_key(path) for path in configuration.plan_keys]
        self.secrets = ServerSecrets.load_or_create(configuration.data_dir)
        # `nightshift serve` locks the directory: what a killed server left unfinished goes.
        self.blobs = LocalBlobs(root=configuration.data_dir / "blobs", sole=True)
        self._engine = open_database(configuration.database_url)
        self.registry = Registry(engine=self._engine)
        self.downloads = Downloads()
        self.events = SessionEventLog()
        self.updater = ModelUpdater()
        self.system = ActorSystem()
        self.telemetry = Telemetry()
        self.upload_memory = UploadMemory(limit=configuration.max_upload_bytes)
        self.selector: Ref = self.system.spawn(
            Selector,
            name="selector",
            dispatch="inline",
            clock=time.monotonic,
            rng=random.Random(secrets.randbits(64)),
            memory=self.upload_memory,
            poll_interval_s=configuration.poll_interval_s,
        )
        self.owner = f"{socket.gethostname()}/{os.getpid()}/{secrets.token_hex(4)}"
        self.coordinators: dict[str, Ref] = {}
        self._housekeeper = self.system.spawn(Housekeeper, name="housekeeper", tier=self)

    def start(self) -> None:
        """Begins to serve the populations in the registry."""
        self.updater.start()
        self._describe_old_plans()
        for population in self.registry.populations.list():
            self._serve(population.name)
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

    def populations_without_lease(self) -> list[str]:
        """Those for which no round can start now."""
        without = []
        for name, coordinator in self.coordinators.items():
            try:
                holds = coordinator.ask("holds_lease")
            except (ActorDied, AskTimeout):
                holds = False
            if not holds:
                without.append(name)
        return without

    def create_tasks(
        self, plan: PlanArchive, *, rounds: int | None = None, goal_count: int | None = None
    ) -> list[str]:
        """Registers a plan, its training task and, if it has one, its evaluation task.

        Args:
            plan: From the author.
            rounds: Rounds to commit, instead of what the author wished.
            goal_count: Updates that complete a training round, likewise.

        Returns:
            The ids of the tasks, the training task's first.

        Raises:
            MalformedPlan, ValueError: the plan cannot be run; nothing was created.
            NotTrusted: it is not signed by one of the configured keys; likewise.
        """
        if self._plan_keys:
            signing.verify_archive(plan, self._plan_keys)
        schedule = Schedule.of(plan, rounds=rounds, goal_count=goal_count)
        population = schedule.population
        self._ensure_population(population)
        for data in (plan.data, plan.initial_state, plan.initial_checkpoint):
            put_content(self.blobs, data)
        self.registry.plans.add(
            digest=plan.digest,
            variants=self._store_variants(plan),
            manifest={
                "name": plan.manifest.name,
                "graph_bytes": len(plan.graph),
                "checkpoint_bytes": len(plan.initial_checkpoint),
                "min_runtime_version": plan.manifest.min_runtime_version,
            },
            schedule=plan.schedule,
        )
        training = self.registry.tasks.create(
            population=population,
            name=schedule.name,
            computation="training",
            plan_digest=plan.digest,
            cohort=schedule.cohort.to_json(),
            rounds=schedule.rounds,
            initial_state_sha256=put_content(self.blobs, plan.initial_state),
            initial_checkpoint_sha256=put_content(self.blobs, plan.initial_checkpoint),
        )
        created = [training]
        if schedule.evaluation is not None:
            created.append(
                self.registry.tasks.create(
                    population=population,
                    name=f"{schedule.name}-evaluation",
                    computation="evaluation",
                    plan_digest=plan.digest,
                    cohort=schedule.evaluation.cohort.to_json(),
                    evaluates=training,
                    every_rounds=schedule.evaluation.every_rounds,
                )
            )
        self.coordinators[population].tell("tasks_changed")
        return created

    def signature_warning(self, plan: PlanArchive) -> str | None:
        """What an operator should know of a plan's signature that this server does not verify."""
        if self._plan_keys:
            return None
        advice = "start the server with --plan-key to run only plans signed by keys you know"
        if not plan.signature:
            return f"the plan is not signed: {advice}"
        signer = signing.signed_by(plan.signature)
        return f"the plan's signature by key {signer} was not verified: {advice}"

    def _store_variants(self, plan: PlanArchive) -> list[PlanVariant]:
        variants = []
        for part in plan.variants:
            data = part.to_bytes()
            variants.append(
                PlanVariant(
                    name=part.variant,
                    device_part_digest=put_content(self.blobs, data),
                    size=len(data),
                    runtimes=tuple(runtime.name for runtime in part.manifest.runtimes),
                )
            )
        return variants

    def _describe_old_plans(self) -> None:
        for digest in self.registry.plans.undescribed():
            try:
                plan = PlanArchive(get_content(self.blobs, digest))
            except (BlobNotFound, BlobDamaged, MalformedPlan):
                # Its tasks' rounds fail on it too, and say so.
                _log.exception("plan %s cannot be read", digest)
                continue
            self.registry.plans.describe(digest, self._store_variants(plan))

    def _ensure_population(self, name: str) -> None:
        try:
            self.registry.populations.get(name)
        except UnknownPopulation:
            self.registry.populations.create(
                name=name,
                holdout_fraction=self.configuration.holdout_fraction,
                holdout_salt=secrets.token_bytes(16),
            )
        if name not in self.coordinators:
            self._serve(name)

    def _serve(self, name: str) -> None:
        population = self.registry.populations.get(name)
        settings = self.configuration
        pace = PaceSteering(
            policy=PacePolicy(
                min_delay_s=settings.min_retry_s,
                max_delay_s=settings.max_retry_s,
                rendezvous_period_s=settings.rendezvous_s,
            )
        )
        self.selector.ask(
            "serve_population",
            PopulationSettings(
                name=name,
                holdout_fraction=population.holdout_fraction,
                holdout_salt=population.holdout_salt,
                pace=pace,
                unsupported_retry_s=settings.unsupported_retry_s,
            ),
        )
        self.start_coordinator(name)

    def start_coordinator(self, name: str) -> None:
        """Spawns a population's coordinator, watched by the housekeeper."""
        settings = self.configuration
        coordinator = self.system.spawn(
            Coordinator,
            name=f"{COORDINATOR}{name}",
            population=name,
            owner=self.owner,
            lease_ttl_s=settings.lease_ttl_s,
            retry_s=settings.round_retry_s,
            services=Services(
                selector=self.selector,
                registry=self.registry,
                blobs=self.blobs,
                downloads=self.downloads,
                updater=self.updater,
            ),
        )
        self.coordinators[name] = coordinator
        self.system.watch(self._housekeeper, coordinator)
        coordinator.tell("begin")

    def flush_events(self) -> None:
        """Stores the session shapes counted since the last call."""
        for population, tally in self.events.take().items():
            self.registry.session_shapes.add_shapes(
                population, tally.shapes, tally.bytes_up, tally.bytes_down
            )


class Housekeeper(Actor):
    """Stores session shapes, forgets ended sessions, and replaces coordinators that died.

    Args:
        tier: Whose house it is.
    """

    def __init__(self, *, tier: EmbeddedTier) -> None:
        self._tier = tier

    def keep_house(self) -> None:
        """Once a second, whatever happens."""
        try:
            self._tier.flush_events()
            self._tier.selector.ask("forget_ended_sessions")
        except Exception:
            _log.exception("housekeeping failed; it is tried again")
        self.system.schedule(HOUSEKEEPING_S, self.ref, "keep_house")

    def on_death(self, name: str, reason: BaseException | None) -> None:
        """A coordinator has ended; its successor fences whatever it has left running."""
        self._tier.telemetry.failures.actor_died("coordinator", name, reason)
        self.system.schedule(RESTART_S, self.ref, "replace", name.removeprefix(COORDINATOR))

    def replace(self, population: str) -> None:
        try:
            self._tier.start_coordinator(population)
        except Exception:
            _log.exception("the coordinator of %s cannot be started", population)
            self.system.schedule(RESTART_S, self.ref, "replace", population)
