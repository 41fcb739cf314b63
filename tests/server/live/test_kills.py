"""The server dies at the worst moments and is started again on the same data.

All tests of this module share one data directory, so that each also finds what
the crashes before it have left behind.
"""

import random
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import psutil
import pytest

from device_plan import wire_pb2 as wire
from server.admin_client import AdminError
from tests.server.live.device import Device
from tests.server.live.ledger import Ledger
from tests.server.live.mean_plan import moved, plan_for, update_of
from tests.server.live.moments import MOMENTS, Interrupted, Stage
from tests.server.live.refusals import assert_refused
from tests.server.live.served import DeployedTask, Server
from tests.server.live.waiting import eventually

COHORT: Mapping[str, float] = {"goal_count": 3, "over_selection": 1.0, "minimum_fraction": 1.0}

#: Seconds after which the next round has begun; 10 on a machine that does nothing else.
NEXT_ROUND_S = 30.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("killed"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def stage(server: Server, mean_plan: Path) -> Stage:
    task = server.deploy(plan_for("killed/mean", base=mean_plan, **COHORT))
    ledger = Ledger(f"sqlite:///{server.data / 'nightshift.db'}")
    stage = Stage(
        task=task,
        servers=[server],
        ledger=ledger,
        blobs=server.data / "blobs",
        model_update=lambda: eventually(server.model_update),
    )
    eventually(stage.released)
    return stage


def files(server: Server) -> set[Path]:
    return {path.relative_to(server.data) for path in server.data.rglob("*") if path.is_file()}


def assert_sound(ledger: Ledger) -> None:
    assert ledger.rows("PRAGMA integrity_check") == [("ok",)]


def assert_nothing_kept(server: Server, live: Interrupted) -> None:
    """No update and no sum of the lost round is anywhere on disk."""
    updates = [device.update["delta"] for device in live.devices]
    sums = [sum(updates[:count], np.zeros_like(updates[0])) for count in range(1, 4)]
    needles = [vector.tobytes()[:64] for vector in (*updates, *sums)]
    known = {"server.lock", "secrets.json"}
    known |= {"nightshift.db", "nightshift.db-wal", "nightshift.db-shm"}
    for path in files(server):
        assert str(path) in known or str(path).startswith("blobs/"), path
        content = (server.data / path).read_bytes()
        assert not any(needle in content for needle in needles), path


def restart(server: Server, stage: Stage, epoch: int) -> float:
    """Returns when there is a coordinator after that of this epoch: when the server answered."""
    server.start()
    since = time.monotonic()
    eventually(lambda: stage.ledger.epoch(stage.task.population) > epoch)
    return since


def gone(process: psutil.Process) -> bool:
    """Killed with its group, it may take a moment to be gone."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize(
    "moment", [pytest.param(m, marks=[pytest.mark.slow] * (m == "assigned")) for m in MOMENTS]
)
def test_killed(server: Server, stage: Stage, moment: str) -> None:
    epoch = stage.ledger.epoch(stage.task.population)
    processes = server.processes()
    with MOMENTS[moment](stage) as live:
        server.kill()
    eventually(lambda: all(gone(process) for process in processes))
    since = restart(server, stage, epoch)
    ended = stage.task.ended(live.round_id)
    if moment == "committed" or (moment == "submitting" and ended["outcome"] == "committed"):
        live.assert_committed()
    else:
        assert ended["reason"] == "coordinator_lost"
        live.assert_lost()
        assert_nothing_kept(server, live)
    # What became of it is known to the model, not to the sessions.
    for device in live.devices:
        if device.session_id:
            assert_refused(device.report(), 410, "ROUND_OVER", windows=False)
            assert_refused(device.submit(), 410, "ROUND_OVER", windows=False)
    live.assert_next_begins(since, NEXT_ROUND_S, say=f"server killed while {moment}")
    assert_sound(stage.ledger)


class Crowd:
    """Three devices that take part again and again while the server comes and goes."""

    def __init__(self, server: Server, task: DeployedTask) -> None:
        self._server = server
        self._task = task
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._live, args=(n,)) for n in range(3)]

    def __enter__(self) -> "Crowd":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _live(self, number: int) -> None:
        device = Device(self._server, self._task.population, update=update_of(number))
        while not self._stop.is_set():
            try:
                self._take_part(device)
            except (OSError, AssertionError):
                # Nobody answers, or the round has ended: as devices do, try again.
                self._stop.wait(0.02)

    def _take_part(self, device: Device) -> None:
        told = device.check_in().read(wire.CheckInResponse)
        while told.HasField("waiting") and not self._stop.is_set():
            self._stop.wait(0.005)
            told = device.poll()
        if told.HasField("assignment"):
            device.finish()
        else:
            self._stop.wait(0.02)


def test_killed_again_and_again_at_any_moment(server: Server, stage: Stage) -> None:
    """Every committed model is the one before it, moved by the same three updates."""
    draw = random.Random(7)
    task = stage.task
    first = task.head
    heads = [first]
    with Crowd(server, task):
        for _ in range(4):
            eventually(lambda: now_at(task) >= heads[-1] + 2)
            time.sleep(draw.uniform(0.0, 0.2))
            epoch = stage.ledger.epoch(task.population)
            server.kill()
            restart(server, stage, epoch)
            heads.append(task.head)
            assert heads[-1] >= heads[-2] + 2
        eventually(lambda: now_at(task) > heads[-1])
    stage.ledger.assert_consistent(task)
    assert_sound(stage.ledger)
    updates = [update_of(number) for number in range(3)]
    for number in range(first, task.head):
        np.testing.assert_array_equal(
            task.weights(number + 1), moved(task.weights(number), updates)
        )


def now_at(task: DeployedTask) -> int:
    try:
        return task.head
    except AdminError:
        return -1
