"""A server that is given public keys runs only the plans they signed."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from device_plan.archive import DevicePart, PlanArchive
from device_plan.signing import key_id, public_pem, sign, verify_device_part
from server.admin_client import AdminError
from tests.server.live.device import Device, request
from tests.server.live.mean_plan import plan_for
from tests.server.live.served import FAST, Server

AUTHOR = Ed25519PrivateKey.from_private_bytes(b"a" * 32)
RELEASER = Ed25519PrivateKey.from_private_bytes(b"r" * 32)
STRANGER = Ed25519PrivateKey.from_private_bytes(b"s" * 32)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("guarded")
    options = [*FAST]
    for name, key in (("author", AUTHOR), ("releaser", RELEASER)):
        path = directory / f"{name}.pub"
        path.write_bytes(public_pem(key.public_key()))
        options += ["--plan-key", str(path)]
    server = Server(directory, options)
    server.start()
    yield server
    server.stop()
    assert not server.errors()


def plan(population: str, base: Path) -> PlanArchive:
    return PlanArchive(plan_for(population, base=base, goal_count=1, over_selection=1.0))


def test_a_plan_that_nobody_signed_is_refused(guarded: Server, mean_plan: Path) -> None:
    with pytest.raises(AdminError, match=r"403: .*not signed.*plan sign"):
        guarded.deploy(plan("keys/unsigned", mean_plan).data)
    assert guarded.admin.get("tasks?population=keys/unsigned")["tasks"] == []


def test_a_plan_signed_by_a_stranger_is_refused_and_the_keys_are_named(
    guarded: Server, mean_plan: Path
) -> None:
    signed = sign(plan("keys/stranger", mean_plan), STRANGER)
    stranger, author = key_id(STRANGER.public_key()), key_id(AUTHOR.public_key())
    with pytest.raises(AdminError, match=rf"403: .*unknown key {stranger}.*{author}"):
        guarded.deploy(signed)


def test_a_plan_altered_after_it_was_signed_is_refused(guarded: Server, mean_plan: Path) -> None:
    archive = plan("keys/altered", mean_plan)
    signature = PlanArchive(sign(plan("keys/original", mean_plan), AUTHOR)).signature
    altered = archive.with_signatures(archive=signature, variants=[signature])
    with pytest.raises(AdminError, match=r"403: .*altered"):
        guarded.deploy(altered)


@pytest.mark.parametrize("key", [AUTHOR, RELEASER], ids=["author", "releaser"])
def test_a_plan_signed_by_any_of_the_keys_runs_and_devices_get_its_signature(
    guarded: Server, mean_plan: Path, key: Ed25519PrivateKey
) -> None:
    archive = plan(f"keys/{key_id(key.public_key())}", mean_plan)
    task = guarded.deploy(sign(archive, key))
    device = Device(guarded, task.population)
    device.join()
    assignment = device.wait_until_told().assignment
    body = request(guarded.port, "GET", assignment.plan.path).body
    assert verify_device_part(DevicePart.from_bytes(body), [key.public_key()])
    device.abort()


def test_no_warning_is_given_for_a_plan_that_was_verified(guarded: Server, mean_plan: Path) -> None:
    answer = guarded.admin.post("tasks", sign(plan("keys/verified", mean_plan), AUTHOR))
    assert answer["warnings"] == []


def test_a_server_without_keys_runs_any_plan_and_warns(server: Server, mean_plan: Path) -> None:
    archive = plan("keys/warned", mean_plan)
    (warning,) = server.admin.post("tasks", archive.data)["warnings"]
    assert "not signed" in warning
    assert "--plan-key" in warning
    (warning,) = server.admin.post("tasks", sign(archive, AUTHOR))["warnings"]
    assert f"by key {key_id(AUTHOR.public_key())} was not verified" in warning
    assert "not signed" in server.log.read_text()


def test_a_server_does_not_start_with_a_key_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("Dear Sir or Madam")
    server = Server(tmp_path, [*FAST, "--plan-key", str(tmp_path / "letter")])
    with pytest.raises(AssertionError, match="letter is not a public key"):
        server.start()
