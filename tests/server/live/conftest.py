"""One server and one plan for all tests of a test process."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house import ROOT
from tests.server.live.served import Server
from tests.server.live.waiting import eventually


@pytest.fixture(scope="session")
def mean_plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plan from which tests make theirs with `plan_for`."""
    directory = tmp_path_factory.mktemp("mean-plan")
    plan = directory / "mean.plan"
    # Into a file: what TensorFlow says would hide what a test says.
    with (directory / "log").open("w") as log:
        subprocess.run(
            [sys.executable, "-m", "tests.server.live.mean_plan", str(plan)],
            cwd=ROOT,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    return plan


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for tests that leave it as it was; each has a population of its own."""
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    try:
        eventually(lambda: server.status("/readyz") == 200)
        yield server
    finally:
        server.stop()
    assert not server.errors()
