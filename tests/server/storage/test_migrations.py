"""A database of an earlier release is brought up to date with what it holds."""

from dataclasses import replace
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

from server.storage import database
from server.storage.database import open_database
from server.storage.registry import Registry
from tests.server.storage.conftest import VARIANT


def make_first_release(url: str) -> None:
    """A database of the first release, with a plan and a task that refers to it."""
    config = Config()
    location = Path(database.__file__).with_name("migrations")
    config.set_main_option("script_location", str(location))
    engine = create_engine(url)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for statement in (
            "INSERT INTO populations VALUES ('digits/demo', 0.1, 'x', 1.0)",
            """INSERT INTO plans (digest, device_part_digest, manifest, schedule, created_at)
            VALUES ('plan', 'device part', '{"name": "digits"}', '{}', 2.0)""",
            """INSERT INTO tasks (task_id, population, name, computation, plan_digest, cohort,
            rounds, status, created_at) VALUES ('task', 'digits/demo', 'digits', 'training',
            'plan', '{}', 20, 'active', 3.0)""",
            "INSERT INTO model_heads VALUES ('task', 1)",
            """INSERT INTO rounds (round_id, task_id, number, base_model_round, lease_name,
            lease_epoch, outcome, metrics, statistics, opened_at) VALUES ('round', 'task', 1, 7,
            'lease', 1, 'committed', '{}', '{}', 4.0)""",
            "INSERT INTO models VALUES ('task', 1, 'round', 's', 'c', '{}', 5.0)",
        ):
            # As it is: ":" and "%" in it are no parameters.
            connection.exec_driver_sql(statement)
    engine.dispose()


def test_a_plan_of_the_first_release_has_one_variant(url: str) -> None:
    make_first_release(url)
    engine = open_database(url)
    registry = Registry(engine=engine)
    plan = registry.plans.get("plan")
    assert plan.manifest == {"name": "digits"}
    assert [v.name for v in plan.variants] == ["modern"]
    assert plan.variants[0].device_part_digest == "device part"
    assert registry.tasks.get("task").plan_digest == "plan"
    engine.dispose()


def test_what_the_first_release_did_not_record_is_asked_for_until_it_is_described(
    url: str,
) -> None:
    make_first_release(url)
    engine = open_database(url)
    registry = Registry(engine=engine)
    registry.plans.add(digest="newer", variants=[VARIANT], manifest={}, schedule={})
    assert registry.plans.undescribed() == ["plan"]
    described = [VARIANT, replace(VARIANT, name="legacy", runtimes=())]
    registry.plans.describe("plan", described)
    assert registry.plans.undescribed() == []
    assert list(registry.plans.get("plan").variants) == described
    engine.dispose()


def test_what_the_first_release_stored_of_rounds_and_tasks_is_kept(url: str) -> None:
    make_first_release(url)
    engine = open_database(url)
    registry = Registry(engine=engine)
    record = registry.rounds.get("round")
    assert (record.base_model_round, record.number, record.outcome) == (7, 1, "committed")
    assert registry.models.head("task").round_id == "round"
    assert registry.tasks.get("task").weight == 1.0
    population = registry.populations.get("digits/demo")
    assert (population.max_sessions, population.max_upload_bytes) == (None, None)
    engine.dispose()
