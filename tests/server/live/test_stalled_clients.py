"""Clients that begin a request and fall silent, as phones do that lose their network."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from device_plan import wire_pb2 as wire
from tests.server.live.device import CHUNK, Device, crc, new_key
from tests.server.live.mean_plan import plan_for
from tests.server.live.rounds import LiveRound, assemble
from tests.server.live.served import FAST, DeployedTask, Server
from tests.server.live.waiting import eventually

#: Clients that stall at the same time, in each of two ways.
STALLED = 40

POPULATION = "stalled/mean"


@pytest.fixture(scope="module")
def task(server: Server, mean_plan: Path) -> DeployedTask:
    cohort = {"goal_count": STALLED, "over_selection": 1.0, "minimum_fraction": 1.0}
    return server.deploy(plan_for(POPULATION, base=mean_plan, **cohort))


@pytest.fixture
def connections() -> Iterator[ExitStack]:
    """Open until the end of the test."""
    with ExitStack() as stack:
        yield stack


def connect(connections: ExitStack, server: Server) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    return connections.enter_context(connection)


def begin_chunk(connections: ExitStack, server: Server, device: Device) -> socket.socket:
    """Sends the head and half of the first chunk."""
    data = device.data
    head = (
        f"PUT {device.path}/update HTTP/1.1\r\nHost: x\r\nContent-Length: {CHUNK}\r\n"
        f"Authorization: Bearer {device.token}\r\nUpload-Offset: 0\r\n"
        f"Upload-Length: {len(data)}\r\nContent-Digest: {crc(data[:CHUNK])}\r\n\r\n"
    )
    connection = connect(connections, server)
    connection.sendall(head.encode() + data[: CHUNK // 2])
    return connection


def test_clients_that_stall_shut_out_neither_others_nor_themselves(
    server: Server, task: DeployedTask, connections: ExitStack
) -> None:
    live = assemble(task, STALLED)
    hanging = []
    for device in live.devices:
        assert device.report().read(wire.ReportResponse).upload
        hanging.append(begin_chunk(connections, server, device))
    for _ in range(STALLED):
        head = (
            f"POST /v1/populations/{POPULATION}/checkins HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {new_key()}\r\nContent-Length: 1000\r\n\r\n"
        )
        connect(connections, server).sendall(head.encode() + b"\x08\x01")
    for _ in range(20):
        other = Device(server, POPULATION)
        assert other.check_in().read(wire.CheckInResponse).HasField("rejection")
    assert live.devices[0].received().read(wire.UploadResponse).received == 0
    live.finish()
    # What the old connections still send comes too late to spoil anything.
    for connection in hanging:
        connection.sendall(b"\xff" * (CHUNK // 2))
    assert len(live.in_sum) == STALLED
    live.assert_committed()


def test_an_old_connection_cannot_spoil_the_chunk_that_replaced_its_own(
    server: Server, mean_plan: Path, connections: ExitStack
) -> None:
    task = server.deploy(plan_for("stalled/one", base=mean_plan, goal_count=1, over_selection=1.0))
    live = assemble(task, 1)
    (device,) = live.devices
    assert device.report().status == 200
    old = begin_chunk(connections, server, device)
    data = device.data
    reply = device.put(data[:CHUNK], offset=0, total=len(data))
    assert reply.read(wire.UploadResponse).received == CHUNK
    old.sendall(b"\xff" * (CHUNK - CHUNK // 2))
    assert old.recv(4096).startswith(b"HTTP/1.1 ")
    assert device.received().read(wire.UploadResponse).received == CHUNK
    live.finish()
    live.assert_committed()


def test_bytes_that_trickle_in_are_an_upload(
    server: Server, mean_plan: Path, connections: ExitStack
) -> None:
    task = server.deploy(plan_for("stalled/slow", base=mean_plan, goal_count=1, over_selection=1.0))
    live: LiveRound = assemble(task, 1)
    (device,) = live.devices
    assert device.report().status == 200
    connection = begin_chunk(connections, server, device)
    rest = device.data[CHUNK // 2 : CHUNK]
    for at in range(0, len(rest), 128):
        connection.sendall(rest[at : at + 128])
    assert connection.recv(4096).startswith(b"HTTP/1.1 200")
    assert device.received().read(wire.UploadResponse).received == CHUNK
    live.finish()
    live.assert_committed()


def test_clients_that_stall_on_every_thread_are_dropped(
    tmp_path: Path, connections: ExitStack
) -> None:
    server = Server(tmp_path, (*FAST, "--threads", "8", "--idle-timeout-s", "1"))
    server.start()
    try:
        stalled = []
        for _ in range(STALLED):
            connection = connect(connections, server)
            connection.sendall(b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\na")
            stalled.append(connection)
        eventually(lambda: server.status("/healthz") == 200)
        for connection in stalled:
            assert connection.recv(4096)[:12] in (b"", b"HTTP/1.1 400")
    finally:
        server.stop()
