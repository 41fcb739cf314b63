"""A database with one population, one plan, and a training and an evaluation task."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import Engine

from server.storage.database import open_database
from server.storage.leases import Lease
from server.storage.plans import PlanVariant
from server.storage.registry import Registry
from tests.postgresql import PrivatePostgresql

VARIANT = PlanVariant(
    name="modern",
    device_part_digest="device part",
    size=1000,
    runtimes=("tflite-runtime 2.14.0",),
)


#: The coordinator's of the population that `create_tasks` makes.
LEASE = "coordinator/digits/demo"


class ManualClock:
    """Seconds that pass only when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Tasks:
    """The ids of two tasks of the population "digits/demo"."""

    training: str
    evaluation: str


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/nightshift.db"


@pytest.fixture
def postgresql_url(postgresql: PrivatePostgresql) -> Iterator[str]:
    url = postgresql.new_database()
    yield url
    postgresql.drop_database(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    """An empty database of each kind."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = open_database(url)
    yield engine
    engine.dispose()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def registry(engine: Engine, clock: ManualClock) -> Registry:
    return Registry(engine=engine, clock=clock)


@pytest.fixture
def lease(registry: Registry) -> Lease:
    lease = registry.leases.acquire(LEASE, "me", 10)
    assert lease
    return lease


@pytest.fixture
def tasks(registry: Registry) -> Tasks:
    return create_tasks(registry)


def create_tasks(registry: Registry, population: str = "digits/demo") -> Tasks:
    registry.populations.create(name=population, holdout_fraction=0.15, holdout_salt=b"salt")
    registry.plans.add(digest="plan", variants=[VARIANT], manifest={"name": "digits"}, schedule={})
    training = registry.tasks.create(
        population=population,
        name="Digits, dense",
        computation="training",
        plan_digest="plan",
        cohort={"goal_count": 3},
        rounds=20,
        initial_state_sha256="state 0",
        initial_checkpoint_sha256="checkpoint 0",
    )
    evaluation = registry.tasks.create(
        population=population,
        name="Digits, evaluated",
        computation="evaluation",
        plan_digest="plan",
        cohort={"goal_count": 2},
        evaluates=training,
        every_rounds=5,
    )
    return Tasks(training, evaluation)
