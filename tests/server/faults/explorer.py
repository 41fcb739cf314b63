"""Runs schedules of faults, finds those that break an invariant, and makes them short."""

from __future__ import annotations

import functools
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from unittest import mock

from server import served_population
from server.protocol.holdout import Holdout
from server.storage.registry import Registry
from tests.server.faults.deployment import (
    HOLDOUT_SALT,
    Deployment,
    prepare,
    small_pace_policy,
)
from tests.server.faults.fault import Fault, draw, single_freezes, single_kills
from tests.server.faults.invariants import Invariants
from tests.server.faults.setting import SETTINGS, Setting
from tests.server.faults.storage import Database
from tests.server.faults.virtual_device import Fleet, VirtualDevice
from tests.server.faults.web import Web
from tests.server.faults.world import Violation, World

#: Virtual seconds in which faults strike.
FAULTY_S = 8.0

#: Virtual seconds after the last fault within which every task is to commit again: the
#: longest freeze, answers that are waited for, the lease, a back-off, two rounds.
PROGRESS_S = 240.0

#: Virtual seconds within which a tier whose tasks were cancelled comes to rest.
REST_S = 120.0

#: How many faults a schedule has.
_COUNTS = (1, 1, 1, 2, 2, 3, 4, 6, 9)


@dataclass(frozen=True)
class Outcome:
    """What a run showed.

    Attributes:
        violations: Invariants that did not hold, first things first.
        struck: The faults that struck.
        commits: Rounds that were committed.
        events: Events of virtual time.
        seconds: Virtual seconds.
        deaths: What actors died of, and how often.
        points: How often each point happened while faults could strike.
    """

    violations: tuple[Violation, ...]
    struck: tuple[Fault, ...]
    commits: int
    events: int
    seconds: float
    deaths: Mapping[str, int]
    points: Mapping[str, int]

    @property
    def failure(self) -> str | None:
        """The first invariant that did not hold."""
        return self.violations[0].invariant if self.violations else None


@functools.cache
def _database(setting: Setting) -> Database:
    return Database(lambda registry: prepare(registry, setting))


def run(
    setting: Setting,
    seed: int,
    faults: Sequence[Fault] = (),
    *,
    log: Callable[[str], None] | None = None,
) -> Outcome:
    """One run: faults strike, then they stop, then the tasks are cancelled."""
    database = _database(setting)
    database.reset()
    world = World(seed=seed, faults=faults, strict=seed % 4 == 0 or log is not None, log=log)
    with (
        mock.patch.object(served_population, "pace_policy", small_pace_policy),
        world.running(),
    ):
        return _run(world, setting, seed, faults, database)


def _run(
    world: World, setting: Setting, seed: int, faults: Sequence[Fault], database: Database
) -> Outcome:
    registry = Registry(engine=database.engine, clock=lambda: 0.0)
    invariants = Invariants(world, registry)
    web = Web(world, random.Random(f"web {seed}"), setting.servers)
    deployment = Deployment(
        world, web, setting, database.engine, database.found, invariants.took_effect
    )
    deployment.start()
    fleet = Fleet(drop_out=setting.drop_out, abort=setting.abort)
    devices = [
        VirtualDevice(
            number=number,
            world=world,
            web=web,
            fleet=fleet,
            rng=random.Random(f"device {seed} {number}"),
            attributes={"country": ("de", "fr")[number % 2]},
        )
        for number in range(setting.devices)
    ]
    _let_enough_take_part(devices, setting)
    for device in devices:
        world.time.start(None, device.live)

    def broken() -> bool:
        return bool(world.violations)

    def struck() -> bool:
        return bool(faults and world.injector.exhausted) or broken()

    world.time.run(FAULTY_S, struck)
    world.injector.active = False
    points = dict(world.injector.counts)
    if not broken():
        world.trace("no more faults")
        _expect_progress(world, registry, deployment, invariants)
    if not broken():
        world.trace("tasks are cancelled")
        _expect_rest(world, deployment, fleet)
    invariants.check_history(fleet)
    return Outcome(
        violations=tuple(world.violations),
        struck=tuple(world.injector.struck),
        commits=sum(invariants.commits.values()),
        events=world.time.events,
        seconds=world.time.now,
        deaths=Counter(world.deaths),
        points=points,
    )


def _let_enough_take_part(devices: Sequence[VirtualDevice], setting: Setting) -> None:
    """Sees to it that rounds can get their devices, whichever the server holds out by chance."""
    if not setting.evaluates:
        return
    holdout = Holdout(HOLDOUT_SALT, setting.holdout_fraction)
    for evaluates, cohort in ((False, setting.cohort), (True, setting.evaluation_cohort)):
        others = [each for each in devices if holdout.holds(each.device_id) is not evaluates]
        missing = cohort.goal_count + 1 - (len(devices) - len(others))
        for device in others[: max(0, missing)]:
            while holdout.holds(device.device_id) is not evaluates:
                device.draw_key()


def _expect_progress(
    world: World, registry: Registry, deployment: Deployment, invariants: Invariants
) -> None:
    tasks = [task.task_id for task in registry.tasks.list()]
    before = dict(invariants.commits)

    def progressed() -> bool:
        return bool(world.violations) or all(
            invariants.commits[task_id] > before.get(task_id, 0) for task_id in tasks
        )

    if not world.time.run(world.time.now + PROGRESS_S, progressed):
        world.violated(
            "progress resumes",
            f"no commit in {PROGRESS_S:g} s after the last fault: {deployment.state()}",
        )


def _expect_rest(world: World, deployment: Deployment, fleet: Fleet) -> None:
    fleet.active = False
    deployment.cancel_tasks()
    until = world.time.now + REST_S
    while world.time.now < until and (fleet.in_session or deployment.leaks()):
        world.time.run(world.time.now + 1.0, lambda: bool(world.violations))
    if fleet.in_session:
        world.violated("no session waits for ever", f"{fleet.in_session} devices")
    for leak in deployment.leaks():
        world.violated("nothing is left at rest", leak)
    for failure in fleet.failures:
        world.violated("no request fails", failure)


@dataclass(frozen=True)
class Schedule:
    """What one seed means.

    Attributes:
        seed: Decides the setting, the faults, and all chance of the run.
        setting: Where it happens.
        faults: What is to strike.
    """

    seed: int
    setting: Setting
    faults: tuple[Fault, ...]

    @classmethod
    def of(cls, seed: int) -> Schedule:
        """A third of the schedules are one crash each, a sixth one lost lease each, at one
        point after the other; the others have faults of all kinds."""
        setting = SETTINGS[seed % len(SETTINGS)]
        turn, part = divmod(seed // len(SETTINGS), 6)
        if part in (0, 3):
            kills = _kills(setting)
            return cls(seed, setting, (kills[(2 * turn + part // 3) % len(kills)],))
        if part == 1:
            freezes = _freezes(setting)
            return cls(seed, setting, (freezes[turn % len(freezes)],))
        rng = random.Random(f"schedule {seed}")
        return cls(seed, setting, draw(rng, catalogue(setting), rng.choice(_COUNTS)))

    def keeping(self, places: Sequence[int]) -> Schedule:
        """The same with only those faults, by their places in the schedule."""
        return Schedule(self.seed, self.setting, tuple(self.faults[place] for place in places))

    def run(self, log: Callable[[str], None] | None = None) -> Outcome:
        return run(self.setting, self.seed, self.faults, log=log)


@functools.cache
def _kills(setting: Setting) -> list[Fault]:
    return _shuffled(single_kills(catalogue(setting)))


@functools.cache
def _freezes(setting: Setting) -> list[Fault]:
    return _shuffled(single_freezes(catalogue(setting), 2 * setting.lease_ttl_s))


def _shuffled(faults: list[Fault]) -> list[Fault]:
    random.Random(0).shuffle(faults)
    return faults


@functools.cache
def catalogue(setting: Setting) -> Mapping[str, int]:
    """The points of a run without faults, and how often each happens."""
    outcome = run(setting, 0)
    if outcome.violations:
        raise AssertionError(f"without any fault: {outcome.violations[0]}")
    return outcome.points


def shrunk(schedule: Schedule, failure: str) -> tuple[int, ...]:
    """The places of as few faults as suffice for the same failure, each of them needed."""
    kept = list(range(len(schedule.faults)))
    while True:
        for place in kept:
            fewer = [other for other in kept if other != place]
            if schedule.keeping(fewer).run().failure == failure:
                kept = fewer
                break
        else:
            return tuple(kept)
