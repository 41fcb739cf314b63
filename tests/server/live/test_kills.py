"""The server dies at the worst moments and is started again on the same data.

All tests of this module share one data directory, so that each also finds what
the crashes before it have left behind.
"""

import random
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil
import pytest

from device_plan import wire_pb2 as wire
from server.admin_client import AdminError
from tests.server.live.device import CHUNK, Device
from tests.server.live.mean_plan import moved, plan_for, update_of
from tests.server.live.refusals import assert_refused
from tests.server.live.rounds import LiveRound, assemble
from tests.server.live.served import DeployedTask, Server
from tests.server.live.waiting import eventually

COHORT = {"goal_count": 3, "over_selection": 1.0, "minimum_fraction": 1.0}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("killed"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def task(server: Server, mean_plan: Path) -> DeployedTask:
    task = server.deploy(plan_for("killed/mean", base=mean_plan, **COHORT))
    first = assemble(task, 3)
    first.finish()
    first.assert_committed()
    return task


def database(server: Server) -> "closing[sqlite3.Connection]":
    return closing(sqlite3.connect(server.data / "nightshift.db", timeout=30))


def files(server: Server) -> set[Path]:
    return {path.relative_to(server.data) for path in server.data.rglob("*") if path.is_file()}


def restart(server: Server, task: DeployedTask) -> None:
    """Returns when a new coordinator has opened a round."""
    with database(server) as connection:
        (before,) = connection.execute("SELECT max(lease_epoch) FROM rounds").fetchone()
    server.start()
    eventually(lambda: task.epoch() > before)


def assert_consistent(server: Server, task: DeployedTask) -> None:
    """What must be true whenever the server runs, whatever has happened to it."""
    with database(server) as connection:
        # One commit a model and one model a commit, each with its place in the history.
        models = connection.execute("SELECT round, round_id FROM models ORDER BY round").fetchall()
        assert [number for number, _ in models] == list(range(task.head + 1))
        committed = connection.execute(
            "SELECT round_id, base_model_round FROM rounds WHERE outcome = 'committed'"
        ).fetchall()
        assert sorted(committed) == sorted((r, number - 1) for number, r in models[1:])
        events = connection.execute("SELECT round_id, event FROM round_events").fetchall()
        for kind in ("opened", "committed", "abandoned"):
            ids = [round_id for round_id, event in events if event == kind]
            assert len(ids) == len(set(ids)), kind
        ended = [round_id for round_id, event in events if event != "opened"]
        assert len(ended) == len(set(ended))
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    # Rounds of the dead have ended; at most the one of today is open.
    assert sum(record["outcome"] == "open" for record in task.rounds()) <= 1
    for number in range(task.head + 1):
        assert np.isfinite(task.weights(number)).all()


def assert_nothing_kept(server: Server, live: LiveRound) -> None:
    """No update and no sum of the lost round is anywhere on disk."""
    updates = [device.update["delta"] for device in live.devices]
    sums = [sum(updates[:count], np.zeros_like(updates[0])) for count in range(1, 4)]
    needles = [vector.tobytes()[:64] for vector in (*updates, *sums)]
    known = {"server.lock", "secrets.json"}
    known |= {"nightshift.db", "nightshift.db-wal", "nightshift.db-shm"}
    for path in files(server):
        assert str(path) in known or str(path).startswith("blobs/sha256/"), path
        content = (server.data / path).read_bytes()
        assert not any(needle in content for needle in needles), path


def assert_lost(server: Server, task: DeployedTask, live: LiveRound, head: int) -> None:
    """The round died with the server; the model is the one before, and the next round works."""
    record = task.round(live.round_id)
    assert (record["outcome"], record["reason"]) == ("abandoned", "coordinator_lost")
    assert task.head == head
    assert_nothing_kept(server, live)
    for device in live.devices:
        assert_refused(device.report(), 410, "ROUND_OVER", windows=False)
        assert_refused(device.submit(), 410, "ROUND_OVER", windows=False)
    after = assemble(task, 3)
    assert after.base == head
    after.finish()
    after.assert_committed()
    assert_consistent(server, task)


def test_killed_during_selection(server: Server, task: DeployedTask) -> None:
    head = task.head
    devices = [Device(server, task.population) for _ in range(2)]
    for device in devices:
        device.join()
    open_round = next(r for r in task.rounds() if r["outcome"] == "open")["round_id"]
    server.kill()
    restart(server, task)
    for device in devices:
        assert_refused(device.report(), 410, "ROUND_OVER", windows=False)
    record = task.round(open_round)
    assert (record["outcome"], record["reason"]) == ("abandoned", "coordinator_lost")
    assert task.head == head
    assert_consistent(server, task)


def test_killed_while_devices_report_and_upload(server: Server, task: DeployedTask) -> None:
    head = task.head
    live = assemble(task, 3)
    done, half, computing = live.devices
    assert done.finish()
    assert half.report().status == 200
    assert half.put(half.data[:CHUNK], offset=0, total=len(half.data)).status == 200
    assert computing.poll().HasField("assignment")
    server.kill()
    restart(server, task)
    assert_refused(
        half.put(half.data[CHUNK : 2 * CHUNK], offset=CHUNK, total=len(half.data)),
        410,
        "ROUND_OVER",
        windows=False,
    )
    assert_lost(server, task, live, head)


def ended(process: psutil.Process) -> bool:
    """Killed with its group, it may take a moment to be gone."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_killed_while_the_model_is_updated(server: Server, task: DeployedTask) -> None:
    head = task.head
    live = assemble(task, 3)
    # Frozen, it receives the sums and never answers.
    updating = eventually(server.model_update)
    updating.suspend()
    live.finish()
    eventually(lambda: sessions(server, task) == 0)
    server.kill()
    eventually(lambda: ended(updating))
    restart(server, task)
    assert_lost(server, task, live, head)


def sessions(server: Server, task: DeployedTask) -> float:
    """Live sessions of the population."""
    now = server.admin.get(f"populations/{task.population}")["now"]
    return float(sum(value for name, value in now.items() if name != "estimated_devices"))


def test_killed_just_before_the_commit(server: Server, task: DeployedTask) -> None:
    """The new model's files are written and its transaction waits for the database."""
    head = task.head
    live = assemble(task, 3)
    before = files(server)
    with database(server) as connection:
        connection.isolation_level = None
        connection.execute("BEGIN IMMEDIATE")
        live.finish()
        eventually(lambda: len(blobs(server) - before) >= 1)
        server.kill()
    restart(server, task)
    assert_lost(server, task, live, head)


def blobs(server: Server) -> set[Path]:
    return {path for path in files(server) if str(path).startswith("blobs/sha256/")}


def test_killed_just_after_the_commit(server: Server, task: DeployedTask) -> None:
    head = task.head
    live = assemble(task, 3)
    with database(server) as connection:
        live.finish()
        query = "SELECT count(*) FROM models WHERE round = ?"
        while not connection.execute(query, (head + 1,)).fetchone()[0]:
            time.sleep(0)
        server.kill()
    restart(server, task)
    assert task.head == head + 1
    live.assert_committed()
    # What became of it is known to the model, not to the sessions.
    assert_refused(live.devices[0].submit(), 410, "ROUND_OVER", windows=False)
    following = assemble(task, 3)
    assert following.base == head + 1
    following.finish()
    following.assert_committed()
    assert_consistent(server, task)


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


def test_killed_again_and_again_at_any_moment(server: Server, task: DeployedTask) -> None:
    """Every committed model is the one before it, moved by the same three updates."""
    draw = random.Random(7)
    first = task.head
    heads = [first]
    with Crowd(server, task):
        for _ in range(4):
            eventually(lambda: now_at(task) >= heads[-1] + 2)
            time.sleep(draw.uniform(0.0, 0.2))
            server.kill()
            restart(server, task)
            heads.append(task.head)
            assert heads[-1] >= heads[-2] + 2
        eventually(lambda: now_at(task) > heads[-1])
    assert_consistent(server, task)
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
