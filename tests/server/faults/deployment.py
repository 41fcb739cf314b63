"""The server's parts on simulated machines: placed, started, watched, started again."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from sqlalchemy import Engine

from server.actors.runtime import ActorDied
from server.actors.selector import Selector
from server.actors.services import Services
from server.cluster.model_update import RemoteUpdater
from server.cluster.tier import APART
from server.configuration import ServerConfiguration
from server.downloads import Downloads
from server.http.blob_route import BlobRoute
from server.http.credentials import SessionTokens
from server.http.device_protocol import DeviceProtocol
from server.http.events_route import EventsRoute
from server.open_plans import OpenPlans
from server.protocol.pace_steering import PacePolicy, Windows
from server.served_population import pace_policy
from server.session_events import SessionEventLog
from server.storage.blobs import get_content, put_content
from server.storage.errors import DatabaseUnavailable
from server.storage.plans import PlanVariant
from server.storage.registry import Registry
from server.telemetry.telemetry import Telemetry
from tests.server.faults.exact_plan import POPULATION, RUNTIME, ExactUpdater, plan
from tests.server.faults.parts import Directory, Parts, SimulatedClusterTier, SimulatedTier
from tests.server.faults.process import Process
from tests.server.faults.setting import Setting
from tests.server.faults.simulated_system import SimulatedCell, SimulatedSystem
from tests.server.faults.storage import FaultyBlobs, FaultyRegistry, Known, Operations
from tests.server.faults.web import Web
from tests.server.faults.world import World

#: Seconds until a process that was killed runs again.
RESTART_S = 1.0

#: Seconds, at least and at most, until Ray ends the processes of those who were spawned by
#: a process that was killed.
ORPHANED_S = (0.05, 5.0)

HOLDOUT_SALT = b"salt of sixteen!"

#: Estimating seven devices takes no megabyte.
PACE_SLOTS_LOG2 = 10

_APART = frozenset(each.__name__ for each in APART)

#: Told the process, name, arguments and result of each operation on the registry.
TookEffect = Callable[[Process, str, tuple[Any, ...], Any], None]


@functools.cache
def _plan_blobs() -> tuple[Mapping[str, bytes], PlanVariant]:
    """What is stored before a run begins."""
    objects: dict[str, bytes] = {}
    store = _Memory(objects)
    archive = plan()
    for data in (archive.data, archive.initial_state, archive.initial_checkpoint):
        put_content(store, data)
    part = archive.variants[0].to_bytes()
    variant = PlanVariant(
        name=archive.variants[0].variant,
        device_part_digest=put_content(store, part),
        size=len(part),
        runtimes=(RUNTIME,),
    )
    return objects, variant


class _Memory(FaultyBlobs):
    """Blobs before a run begins: nothing fails yet."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        self._objects = objects

    def put_new(self, key: str, data: bytes) -> bool:
        return self._objects.setdefault(key, data) is data


def prepare(registry: Registry, setting: Setting) -> None:
    """Creates the population and its tasks."""
    objects: dict[str, bytes] = {}
    archive = plan()
    store = _Memory(objects)
    registry.populations.create(
        name=POPULATION,
        holdout_fraction=setting.holdout_fraction,
        holdout_salt=HOLDOUT_SALT,
    )
    registry.plans.add(digest=archive.digest, variants=[_plan_blobs()[1]], manifest={}, schedule={})
    training = registry.tasks.create(
        population=POPULATION,
        name="train",
        computation="training",
        plan_digest=archive.digest,
        cohort=setting.cohort.to_json(),
        rounds=100_000,
        initial_state_sha256=put_content(store, archive.initial_state),
        initial_checkpoint_sha256=put_content(store, archive.initial_checkpoint),
    )
    if setting.evaluates:
        registry.tasks.create(
            population=POPULATION,
            name="evaluate",
            computation="evaluation",
            plan_digest=archive.digest,
            cohort=setting.evaluation_cohort.to_json(),
            evaluates=training,
            every_rounds=1,
        )


class Deployment:
    """All processes of a run.

    Args:
        world: The run.
        web: Where devices find the selectors.
        setting: How many processes there are.
        engine: The database.
        prepared: What reads of it find before anything is written, see `Known`.
        took_effect: See `TookEffect`.
    """

    def __init__(
        self,
        world: World,
        web: Web,
        setting: Setting,
        engine: Engine,
        prepared: dict[tuple[Any, ...], Any],
        took_effect: TookEffect,
    ) -> None:
        self._world = world
        self._web = web
        self._setting = setting
        self._engine = engine
        self._took_effect = took_effect
        self._objects = dict(_plan_blobs()[0])
        self._known = Known(prepared)
        self._directory = Directory()
        self._names: dict[str, SimulatedCell] = {}
        self._updater = ExactUpdater(world)
        self._systems: list[SimulatedSystem] = []
        self._spawned: dict[Process, list[Process]] = {}
        self._registry = Registry(engine=engine, clock=lambda: 0.0)
        world.supervisor = self._killed
        world.placement = self._place

    def start(self) -> None:
        """Starts every process that serves devices; they see to the rest."""
        for name in self._setting.servers:
            self._boot(name)

    def cancel_tasks(self) -> None:
        """As the operator does it, at the first process that is there."""
        for task in self._registry.tasks.list():
            self._registry.tasks.set_status(task.task_id, "active", "cancelled")
        self._known.forget("tasks.", "participations.")
        for system in self._systems:
            for cell in system.process.cells.values():
                if cell.role == "Coordinator":
                    cell.ref.tell("tasks_changed")

    def leaks(self) -> list[str]:
        """What is there although nothing is to be done."""
        found = []
        living = [system for system in self._systems if system.process.alive]
        serving = {system.process.name for system in living}
        found += [f"{name} does not run" for name in self._setting.servers if name not in serving]
        for system in living:
            name = system.process.name
            for cell in system.process.cells.values():
                if cell.role in ("MasterAggregator", "Aggregator"):
                    found.append(f"{name}: actor {cell.name}")
                if cell.role == "Selector":
                    found += [f"{name}: {what}" for what in _left_in(cell.actor)]
        return found

    def state(self) -> str:
        """The newest rounds, for people."""
        rounds = [
            record
            for task in self._registry.tasks.list()
            for record in self._registry.rounds.list(task.task_id)[-3:]
        ]
        return ", ".join(f"{r.round_id} {r.outcome} {r.reason or ''}".strip() for r in rounds)

    # Starting.

    def _boot(self, name: str) -> None:
        system = self._system(name)

        def main() -> None:
            try:
                self._serve(system)
            except (DatabaseUnavailable, ActorDied) as error:
                self._world.trace(f"{name} exits: {error!r}")
                self._world.kill(system.process)

        self._world.time.start(system.process, main)

    def _serve(self, system: SimulatedSystem) -> None:
        """What a process does first: its selector, its housekeeping, its HTTP."""
        process = system.process
        services = self._services(system)
        at_once = Operations(self._world, process, self._took_effect, waits=False)
        files = FaultyBlobs(self._objects, at_once)
        parts = Parts(
            configuration=_configuration(self._setting.lease_ttl_s),
            system=system,
            registry=services.registry,
            services=services,
            downloads=Downloads(load=lambda _population, sha256: get_content(files, sha256)),
            telemetry=_telemetry(),
            updater=self._updater,
            rng=random.Random(self._world.rng.random()),
        )
        tier = SimulatedClusterTier if self._setting.selectors else SimulatedTier
        selector = tier(parts, self._directory).begin()
        application = DeviceProtocol(
            _no_other_route,
            selector=selector,
            tokens=SessionTokens(key=b"of every selector"),
            events=EventsRoute(selector=selector, events=SessionEventLog()),
            blobs=BlobRoute(downloads=parts.downloads, traffic=parts.telemetry.traffic),
            max_chunk_bytes=1 << 16,
            permanent=Windows(if_accepted=(4.0, 8.0), if_rejected=(4.0, 8.0)),
            session_url=process.name if self._setting.selectors else "",
            telemetry=parts.telemetry,
        )
        self._web.serve(process, application)

    def _system(self, name: str, machine: str | None = None) -> SimulatedSystem:
        skew = self._world.rng.uniform(-1.0, 1.0) * self._setting.skew_s
        shared = self._names if self._setting.selectors else None
        system = SimulatedSystem(
            self._world,
            self._world.process(name, machine=machine, skew_s=skew),
            shared_names=shared,
        )
        self._systems.append(system)
        return system

    def _services(self, system: SimulatedSystem) -> Services:
        process = system.process
        operations = Operations(self._world, process, self._took_effect)
        blobs = FaultyBlobs(self._objects, operations)
        return Services(
            selectors=self._directory,
            registry=FaultyRegistry(self._engine, operations, self._known),  # type: ignore[arg-type]
            blobs=lambda _population: blobs,
            plans=OpenPlans(lambda _population: blobs),
            updater=RemoteUpdater(system.find) if self._setting.selectors else self._updater,
            clock=process.wall,
            rng=random.Random(self._world.rng.random()),
        )

    def _place(
        self, system: SimulatedSystem, role: str, name: str, arguments: dict[str, Any]
    ) -> SimulatedSystem:
        """In cluster mode some actors have processes of their own; a coordinator's master
        aggregators are on its machine."""
        if not self._setting.selectors or role not in _APART:
            return system
        machine = system.process.machine if role == "MasterAggregator" else None
        own = self._system(f"{role} {name}", machine)
        if "services" in arguments:
            arguments["services"] = self._services(own)
        if role == "MasterAggregator":
            self._spawned.setdefault(system.process, []).append(own.process)
        return own

    def _killed(self, process: Process) -> None:
        """A process was killed: one that serves devices is started again, and whom a
        coordinator had spawned does not outlive it long."""
        self._web.killed(process)
        for orphan in self._spawned.pop(process, ()):
            self._world.time.after(
                self._world.rng.uniform(*ORPHANED_S), None, partial(self._world.kill, orphan)
            )
        if process.name in self._setting.servers:
            self._world.time.after(RESTART_S, None, lambda: self._boot(process.name))


def small_pace_policy(configuration: ServerConfiguration) -> PacePolicy:
    """What takes the place of `pace_policy` in a run."""
    return replace(pace_policy(configuration), slots_log2=PACE_SLOTS_LOG2)


@functools.cache
def _configuration(lease_ttl_s: float) -> ServerConfiguration:
    return ServerConfiguration(
        lease_ttl_s=lease_ttl_s,
        round_retry_s=0.2,
        poll_interval_s=1.0,
        session_grace_s=5.0,
        min_retry_s=0.5,
        max_retry_s=8.0,
        max_upload_bytes=1 << 20,
        rendezvous_s=2.0,
    )


@functools.cache
def _telemetry() -> Telemetry:
    """Counts that nobody looks at here."""
    return Telemetry()


def _left_in(selector: Selector) -> list[str]:
    found = [f"round {round_id}" for round_id in selector._rounds]
    found += [
        f"{count} live sessions of {name}"
        for name, count in selector._sessions.live.items()
        if count
    ]
    if selector._memory.held:
        found.append(f"{selector._memory.held} bytes of uploads")
    for desk in selector._desks.values():
        found += [f"pool of {round_id}" for round_id in desk.quota.rounds]
        if desk.memory.held:
            found.append(f"{desk.memory.held} bytes of {desk.settings.name}")
    return found


def _no_other_route(*_: object) -> list[bytes]:
    raise AssertionError("devices of these tests know the protocol's routes only")
