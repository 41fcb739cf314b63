"""Settings and the one expensive fixture that all tests share."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from device_plan.reference_kernels import use_reference_kernels
from tests.house import ROOT
from tests.postgresql import PrivatePostgresql

# Before any test imports TensorFlow, which is what rules are compared with.
use_reference_kernels()

# The same examples on every machine and in every run, however slow it is;
# `make soak` draws new ones instead.
settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "exploring",
    max_examples=2000,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PrivatePostgresql]:
    """A PostgreSQL server for all tests of this process; they do not stop it."""
    with PrivatePostgresql() as server:
        yield server


@pytest.fixture(scope="session")
def digits_plan(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The plan of examples/digits_task.py, built once for all test processes.

    A process of its own builds it, so that TensorFlow stays out of the tests'.
    """
    own = tmp_path_factory.getbasetemp()
    # pytest-xdist gives each process a directory inside the run's.
    shared = own if worker_id == "master" else own.parent
    plan = shared / "digits.plan"
    with (shared / "digits.plan.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not plan.exists():
            build(plan, shared / "digits.plan.log")
    return plan


def build(plan: Path, log: Path) -> None:
    unfinished = plan.with_suffix(".unfinished")
    command = [sys.executable, "-m", "nightshift", "plan", "build", "examples/digits_task.py"]
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, "-o", str(unfinished)],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout=170)
        finally:
            # TFF starts a process that would outlive the build and hold its output.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert code == 0, log.read_text()
    unfinished.rename(plan)
