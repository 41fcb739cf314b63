"""The moments of a round at which misfortune may come, and what a round makes of it.

A moment is a context manager: inside it the round stands at that moment, and
does not get past it by itself. What happens to the server happens inside; what
the moment held up goes on at its end.
"""

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from device_plan import wire_pb2 as wire
from tests.server.live.clustered import OneSelector
from tests.server.live.device import CHUNK, Device
from tests.server.live.ledger import Ledger
from tests.server.live.mean_plan import moved, update_of
from tests.server.live.served import DeployedTask, Server
from tests.server.live.waiting import eventually


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Where rounds are interrupted.

    Attributes:
        task: Whose rounds; each selects `count` devices and wants all of their updates,
            unless its plan says otherwise.
        servers: Where the devices go, in turn.
        ledger: The database.
        blobs: The directory of models.
        model_update: The process that has TensorFlow.
        count: Devices of a round.
    """

    task: DeployedTask
    servers: Sequence[Server | OneSelector]
    ledger: Ledger
    blobs: Path
    model_update: Callable[[], psutil.Process]
    count: int = 3
    _seeds: "itertools.count[int]" = field(default_factory=itertools.count)

    def devices(self) -> list[Device]:
        """New ones, each with an update of its own."""
        return [
            Device(
                self.servers[number % len(self.servers)],
                self.task.population,
                update=update_of(next(self._seeds)),
            )
            for number in range(self.count)
        ]

    def models(self) -> set[Path]:
        """The files of all models, committed or not."""
        return {path for path in self.blobs.rglob("*") if path.is_file()}

    def released(self) -> dict[str, Any] | None:
        """The open round that has its model."""
        for record in self.task.rounds():
            if record["outcome"] == "open" and record["base_model_round"] is not None:
                return record
        return None


class Interrupted:
    """A round and its devices, whatever has happened meanwhile."""

    def __init__(self, stage: Stage, devices: Sequence[Device], record: Mapping[str, Any]) -> None:
        self.stage = stage
        self.devices = list(devices)
        self.round_id = str(record["round_id"])
        self.epoch = int(record["lease_epoch"])
        self.base = int(record["base_model_round"])
        self._under_way: list[threading.Thread] = []

    def begin(self, act: Callable[[], object]) -> None:
        """A request on another thread; whatever comes of it, an answer or none."""

        def quietly() -> None:
            with suppress(OSError):
                act()

        self._under_way.append(threading.Thread(target=quietly))
        self._under_way[-1].start()

    def settle(self) -> None:
        """Waits for the requests that were begun."""
        for thread in self._under_way:
            thread.join()

    @property
    def record(self) -> dict[str, Any]:
        return self.stage.task.round(self.round_id)

    def carry_on(self, devices: Sequence[Device] | None = None) -> list[Device]:
        """The devices (all, if none are given) do what is left; those whose update is in the sum.

        An update that came too late for the goal is not.
        """
        devices = self.devices if devices is None else devices
        self.settle()
        for device in devices:
            if not device.session_id:
                device.join()
        return [device for device in devices if carried_on(device)]

    def assert_committed(self, devices: Sequence[Device] | None = None) -> None:
        """The round moved the model by exactly the mean of these devices' updates (all's)."""
        task, devices = self.stage.task, self.devices if devices is None else devices
        record = task.ended(self.round_id)
        assert record["outcome"] == "committed", record
        assert record["statistics"]["accepted"] == len(devices)
        np.testing.assert_array_equal(
            task.weights(self.base + 1),
            moved(task.weights(self.base), [device.update for device in devices]),
        )

    def assert_lost(self) -> None:
        """The round came to nothing, and its devices hear so."""
        self.settle()
        record = self.stage.task.ended(self.round_id)
        assert record["outcome"] == "abandoned", record
        assert not self.stage.ledger.rows(
            "SELECT round FROM models WHERE round_id = :round", round=self.round_id
        )
        assert self.stage.task.head == self.base
        for device in self.devices:
            if device.session_id and (reply := device.ask()).status != 200:
                # Whose update had been taken is done, whatever became of the round.
                assert reply.reason in ("ROUND_OVER", "ALREADY_SUBMITTED"), reply.error
            elif device.session_id:
                told = reply.read(wire.CheckInResponse)
                assert told.WhichOneof("outcome") == "rejection", told

    def assert_next_begins(self, since: float, within: float, *, say: str) -> float:
        """A later round selects devices, and commits; the seconds that its opening took.

        Args:
            since: When all was well again, on the clock of `time.monotonic`.
            within: Seconds.
            say: What happened, for who reads the test's output.
        """
        stage = self.stage

        def begun() -> dict[str, Any] | None:
            with suppress(Exception):
                record = stage.released()
                if record is not None and record["round_id"] != self.round_id:
                    return record
            return None

        eventually(begun)
        seconds = time.monotonic() - since
        assert seconds < within, f"{say}: the next round began after {seconds:.2f} s"
        print(f"{say}: the next round began after {seconds:.2f} s")  # noqa: T201
        with assigned(stage) as following:
            assert following.carry_on() == following.devices
        following.assert_committed()
        stage.ledger.assert_consistent(stage.task)
        return seconds


def carried_on(device: Device) -> bool:
    """What a good device does once it is answered again; whether its update is in the sum."""
    while (reply := device.ask()).status == 200:
        told = reply.read(wire.CheckInResponse)
        if told.WhichOneof("outcome") == "assignment":
            return _delivered(device)
        if told.WhichOneof("outcome") != "waiting":
            return False
        time.sleep(0.02)
    return _settled(device, reply.reason)


def _delivered(device: Device) -> bool:
    reply = device.report()
    if reply.status != 200 or not reply.read(wire.ReportResponse).upload:
        return False
    reply = device.received()
    if reply.status == 200:
        received = reply.read(wire.UploadResponse).received
        for offset in range(received, len(device.data), CHUNK):
            chunk = device.data[offset : offset + CHUNK]
            reply = device.put(chunk, offset=offset, total=len(device.data))
        if reply.status == 200:
            reply = device.submit()
    return reply.status == 200 or _settled(device, reply.reason)


def _settled(device: Device, reason: str) -> bool:
    assert reason in ("ALREADY_SUBMITTED", "ROUND_OVER", "GOAL_REACHED"), (reason, device)
    return reason == "ALREADY_SUBMITTED"


@contextmanager
def selecting(stage: Stage) -> Iterator[Interrupted]:
    """All devices but one wait in the pool."""
    record = eventually(stage.released)
    devices = stage.devices()
    for device in devices[:-1]:
        device.join()
    yield Interrupted(stage, devices, record)


@contextmanager
def assigned(stage: Stage) -> Iterator[Interrupted]:
    """All devices have their work, and compute."""
    devices = stage.devices()
    for device in devices:
        device.join()
    for device in devices:
        told = device.wait_until_told()
        assert told.WhichOneof("outcome") == "assignment", told
    (round_id,) = {device.assignment.round_id for device in devices}
    yield Interrupted(stage, devices, stage.task.round(round_id))


@contextmanager
def uploading(stage: Stage) -> Iterator[Interrupted]:
    """One update is in the sum, half of another is there, the others compute."""
    with assigned(stage) as live:
        done, half = live.devices[:2]
        assert done.finish()
        assert half.report().status == 200
        assert half.put(half.data[:CHUNK], offset=0, total=len(half.data)).status == 200
        yield live


@contextmanager
def submitting(stage: Stage) -> Iterator[Interrupted]:
    """All updates have arrived, and the last submit is on its way: it may arrive or not."""
    with assigned(stage) as live:
        for device in live.devices:
            assert device.report().status == 200
            assert device.upload().status == 200
        for device in live.devices[:-1]:
            assert device.submit().status == 200
        live.begin(live.devices[-1].submit)
        yield live


@contextmanager
def updating(stage: Stage) -> Iterator[Interrupted]:
    """All updates are in the sum, and the model update, frozen, does not answer."""
    with assigned(stage) as live, frozen(stage.model_update()):
        assert live.carry_on() == live.devices
        eventually(lambda: not _live_sessions(stage.task))
        yield live


@contextmanager
def committing(stage: Stage) -> Iterator[Interrupted]:
    """The next model's files are written, and its commit waits for the database."""
    with assigned(stage) as live, stage.ledger.locked():
        before = stage.models()
        assert live.carry_on() == live.devices
        eventually(lambda: stage.models() - before)
        yield live


@contextmanager
def committed(stage: Stage) -> Iterator[Interrupted]:
    """The next model was committed just now."""
    with assigned(stage) as live:
        assert live.carry_on() == live.devices
        while not stage.ledger.has_model(stage.task.task_id, live.base + 1):
            time.sleep(0)
        yield live


#: In their order.
MOMENTS: Mapping[str, Callable[[Stage], AbstractContextManager[Interrupted]]] = {
    moment.__name__: moment
    for moment in (selecting, assigned, uploading, submitting, updating, committing, committed)
}


@contextmanager
def frozen(process: psutil.Process) -> Iterator[None]:
    """SIGSTOP, and SIGCONT at the end if it lives."""
    process.suspend()
    try:
        yield
    finally:
        with suppress(psutil.NoSuchProcess):
            process.resume()


def _live_sessions(task: DeployedTask) -> float:
    now = task.server.admin.get(f"populations/{task.population}")["now"]
    return float(sum(value for name, value in now.items() if name != "estimated_devices"))
