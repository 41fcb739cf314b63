"""Ray is a cluster's alone: nobody else loads it, not even for a help text."""

import json
import subprocess
import sys

import pytest

from tests.house import PACKAGES, ROOT, imports


def test_ray_is_imported_only_below_the_cluster() -> None:
    users = {
        found.module for package in PACKAGES for found in imports(package) if found.reaches("ray")
    }
    assert users
    assert all(module.startswith("server.cluster.") for module in users), users


@pytest.mark.parametrize("module", ["server.cluster.commands", "server.http.application"])
def test_a_server_without_a_cluster_loads_no_ray(module: str) -> None:
    script = f"import {module}, json, sys; print(json.dumps(sorted(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "ray" not in json.loads(run.stdout)
    assert "tensorflow" not in json.loads(run.stdout)


def test_the_processes_of_actors_load_no_tensorflow() -> None:
    script = "import server.cluster.tier, json, sys; print(json.dumps(sorted(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "ray" in json.loads(run.stdout)
    assert "tensorflow" not in json.loads(run.stdout)
