"""A selector is told what has changed in the registry, and asking costs one statement."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from device_plan.wire_pb2 import EVALUATION, TRAINING
from server.actors.runtime import Actor, ActorSystem, Ref
from server.configuration import ServerConfiguration
from server.desk import PopulationSettings
from server.served_population import ServedPopulations
from server.storage.database import open_database
from server.storage.registry import Registry
from tests.server.storage.conftest import VARIANT, create_tasks

POPULATION = "digits/demo"


class Listener(Actor):
    """Has the settings that a selector would have."""

    def __init__(self) -> None:
        self._heard: list[PopulationSettings] = []

    def serve(self, settings: PopulationSettings) -> None:
        self._heard.append(settings)

    def heard(self) -> list[PopulationSettings]:
        """Since the last call."""
        heard, self._heard = self._heard, []
        return heard


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_database(f"sqlite:///{tmp_path}/nightshift.db")
    yield engine
    engine.dispose()


@pytest.fixture
def registry(engine: Engine) -> Registry:
    return Registry(engine=engine)


@pytest.fixture
def system() -> Iterator[ActorSystem]:
    system = ActorSystem()
    yield system
    system.shutdown()


@pytest.fixture
def selector(system: ActorSystem) -> Ref:
    return system.spawn(Listener)


@pytest.fixture
def served(registry: Registry) -> ServedPopulations:
    return ServedPopulations(registry, ServerConfiguration())


def test_an_unchanged_registry_costs_one_statement_and_tells_nothing(
    engine: Engine, registry: Registry, served: ServedPopulations, selector: Ref
) -> None:
    create_tasks(registry)
    for number in range(20):
        registry.populations.create(
            name=f"p{number}", holdout_fraction=0.1, holdout_salt=b"salt of sixteen!"
        )
    served.tell(selector)
    assert len(selector.ask("heard")) == len(served.names) == 21
    statements: list[str] = []

    @event.listens_for(engine, "before_cursor_execute")
    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    for seconds in range(1, 4):
        served.tell(selector)
        assert selector.ask("heard") == []
        asked = [each for each in statements if not each.startswith("BEGIN")]
        assert len(asked) == seconds, asked


def test_what_changes_is_told_and_nothing_else(
    registry: Registry, served: ServedPopulations, selector: Ref
) -> None:
    tasks = create_tasks(registry)
    registry.populations.create(name="other", holdout_fraction=0.1, holdout_salt=bytes(16))
    served.tell(selector)
    demo, other = selector.ask("heard")
    assert (demo.name, demo.resting, demo.max_sessions) == (POPULATION, False, None)
    variants = ((VARIANT.name, VARIANT.runtimes),)
    assert demo.offers == {TRAINING: [variants], EVALUATION: [variants]}
    assert (other.name, other.resting) == ("other", True)

    registry.populations.set_quotas(POPULATION, max_sessions=7, max_upload_bytes=None)
    served.tell(selector)
    (demo,) = selector.ask("heard")
    assert demo.max_sessions == 7

    registry.tasks.set_status(tasks.training, "active", "paused")
    registry.tasks.set_status(tasks.evaluation, "active", "cancelled")
    served.tell(selector)
    (demo,) = selector.ask("heard")
    assert demo.offers == {TRAINING: [variants], EVALUATION: []}
    assert demo.resting

    registry.tasks.set_status(tasks.training, "paused", "active")
    served.tell(selector)
    (demo,) = selector.ask("heard")
    assert not demo.resting


def test_a_selector_in_the_place_of_one_that_died_is_told_everything(
    registry: Registry, served: ServedPopulations, selector: Ref, system: ActorSystem
) -> None:
    create_tasks(registry)
    served.tell(selector)
    successor = system.spawn(Listener)
    served.tell(successor)
    assert [each.name for each in successor.ask("heard")] == [POPULATION]
