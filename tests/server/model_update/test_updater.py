"""The updater outlives its child, and the child never outlives the updater."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from device_plan.archive import PlanArchive
from device_plan.plan_pb2 import ServerPart, TensorSpec
from server.model_update.updater import ModelUpdater, UpdateFailed
from tests.server.model_update.tiny_plan import plan as write_plan

PROGRAM = "tests.server.model_update.unreliable_process"
SUMS = {"x": np.zeros(2, np.float32)}


@pytest.fixture
def updater(tmp_path: Path) -> Iterator[ModelUpdater]:
    updater = ModelUpdater(program=PROGRAM, log=tmp_path / "child.log")
    yield updater
    updater.close()


@pytest.fixture
def that(tmp_path: Path) -> Callable[[str], PlanArchive]:
    """A plan whose computations behave in a way that unreliable_process knows."""

    def plan(behaviour: str) -> PlanArchive:
        names = (behaviour, str(tmp_path / "marker"))
        part = ServerPart(metrics=[TensorSpec(name=name) for name in names])
        return PlanArchive.from_bytes(write_plan(part, part))

    return plan


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(true: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 30
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def test_one_child_serves_all_requests(
    updater: ModelUpdater, that: Callable[[str], PlanArchive]
) -> None:
    pids = {updater.apply(that("works"), "training", b"s", SUMS).metrics["pid"] for _ in range(3)}
    assert pids == {updater.pid}


def test_a_child_that_dies_in_a_request_is_replaced_unnoticed(
    updater: ModelUpdater, that: Callable[[str], PlanArchive]
) -> None:
    first = updater.apply(that("works"), "training", b"s", SUMS).metrics["pid"]
    second = updater.apply(that("dies once"), "training", b"s", SUMS).metrics["pid"]
    assert first != second
    assert not is_running(first)


def test_a_child_that_dies_between_requests_is_replaced_unnoticed(
    updater: ModelUpdater, that: Callable[[str], PlanArchive]
) -> None:
    first = updater.apply(that("works"), "training", b"s", SUMS).metrics["pid"]
    os.kill(first, signal.SIGKILL)
    assert updater.apply(that("works"), "training", b"s", SUMS).metrics["pid"] != first


def test_a_request_that_kills_every_child_fails_and_the_next_succeeds(
    updater: ModelUpdater, that: Callable[[str], PlanArchive]
) -> None:
    with pytest.raises(UpdateFailed, match=r"died twice.*signal 6"):
        updater.apply(that("dies always"), "training", b"s", SUMS)
    assert updater.apply(that("works"), "training", b"s", SUMS).state == b"s"


def test_a_request_that_never_ends_fails_and_the_next_succeeds(
    that: Callable[[str], PlanArchive],
) -> None:
    updater = ModelUpdater(program=PROGRAM, request_timeout_s=2)
    with pytest.raises(UpdateFailed, match="too long"):
        updater.apply(that("hangs"), "training", b"s", SUMS)
    assert updater.apply(that("works"), "training", b"s", SUMS).state == b"s"
    updater.close()


def test_what_the_child_prints_goes_to_the_log_and_blocks_nothing(
    updater: ModelUpdater, that: Callable[[str], PlanArchive], tmp_path: Path
) -> None:
    updater.apply(that("is noisy"), "training", b"s", SUMS)
    assert (tmp_path / "child.log").stat().st_size > 1_000_000
    assert "the last words" in (tmp_path / "child.log").read_text()


def test_requests_of_many_threads_take_turns(
    updater: ModelUpdater, that: Callable[[str], PlanArchive]
) -> None:
    plan = that("takes turns")
    with ThreadPoolExecutor(8) as threads:
        states = [bytes([index]) for index in range(16)]
        results = threads.map(lambda s: updater.apply(plan, "training", s, SUMS).state, states)
        assert list(results) == states


def test_starting_and_warming_do_not_wait(
    updater: ModelUpdater, that: Callable[[str], PlanArchive]
) -> None:
    updater.start()
    updater.warm(that("works"))
    wait_until(lambda: updater.pid is not None)
    pid = updater.pid
    assert updater.apply(that("works"), "training", b"s", SUMS).metrics["pid"] == pid


def test_a_child_started_by_a_thread_that_ended_lives_on(
    updater: ModelUpdater, that: Callable[[str], PlanArchive]
) -> None:
    def first() -> None:
        updater.apply(that("works"), "training", b"s", SUMS)

    thread = threading.Thread(target=first)
    thread.start()
    thread.join()
    pid = updater.pid
    time.sleep(0.1)
    assert updater.apply(that("works"), "training", b"s", SUMS).metrics["pid"] == pid


def test_why_the_child_cannot_start_is_said(
    updater: ModelUpdater, that: Callable[[str], PlanArchive], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNRELIABLE_START", "fails")
    for _ in range(2):
        with pytest.raises(UpdateFailed, match="no module named tensorflow"):
            updater.apply(that("works"), "training", b"s", SUMS)
    monkeypatch.delenv("UNRELIABLE_START")
    assert updater.apply(that("works"), "training", b"s", SUMS).state == b"s"


def test_a_child_that_is_never_ready_is_given_up(
    that: Callable[[str], PlanArchive], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNRELIABLE_START", "hangs")
    updater = ModelUpdater(program=PROGRAM, start_timeout_s=0.2)
    with pytest.raises(UpdateFailed, match="too long"):
        updater.apply(that("works"), "training", b"s", SUMS)
    assert updater.pid is None
    updater.close()


def test_closing_ends_the_running_request_and_those_that_wait(
    updater: ModelUpdater, that: Callable[[str], PlanArchive], tmp_path: Path
) -> None:
    plan = that("hangs")
    with ThreadPoolExecutor(3) as threads:
        running = [threads.submit(updater.apply, plan, "training", b"s", SUMS) for _ in range(3)]
        wait_until((tmp_path / "marker").exists)
        pid = updater.pid
        updater.close()
        for request in running:
            with pytest.raises(UpdateFailed, match="closed"):
                request.result(10)
    assert pid
    assert not Path(f"/proc/{pid}").exists()
    with pytest.raises(UpdateFailed, match="closed"):
        updater.apply(plan, "training", b"s", SUMS)
    updater.close()


def test_a_state_belongs_to_training_only(
    updater: ModelUpdater, that: Callable[[str], PlanArchive]
) -> None:
    with pytest.raises(ValueError, match="training needs a state"):
        updater.apply(that("works"), "training", None, SUMS)
    with pytest.raises(ValueError, match="evaluation has no state"):
        updater.apply(that("works"), "evaluation", b"s", SUMS)


@pytest.mark.parametrize("at_work", [False, True])
def test_the_child_of_a_killed_server_dies_too(
    that: Callable[[str], PlanArchive], tmp_path: Path, at_work: bool
) -> None:
    (tmp_path / "a.plan").write_bytes(that("hangs").data)
    program = (
        "import sys, threading\n"
        "import numpy as np\n"
        "from device_plan.archive import PlanArchive\n"
        "from server.model_update.updater import ModelUpdater\n"
        "updater = ModelUpdater(program=sys.argv[1])\n"
        "plan = PlanArchive.open(sys.argv[2])\n"
        "updater.start()\n"
        "while updater.pid is None: pass\n"
        "print(updater.pid, flush=True)\n"
        "if sys.argv[3] == 'True': updater.apply(plan, 'training', b's', {'x': np.zeros(1)})\n"
        "threading.Event().wait()\n"
    )
    server = subprocess.Popen(
        [sys.executable, "-c", program, PROGRAM, str(tmp_path / "a.plan"), str(at_work)],
        stdout=subprocess.PIPE,
    )
    assert server.stdout is not None
    with server.stdout:
        child = int(server.stdout.readline())
        if at_work:
            wait_until((tmp_path / "marker").exists)
        assert is_running(child)
        server.kill()
        server.wait()
    wait_until(lambda: not is_running(child))


def test_the_child_is_found_whatever_the_working_directory(
    that: Callable[[str], PlanArchive], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "__init__.py").write_text("raise ImportError('the wrong one')")
    monkeypatch.chdir(tmp_path)
    updater = ModelUpdater(program=PROGRAM)
    assert updater.apply(that("works"), "training", b"s", SUMS).state == b"s"
    updater.close()
