"""The doctor finds what is wrong, on real directories, databases, stores and ports."""

import re
import socket
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

import pytest
from sqlalchemy import Engine, select

from server.configuration import ServerConfiguration
from server.doctor import machine, service
from server.doctor.blobs import blob_findings, configured_blobs
from server.doctor.database import DatabaseExamination
from server.doctor.finding import Finding, examine
from server.doctor.rounds import REMEDIES, EndedRound, round_findings
from server.doctor.selectors import findings_of
from server.storage.blobs import LocalBlobs
from server.storage.database import open_database
from server.storage.registry import Registry
from server.storage.rounds import COORDINATOR_LOST
from server.storage.schema import leases
from tests.house import ROOT
from tests.server.live.served import free_port
from tests.server.storage.loopback_gcs import LoopbackGcs


def by_check(findings: Iterable[Finding]) -> dict[str, Finding]:
    found = {}
    for finding in findings:
        assert finding.check not in found, finding
        assert bool(finding.remedy) == (finding.status in ("warning", "wrong")), finding
        found[finding.check] = finding
    return found


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    directory = tmp_path / "data"
    directory.mkdir(mode=0o700)
    return directory


@pytest.fixture
def engine(data_dir: Path) -> Iterator[Engine]:
    engine = open_database(ServerConfiguration(data_dir=data_dir).database_url)
    yield engine
    engine.dispose()


def test_packages_that_differ_from_the_lock_are_named(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    click = metadata.version("click")
    lock.write_text(f"click=={click} \\\n    --hash=sha256:0\n")
    (found,) = machine.dependencies(lock)
    assert found.status == "fine"
    lock.write_text("click==0.0.1 \\\n    --hash=sha256:0\n")
    (found,) = machine.dependencies(lock)
    assert found.status == "warning"
    assert f"click {click} (locked: 0.0.1)" in found.detail


def test_a_good_data_directory_is_fine_and_one_that_others_may_read_is_not(
    data_dir: Path,
) -> None:
    found = by_check(machine.data_directory(data_dir))
    assert found["data directory"].status == "fine"
    assert "fsync" in found
    data_dir.chmod(0o755)
    assert by_check(machine.data_directory(data_dir))["data directory"].status == "warning"
    assert not list(data_dir.iterdir())


def test_a_data_directory_that_cannot_be_made_is_wrong_and_one_that_can_is_not(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").touch()
    assert next(machine.data_directory(tmp_path / "file" / "data")).status == "wrong"
    assert next(machine.data_directory(tmp_path / "new" / "data")).status == "skipped"


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_database_in_use_is_fine_and_left_as_it_was(
    data_dir: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    configuration = ServerConfiguration(data_dir=data_dir)
    if kind == "postgresql":
        url = request.getfixturevalue("postgresql").new_database()
        configuration = ServerConfiguration(data_dir=data_dir, database_url=url)
    engine = open_database(configuration.database_url)
    registry = Registry(engine=engine)
    for name in ("held", "expired", "never"):
        registry.populations.create(name=name, holdout_fraction=0.0, holdout_salt=bytes(16))
    registry.leases.acquire("coordinator/held", "me", 60.0)
    registry.leases.acquire("coordinator/expired", "you", 1e-6)
    examination = DatabaseExamination(configuration)
    found = by_check(examination.findings())
    assert {finding.status for finding in found.values()} == {"fine"}
    assert set(found) - {"clock"} == {"database", "schema", "database writes"}
    assert ("clock" in found) == (kind == "postgresql")
    held = by_check(examination.leases())
    assert held["population held"].status == "fine"
    assert "me, epoch 1" in held["population held"].detail
    assert held["population expired"].status == "wrong"
    assert held["population never"].status == "warning"
    with engine.connect() as connection:
        names = connection.scalars(select(leases.c.name)).all()
    engine.dispose()
    assert sorted(names) == ["coordinator/expired", "coordinator/held"]


def test_a_database_of_a_newer_version_is_wrong_and_not_touched(
    data_dir: Path, engine: Engine
) -> None:
    engine.dispose()
    with sqlite3.connect(data_dir / "nightshift.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    examination = DatabaseExamination(ServerConfiguration(data_dir=data_dir))
    found = by_check(examination.findings())
    assert found["schema"].status == "wrong"
    assert "9999 is newer" in found["schema"].detail
    assert "database writes" not in found


@pytest.mark.usefixtures("engine")
def test_a_locked_database_is_wrong(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.doctor.database.TIMEOUT_S", 0)
    with sqlite3.connect(data_dir / "nightshift.db", isolation_level=None) as holder:
        holder.execute("BEGIN IMMEDIATE")
        examination = DatabaseExamination(ServerConfiguration(data_dir=data_dir))
        found = by_check(examination.findings())
        holder.execute("ROLLBACK")
    assert found["database writes"].status == "wrong"
    assert "locked" in found["database writes"].detail


def test_a_database_server_that_is_not_there_is_wrong_and_its_password_not_shown() -> None:
    url = f"postgresql+psycopg://me:secret@127.0.0.1:{free_port()}/nightshift"
    examination = DatabaseExamination(ServerConfiguration(database_url=url))
    (found,) = examination.findings()
    assert found.status == "wrong"
    assert "secret" not in found.detail
    assert not list(examination.leases())
    assert examination.ended_rounds(1.0) is None


def test_a_blob_store_is_fine_and_left_empty(tmp_path: Path) -> None:
    store = LocalBlobs(root=tmp_path)
    assert {finding.status for finding in blob_findings(store, "it")} == {"fine"}
    assert not list(store.list())


def test_a_bucket_is_examined_as_a_directory_is(monkeypatch: pytest.MonkeyPatch) -> None:
    with LoopbackGcs("mine") as gcs:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
        found = by_check(configured_blobs("gs://mine/below"))
        assert {finding.status for finding in found.values()} == {"fine"}
        assert not gcs.buckets["mine"]
        (none,) = configured_blobs("gs://not-there")
        assert none.status == "wrong"
    (nonsense,) = configured_blobs("ftp://somewhere")
    assert nonsense.status == "wrong"


class Overwrites(LocalBlobs):
    """A store that does not know preconditions."""

    def put_new(self, key: str, data: bytes) -> bool:
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return True


def test_a_blob_store_that_overwrites_is_wrong(tmp_path: Path) -> None:
    found = by_check(blob_findings(Overwrites(root=tmp_path), "it"))
    assert found["blob store"].status == "fine"
    assert found["blob preconditions"].status == "wrong"
    assert not list(LocalBlobs(root=tmp_path).list())


def test_an_address_that_another_program_has_is_wrong() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        other.close()
        (free,) = service.port_findings(ServerConfiguration(port=port))
    assert free.status == "skipped"
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        listening = service.port_findings(ServerConfiguration(port=port))

        def hang_up() -> None:
            other.accept()[0].close()

        threading.Thread(target=hang_up, daemon=True).start()
        (taken,) = listening
    assert taken.status == "wrong"
    assert str(port) in taken.remedy


def test_an_address_of_ray_that_does_not_answer_is_wrong() -> None:
    found = service.reachable("Ray", f"127.0.0.1:{free_port()}", "start it")
    assert found.status == "wrong"
    assert service.reachable("Ray", "nonsense", "start it").status == "wrong"
    with socket.create_server(("127.0.0.1", 0)) as ray:
        port = ray.getsockname()[1]
        assert service.reachable("Ray", f"127.0.0.1:{port}", "start it").status == "fine"
        assert service.reachable("Ray", f"ray://127.0.0.1:{port}", "start it").status == "fine"


def test_selectors_that_are_missing_or_silent_are_named() -> None:
    found = by_check(findings_of(["a", "b"], {"a", "b"}, servers=2))
    assert found["selectors"].status == "fine"
    (none,) = findings_of([], set(), servers=0)
    assert none.status == "wrong"
    assert "none is registered" in none.detail
    found = by_check(findings_of(["a", "b"], {"a"}, servers=2))
    assert found["selector b"].status == "wrong"
    assert (found["selectors"].status, found["selectors"].detail[-1]) == ("fine", "a")
    found = by_check(findings_of(["a"], {"a"}, servers=3))
    assert found["selectors"].status == "warning"
    assert "1 registered with Ray (a), 3 named" in found["selectors"].detail


def test_abandoned_rounds_are_told_by_task_and_reason_with_what_to_do() -> None:
    ended = [
        *[EndedRound("good", "committed", None)] * 9,
        EndedRound("good", "abandoned", "coordinator_lost"),
        *[EndedRound("bad", "abandoned", "too_few_devices")] * 3,
        EndedRound("stopped", "abandoned", "cancelled"),
    ]
    found = by_check(round_findings(ended))
    assert found["rounds of bad"].status == "wrong"
    assert "3 of 3" in found["rounds of bad"].detail
    assert "minimum" in found["rounds of bad"].remedy
    assert found["rounds of good"].status == "warning"
    assert set(found) == {"rounds of bad", "rounds of good"}
    (fine,) = round_findings([EndedRound("good", "committed", None)])
    assert fine.status == "fine"


def test_a_check_that_fails_itself_is_a_finding() -> None:
    def broken() -> Iterator[Finding]:
        yield Finding("a", "fine", "")
        raise OSError("gone")

    first, second = examine("the check", broken)
    assert first.check == "a"
    assert (second.check, second.status, second.detail) == ("the check", "wrong", "OSError: gone")


def test_every_reason_that_a_round_is_abandoned_for_has_a_remedy() -> None:
    source = (ROOT / "server" / "protocol" / "round.py").read_text()
    reasons = set(re.findall(r'_abandon\(\s*"(\w+)"', source))
    reasons |= set(re.findall(r'Phase\.\w+: "(\w+)"', source))
    assert len(reasons) >= 7
    assert reasons | {COORDINATOR_LOST} <= set(REMEDIES)
