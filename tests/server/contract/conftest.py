"""What the contract holds for: one process, and a cluster of four selectors."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house import ROOT
from tests.server.contract.bucket import Bucket, bucket
from tests.server.contract.deployment import Deployment
from tests.server.live.clustered import Cluster
from tests.server.live.served import FAST, Server
from tests.server.live.waiting import eventually

#: Half of the devices evaluate.
OPTIONS = (*FAST, "--holdout-fraction", "0.5")

#: Errors that are logged because a test kills a coordinator, or a selector.
OF_KILLS = ("part_died", "Unexpected exit from worker")


@pytest.fixture(scope="session")
def mean_plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plan from which tests make theirs with `plan_for`."""
    plan = tmp_path_factory.mktemp("mean-plan") / "mean.plan"
    with plan.with_name("log").open("w") as log:
        command = [sys.executable, "-m", "tests.server.live.mean_plan", str(plan)]
        subprocess.run(command, cwd=ROOT, check=True, stdout=log, stderr=log)
    return plan


@pytest.fixture(scope="session")
def one_process(tmp_path_factory: pytest.TempPathFactory, mean_plan: Path) -> Iterator[Deployment]:
    server = Server(tmp_path_factory.mktemp("server"), OPTIONS)
    server.start()
    try:
        eventually(lambda: server.status("/readyz") == 200)
        yield Deployment([server], mean_plan)
    finally:
        server.stop()
    assert not server.errors()


@pytest.fixture
def embedded(one_process: Deployment) -> Iterator[Deployment]:
    yield one_process
    one_process.clear()


@pytest.fixture(scope="session")
def gcs() -> Iterator[Bucket]:
    with bucket() as found:
        yield found


@pytest.fixture(scope="session")
def cluster(gcs: Bucket) -> Iterator[Cluster]:
    """Four selectors, PostgreSQL, and blobs through the real client of Google's storage."""
    cluster = Cluster(
        selectors=4, options=(*OPTIONS, "--blobs", gcs.url), environment=gcs.environment
    )
    try:
        cluster.start()
        yield cluster
        cluster.stop()
        assert not [line for line in cluster.errors() if not any(each in line for each in OF_KILLS)]
    finally:
        cluster.stop()
        cluster.remove()


@pytest.fixture(scope="session")
def four_selectors(cluster: Cluster, mean_plan: Path) -> Deployment:
    return Deployment(cluster.selectors, mean_plan)


@pytest.fixture
def clustered(four_selectors: Deployment) -> Iterator[Deployment]:
    yield four_selectors
    four_selectors.clear()


@pytest.fixture(params=["embedded", "clustered"])
def deployment(request: pytest.FixtureRequest) -> Deployment:
    """Where a test's populations are served."""
    deployment: Deployment = request.getfixturevalue(request.param)
    return deployment
