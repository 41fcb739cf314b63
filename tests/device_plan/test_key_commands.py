"""`nightshift plan key` and `plan sign` as who releases plans meets them."""

import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from device_plan.archive import DevicePart, PlanArchive, write_archive
from device_plan.commands import plan
from device_plan.plan_pb2 import PlanManifest, ServerPart
from device_plan.signing import (
    create_key,
    key_id,
    load_public_key,
    public_pem,
    verify_archive,
)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(plan, [str(argument) for argument in arguments])


@pytest.fixture
def plan_file(tmp_path: Path) -> Path:
    path = tmp_path / "a.plan"
    path.write_bytes(
        write_archive(
            variants=[DevicePart(manifest=PlanManifest(name="a"), graph=b"graph")],
            training=ServerPart(),
            evaluation=ServerPart(),
            initial_state=b"",
            initial_checkpoint=b"",
            checks={},
            schedule={},
        )
    )
    return path


def test_a_new_key_is_named_and_both_halves_are_written(tmp_path: Path) -> None:
    result = run("key", "new", tmp_path / "release.pem")
    assert result.exit_code == 0, result.output
    public = load_public_key(tmp_path / "release.pem.pub")
    assert key_id(public) in result.output
    assert stat.S_IMODE((tmp_path / "release.pem").stat().st_mode) == 0o600


def test_a_key_that_is_there_already_is_not_replaced(tmp_path: Path) -> None:
    run("key", "new", tmp_path / "release.pem")
    before = (tmp_path / "release.pem").read_bytes()
    result = run("key", "new", tmp_path / "release.pem")
    assert (result.exit_code, (tmp_path / "release.pem").read_bytes()) == (2, before)
    assert "never overwritten" in result.output


def test_both_halves_show_the_same_key_and_only_its_public_half(tmp_path: Path) -> None:
    key = create_key(tmp_path / "release.pem")
    shown = [run("key", "show", tmp_path / name) for name in ("release.pem", "release.pem.pub")]
    assert shown[0].output == shown[1].output
    assert shown[0].output == (
        f"key {key_id(key.public_key())}\n{public_pem(key.public_key()).decode()}"
    )
    assert "PRIVATE" not in shown[0].output


def test_what_is_no_key_is_refused(tmp_path: Path, plan_file: Path) -> None:
    result = run("key", "show", plan_file)
    assert result.exit_code == 2
    assert "PEM form" in result.output
    assert run("key", "show", tmp_path / "missing").exit_code == 2
    assert run("key", "new", tmp_path / "no" / "such" / "directory").exit_code == 2


def test_a_signed_plan_is_written_and_verifies(tmp_path: Path, plan_file: Path) -> None:
    key = create_key(tmp_path / "release.pem")
    before = plan_file.read_bytes()
    result = run("sign", plan_file, "--key", tmp_path / "release.pem", "-o", tmp_path / "s.plan")
    assert result.exit_code == 0, result.output
    signed = PlanArchive.open(tmp_path / "s.plan")
    assert verify_archive(signed, [key.public_key()]) == key_id(key.public_key())
    assert signed.digest in result.output
    assert plan_file.read_bytes() == before


def test_a_plan_is_not_signed_with_the_public_half(tmp_path: Path, plan_file: Path) -> None:
    create_key(tmp_path / "release.pem")
    (tmp_path / "release.pem.pub").chmod(0o600)
    output = tmp_path / "s.plan"
    result = run("sign", plan_file, "--key", tmp_path / "release.pem.pub", "-o", output)
    assert result.exit_code == 2
    assert "not an unencrypted private key" in result.output
    assert not output.exists()
