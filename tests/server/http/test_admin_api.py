"""What an operator is told while the database or the blob store is away."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from werkzeug.test import TestResponse

from server.configuration import ServerConfiguration
from server.http.application import Application
from server.storage.registry import Registry
from server.tier import EmbeddedTier
from tests.postgresql import PrivatePostgresql
from tests.server.storage.conftest import VARIANT
from tests.server.storage.loopback_gcs import LoopbackGcs

POPULATION = "keyboard/next-word"


class Operator:
    """Asks the application of a tier."""

    def __init__(self, tier: EmbeddedTier) -> None:
        self.registry = tier.registry
        self._client = Application(tier).flask.test_client()
        self._token = tier.secrets.admin_token

    def get(self, path: str) -> TestResponse:
        return self._client.get(f"/v1/admin/{path}", headers=self._headers())

    def bound_sessions(self) -> TestResponse:
        return self._client.post(
            f"/v1/admin/populations/{POPULATION}/quotas",
            json={"max_sessions": 5, "max_upload_bytes": None},
            headers=self._headers(),
        )

    def with_no_token_of_ours(self) -> TestResponse:
        return self._client.get("/v1/admin/tasks", headers=self._headers("a population's?"))

    def _headers(self, token: str = "") -> dict[str, str]:
        return {"Authorization": f"Bearer {token or self._token}"}


@contextmanager
def operated(configuration: ServerConfiguration) -> Iterator[Operator]:
    tier = EmbeddedTier(configuration)
    tier.registry.populations.create(
        name=POPULATION, holdout_fraction=0.1, holdout_salt=b"salt of sixteen!"
    )
    tier.serve_populations()
    try:
        yield Operator(tier)
    finally:
        tier.close()


def assert_told_to_wait(answer: TestResponse, what: str) -> None:
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.json
    assert answer.json["error"].startswith(f"the {what} does not answer just now")


def test_an_operator_is_told_to_wait_for_a_database_server_that_is_away(tmp_path: Path) -> None:
    with PrivatePostgresql() as postgresql:
        configuration = ServerConfiguration(
            data_dir=tmp_path, database_url=postgresql.new_database(), lease_ttl_s=60.0
        )
        with operated(configuration) as operator:
            assert operator.get("tasks").status_code == 200
            assert operator.with_no_token_of_ours().status_code == 401
            postgresql.kill()
            for answer in (
                operator.get("tasks"),
                operator.get("populations"),
                operator.get(f"populations/{POPULATION}"),
                operator.bound_sessions(),
                operator.with_no_token_of_ours(),
            ):
                assert_told_to_wait(answer, "database")
                assert "postgresql" not in answer.text
            postgresql.start()
            assert operator.bound_sessions().status_code == 200


def test_an_operator_is_told_to_wait_for_a_database_file_that_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.storage.sqlite.BUSY_TIMEOUT_S", 0.1)
    with operated(ServerConfiguration(data_dir=tmp_path, lease_ttl_s=60.0)) as operator:
        with sqlite3.connect(tmp_path / "nightshift.db", isolation_level=None) as holder:
            holder.execute("BEGIN IMMEDIATE")
            assert_told_to_wait(operator.bound_sessions(), "database")
            # What only reads does not wait for who writes.
            assert operator.get("tasks").status_code == 200
            holder.execute("ROLLBACK")
        assert operator.bound_sessions().status_code == 200


def task_of_a_plan_that_was_lost(registry: Registry) -> str:
    digest = "0" * 64
    registry.plans.add(digest=digest, variants=[VARIANT], manifest={}, schedule={})
    return registry.tasks.create(
        population=POPULATION,
        name="lost",
        computation="training",
        plan_digest=digest,
        cohort={},
        rounds=1,
        initial_state_sha256=digest,
        initial_checkpoint_sha256=digest,
    )


def test_an_operator_is_told_to_wait_for_a_bucket_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LoopbackGcs("mine") as gcs:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
        configuration = ServerConfiguration(data_dir=tmp_path, blobs="gs://mine", lease_ttl_s=60.0)
        with operated(configuration) as operator:
            task = task_of_a_plan_that_was_lost(operator.registry)
            assert operator.get(f"tasks/{task}/models/0/weights").status_code == 500
            away = gcs.buckets.pop("mine")
            assert_told_to_wait(operator.get(f"tasks/{task}/models/0/weights"), "blob store")
            assert operator.get(f"tasks/{task}").status_code == 200
            gcs.buckets["mine"] = away
