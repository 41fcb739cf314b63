"""The reference device against a real server whose plans it may or may not trust."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from device_plan.archive import DevicePart, PlanArchive, write_archive
from device_plan.cohort import CohortPolicy
from device_plan.plan_pb2 import PlanManifest
from device_plan.signing import create_key, public_pem, sign
from tests.house import ROOT
from tests.server.live.served import Server


def for_population(base: Path, population: str, **changes: Any) -> PlanArchive:
    """The plan for rounds of one device of another population, with changes to its manifest."""
    archive = PlanArchive.open(base)
    parts = []
    for part in archive.variants:
        manifest = PlanManifest()
        manifest.CopyFrom(part.manifest)
        manifest.population = population
        for name, value in changes.items():
            setattr(manifest, name, value)
        parts.append(DevicePart(manifest=manifest, graph=part.graph))
    cohort = CohortPolicy(goal_count=1, over_selection=1.0, selection_window_s=0.05)
    return PlanArchive(
        write_archive(
            variants=parts,
            training=archive.server_part("training"),
            evaluation=archive.server_part("evaluation"),
            initial_state=archive.initial_state,
            initial_checkpoint=archive.initial_checkpoint,
            checks=archive.checks,
            schedule={
                "name": "pinned",
                "population": population,
                "rounds": 100_000,
                "cohort": cohort.to_json(),
                "evaluation": None,
            },
        )
    )


def session(
    server: Server, population: str, key: Path, directory: Path, collection: str
) -> dict[str, Any]:
    """The first session of `nightshift device run` that is more than a check-in."""
    rng = np.random.default_rng(1)
    data = directory / "examples.npz"
    np.savez(data, x=rng.random((20, 64), np.float32), y=rng.integers(0, 10, 20))
    command = [sys.executable, "-m", "nightshift", "device", "run", "--json", "--sessions", "30"]
    command += ["--server", f"http://127.0.0.1:{server.port}", "--population", population]
    command += ["--data", str(data), "--collection", collection, "--plan-key", str(key)]
    command += ["--state-dir", str(directory / "device")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as device:
        try:
            assert device.stdout is not None
            for line in device.stdout:
                record: dict[str, Any] = json.loads(line)
                if record["shape"] != "-":
                    return record
        finally:
            device.kill()
    raise AssertionError("the device was never selected")


@pytest.fixture
def key(tmp_path: Path) -> Ed25519PrivateKey:
    return create_key(tmp_path / "release.pem")


@pytest.fixture
def collection(digits_plan: Path) -> str:
    return PlanArchive.open(digits_plan).manifest.example_selector.collection


def test_a_device_trains_a_plan_that_its_pinned_key_signed(
    server: Server, digits_plan: Path, tmp_path: Path, key: Ed25519PrivateKey, collection: str
) -> None:
    population = "pinned/genuine"
    server.deploy(sign(for_population(digits_plan, population), key))
    record = session(server, population, tmp_path / "release.pem.pub", tmp_path, collection)
    assert (record["shape"], record["examples"]) == ("-v[]+^", 20)


def test_a_device_does_not_load_a_plan_that_was_altered_on_the_server(
    server: Server, digits_plan: Path, tmp_path: Path, key: Ed25519PrivateKey, collection: str
) -> None:
    population = "pinned/altered"
    genuine = PlanArchive(sign(for_population(digits_plan, population), key))
    altered = for_population(digits_plan, population, epochs=1000).with_signatures(
        archive=genuine.signature, variants=[part.signature for part in genuine.variants]
    )
    server.deploy(altered)
    record = session(server, population, tmp_path / "release.pem.pub", tmp_path, collection)
    assert record["shape"] == "-*"
    assert "was altered after the key" in record["note"]
    assert record["bytes_up"] < 1000


def test_a_device_does_not_load_a_plan_that_another_key_signed(
    server: Server, digits_plan: Path, tmp_path: Path, key: Ed25519PrivateKey, collection: str
) -> None:
    population = "pinned/stranger"
    server.deploy(sign(for_population(digits_plan, population), key))
    other = tmp_path / "other.pub"
    other.write_bytes(public_pem(Ed25519PrivateKey.generate().public_key()))
    record = session(server, population, other, tmp_path, collection)
    assert record["shape"] == "-*"
    assert "signed by the unknown key" in record["note"]
