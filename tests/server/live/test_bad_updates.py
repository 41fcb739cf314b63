"""Uploads that are wrong. The round goes on without them: its model is the others' mean."""

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from device_plan import wire_pb2 as wire
from device_plan.checkpoint import encode
from tests.server.live.device import CHUNK, Device, crc, request
from tests.server.live.mean_plan import MAX_WEIGHT, PARAMETERS, plan_for
from tests.server.live.refusals import assert_refused
from tests.server.live.rounds import LiveRound, assemble
from tests.server.live.served import DeployedTask, Server


@pytest.fixture(scope="module")
def task(server: Server, mean_plan: Path) -> DeployedTask:
    """Rounds of two updates; three devices are selected."""
    cohort = {"goal_count": 2, "over_selection": 1.5, "minimum_fraction": 1.0}
    return server.deploy(plan_for("bad-updates/mean", base=mean_plan, **cohort))


@pytest.fixture
def round_(task: DeployedTask) -> Iterator[LiveRound]:
    """An open round, which two good devices finish after the test."""
    live = assemble(task, 3)
    yield live
    live.finish(*live.devices[1:])
    live.release()
    live.assert_committed()


@pytest.fixture
def device(round_: LiveRound) -> Device:
    """The one of which the test is about; it is assigned, and that is all."""
    return round_.devices[0]


@pytest.fixture
def reported(device: Device) -> Device:
    """The same device, once it may upload."""
    assert device.report().read(wire.ReportResponse).upload
    return device


def float32(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def with_one(value: float) -> np.ndarray:
    delta = float32(PARAMETERS)
    delta[PARAMETERS // 2] = value
    return delta


WRONG_TENSORS = {
    "name": {"Delta": float32(PARAMETERS), "delta": None},
    "missing": {"num_examples": None},
    "additional": {"more": float32(1)},
    "shape": {"delta": float32(PARAMETERS, 1)},
    "fewer elements": {"delta": float32(PARAMETERS - 1)},
    "more elements": {"delta": float32(PARAMETERS + 1)},
    "scalar": {"delta": float32()},
    "float64": {"weight": np.asarray(1.0)},
    "int64": {"weight": np.asarray(1)},
    "int32": {"delta": np.zeros(PARAMETERS, np.int32)},
    "int32 count": {"num_examples": np.asarray(1, np.int32)},
    "bool": {"weight": np.asarray(True)},
}

BAD_NUMBERS = {
    "NaN": ("NOT_FINITE", {"delta": with_one(np.nan)}),
    "Inf": ("NOT_FINITE", {"delta": with_one(np.inf)}),
    "-Inf": ("NOT_FINITE", {"delta": with_one(-np.inf)}),
    "overflow": ("NOT_FINITE", {"delta": with_one(3e38)}),
    "Inf and -Inf": ("NOT_FINITE", {"delta": with_one(np.inf) - np.roll(with_one(np.inf), 1)}),
    "NaN weight": ("NOT_FINITE", {"weight": np.float32(np.nan)}),
    "Inf weight": ("NOT_FINITE", {"weight": np.float32(np.inf)}),
    "negative weight": ("OUT_OF_RANGE", {"weight": np.float32(-1)}),
    "large weight": ("OUT_OF_RANGE", {"weight": np.float32(MAX_WEIGHT + 1)}),
    "negative count": ("OUT_OF_RANGE", {"num_examples": np.int64(-1)}),
    "large count": ("OUT_OF_RANGE", {"num_examples": np.int64(2**62)}),
}

NOT_SAFETENSORS = {
    "one byte": b"\0",
    "noise": np.random.default_rng(0).bytes(5000),
    "huge header": (2**63).to_bytes(8, "little") + b"{}",
    "header beyond the file": (4000).to_bytes(8, "little") + b'{"a":1}',
    "not JSON": (7).to_bytes(8, "little") + b"no json",
    "deep JSON": (3000).to_bytes(8, "little") + b"[" * 3000,
    "list": (2).to_bytes(8, "little") + b"[]",
    "empty": (2).to_bytes(8, "little") + b"{}",
}


def assert_update_refused(device: Device, data: bytes, reason: str) -> None:
    """The update is refused at the submit, and the session is over."""
    assert device.upload(data).read(wire.UploadResponse).received == len(data)
    assert_refused(device.submit(), 422, reason)
    assert_refused(device.submit(), 410, "ROUND_OVER")
    assert_refused(device.put(b"x", offset=0, total=1), 410, "ROUND_OVER")


@pytest.mark.parametrize("what", WRONG_TENSORS)
def test_wrong_tensors_are_refused(reported: Device, what: str) -> None:
    changed = {**reported.update, **WRONG_TENSORS[what]}
    data = encode({name: value for name, value in changed.items() if value is not None})
    assert_update_refused(reported, data, "INVALID_UPDATE")


@pytest.mark.parametrize("what", BAD_NUMBERS)
def test_bad_numbers_are_refused(reported: Device, what: str) -> None:
    reason, changed = BAD_NUMBERS[what]
    reported.update = {**reported.update, **changed}
    assert_update_refused(reported, reported.data, reason)


@pytest.mark.parametrize("what", NOT_SAFETENSORS)
def test_what_is_no_safetensors_file_is_refused(reported: Device, what: str) -> None:
    assert_update_refused(reported, NOT_SAFETENSORS[what], "INVALID_UPDATE")


def test_a_safetensors_file_cut_short_is_refused(reported: Device) -> None:
    assert_update_refused(reported, reported.data[:-4], "INVALID_UPDATE")


def test_a_refused_device_may_check_in_again(reported: Device) -> None:
    assert_update_refused(reported, b"nonsense", "INVALID_UPDATE")
    assert reported.check_in().status == 200


def test_an_update_that_announces_to_be_too_large_is_refused(reported: Device) -> None:
    too_large = reported.assignment.upload.max_bytes + 1
    assert_refused(reported.put(b"x" * CHUNK, offset=0, total=too_large), 413, "TOO_LARGE")
    assert_refused(reported.put(b"x", offset=0, total=10**15 - 1), 413, "TOO_LARGE")
    assert reported.received().read(wire.UploadResponse).received == 0


def test_a_chunk_that_is_too_large_is_refused(reported: Device) -> None:
    size = len(reported.data)
    assert_refused(reported.put(b"x" * (CHUNK + 1), offset=0, total=size), 413, "TOO_LARGE")


def test_a_body_that_never_seems_to_end_is_refused_before_it_is_read(reported: Device) -> None:
    head = (
        f"PUT {reported.path}/update HTTP/1.1\r\nHost: x\r\nContent-Length: {1 << 40}\r\n"
        f"Authorization: Bearer {reported.token}\r\nAccept: application/x-protobuf\r\n"
        f"Upload-Offset: 0\r\nUpload-Length: {1 << 40}\r\nContent-Digest: {crc(b'')}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", reported.port), timeout=30) as connection:
        connection.sendall(head.encode())
        assert connection.recv(1024).startswith(b"HTTP/1.1 413")


def test_a_chunk_outside_its_update_is_refused(reported: Device) -> None:
    size = len(reported.data)
    for offset, total, chunk in [(0, 10, b"x" * 11), (size, size, b"x"), (size - 1, size, b"xx")]:
        reply = reported.put(chunk, offset=offset, total=total)
        assert_refused(reply, 400, "INVALID_FIELD")
    assert_refused(reported.put(b"", offset=0, total=size), 400, "INVALID_FIELD")


@pytest.mark.parametrize("number", ["", "-1", "+1", "1e3", "0x10", "1_0", "٣", "9" * 20, "1 2"])
def test_offsets_that_are_no_numbers_are_refused(reported: Device, number: str) -> None:
    number = number.encode().decode("latin-1")
    assert_refused(reported.put(b"x", offset=number, total=10), 400, "INVALID_FIELD")
    assert_refused(reported.put(b"x", offset=0, total=number), 400, "INVALID_FIELD")


def test_an_upload_that_changes_its_length_is_refused(reported: Device) -> None:
    data = reported.data
    assert reported.put(data[:CHUNK], offset=0, total=len(data)).status == 200
    reply = reported.put(data[CHUNK : 2 * CHUNK], offset=CHUNK, total=len(data) - 1)
    assert_refused(reply, 400, "INVALID_FIELD")


def test_a_wrong_digest_is_refused_and_the_chunk_can_be_sent_again(
    round_: LiveRound, device: Device
) -> None:
    assert device.report().status == 200
    data = device.data
    reply = device.put(data[:CHUNK], offset=0, total=len(data), digest=crc(b"something else"))
    assert_refused(reply, 422, "WRONG_DIGEST")
    assert device.received().read(wire.UploadResponse).received == 0
    round_.finish(device)


@pytest.mark.parametrize("digest", ["", "crc32c=:AAAA:", "sha-256=:AAAAAA==:", "crc32c=AAAAAA=="])
def test_a_digest_that_cannot_be_read_is_refused(reported: Device, digest: str) -> None:
    reply = reported.put(b"x", offset=0, total=10, digest=digest)
    assert_refused(reply, 400, "INVALID_FIELD")


def test_a_chunk_out_of_order_is_refused_and_learns_where_to_resume(reported: Device) -> None:
    data = reported.data
    ahead = reported.put(data[CHUNK : 2 * CHUNK], offset=CHUNK, total=len(data))
    assert_refused(ahead, 409, "CHUNK_OUT_OF_ORDER")
    assert ahead.error.upload_offset == 0
    assert reported.put(data[:CHUNK], offset=0, total=len(data)).status == 200
    overlapping = reported.put(data[10 : CHUNK + 10], offset=10, total=len(data))
    assert_refused(overlapping, 409, "CHUNK_OUT_OF_ORDER")
    assert overlapping.error.upload_offset == CHUNK


def test_a_repeated_chunk_is_answered_as_it_was_and_counts_once(
    round_: LiveRound, device: Device
) -> None:
    assert device.report().status == 200
    data = device.data
    for _ in range(3):
        reply = device.put(data[:CHUNK], offset=0, total=len(data))
        assert reply.read(wire.UploadResponse).received == CHUNK
    round_.finish(device)


def test_a_chunk_that_breaks_off_can_be_sent_again(round_: LiveRound, device: Device) -> None:
    assert device.report().status == 200
    data = device.data
    for sent in (0, 1, CHUNK - 1):
        with socket.create_connection(("127.0.0.1", device.port), timeout=30) as connection:
            connection.sendall(chunk_head(device, data, CHUNK) + data[:sent])
    assert device.received().read(wire.UploadResponse).received == 0
    round_.finish(device)


def chunk_head(device: Device, data: bytes, announced: int) -> bytes:
    """The head of the first chunk's request."""
    return (
        f"PUT {device.path}/update HTTP/1.1\r\nHost: x\r\nContent-Length: {announced}\r\n"
        f"Authorization: Bearer {device.token}\r\nUpload-Offset: 0\r\n"
        f"Upload-Length: {len(data)}\r\nContent-Digest: {crc(data[:announced])}\r\n\r\n"
    ).encode()


def test_a_chunk_of_unknown_length_is_refused(reported: Device) -> None:
    head = (
        f"PUT {reported.path}/update HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
        f"Authorization: Bearer {reported.token}\r\nUpload-Offset: 0\r\nUpload-Length: 3\r\n"
        f"Content-Digest: {crc(b'abc')}\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", reported.port), timeout=30) as connection:
        connection.sendall(head.encode())
        assert connection.recv(1024).startswith(b"HTTP/1.1 411")


def test_a_submit_before_the_upload_is_complete_is_refused(
    round_: LiveRound, device: Device
) -> None:
    assert device.report().status == 200
    nothing = device.submit()
    assert_refused(nothing, 409, "UPLOAD_INCOMPLETE")
    assert nothing.error.upload_offset == 0
    data = device.data
    assert device.put(data[:CHUNK], offset=0, total=len(data)).status == 200
    partly = device.submit()
    assert_refused(partly, 409, "UPLOAD_INCOMPLETE")
    assert partly.error.upload_offset == CHUNK
    round_.finish(device)


def test_an_upload_before_the_report_is_refused(device: Device) -> None:
    assert_refused(device.put(b"x", offset=0, total=10), 409, "WRONG_STATE")
    assert_refused(device.submit(), 409, "WRONG_STATE")


def test_an_upload_after_an_abort_is_refused(reported: Device) -> None:
    assert reported.abort().status == 200
    assert reported.abort().status == 200
    assert_refused(reported.put(b"x", offset=0, total=10), 410, "ROUND_OVER")
    assert_refused(reported.report(), 410, "ROUND_OVER")
    assert_refused(reported.submit(), 410, "ROUND_OVER")


def test_the_same_submit_twice_counts_once(round_: LiveRound, device: Device) -> None:
    round_.finish(device)
    for _ in range(2):
        assert_refused(device.submit(), 409, "ALREADY_SUBMITTED")
    assert_refused(device.upload(), 409, "ALREADY_SUBMITTED")
    assert_refused(device.report(), 409, "ALREADY_SUBMITTED")


def test_of_submits_at_the_same_time_one_counts(round_: LiveRound, device: Device) -> None:
    assert device.report().status == 200
    assert device.upload().status == 200
    start = threading.Barrier(8)

    def submit() -> tuple[int, str]:
        start.wait()
        reply = device.submit()
        return reply.status, reply.reason if reply.status != 200 else ""

    with ThreadPoolExecutor(8) as pool:
        answers = [future.result() for future in [pool.submit(submit) for _ in range(8)]]
    assert answers.count((200, "")) == 1
    assert set(answers) <= {(200, ""), (409, "ALREADY_SUBMITTED"), (429, "BUSY")}
    round_.in_sum.append(device.update)


def test_of_two_connections_that_send_one_chunk_one_counts(
    round_: LiveRound, device: Device
) -> None:
    assert device.report().status == 200
    data = device.data
    start = threading.Barrier(6)

    def put() -> tuple[int, str]:
        start.wait()
        reply = device.put(data[:CHUNK], offset=0, total=len(data))
        return reply.status, reply.reason if reply.status != 200 else ""

    with ThreadPoolExecutor(6) as pool:
        answers = {future.result() for future in [pool.submit(put) for _ in range(6)]}
    assert answers <= {(200, ""), (429, "BUSY")}
    assert device.received().read(wire.UploadResponse).received in (0, CHUNK)
    round_.finish(device)


def test_another_sessions_token_opens_nothing(round_: LiveRound, device: Device) -> None:
    thief, owner = device, round_.devices[1]
    thief.token, mine = owner.token, thief.token
    replies = [
        request(thief.port, "GET", thief.path, headers=thief.headers()),
        thief.report(),
        thief.put(b"x", offset=0, total=10),
        thief.received(),
        thief.submit(),
        thief.abort(),
    ]
    for reply in replies:
        assert_refused(reply, 403, "NOT_YOUR_SESSION", windows=False)
    thief.token = mine
    assert thief.poll().WhichOneof("outcome") == "assignment"


def test_a_device_that_comes_after_the_goal_is_told_so(round_: LiveRound, device: Device) -> None:
    late = device
    uploading = round_.devices[1]
    assert uploading.report().status == 200
    assert uploading.upload().status == 200
    round_.finish(round_.devices[2], uploading)
    round_.task.ended(round_.round_id)
    told = late.report().read(wire.ReportResponse)
    assert not told.upload
    assert told.reason == wire.GOAL_REACHED
    assert told.retry_windows.if_accepted.max_delay_ms > 0
    assert_refused(late.put(b"x", offset=0, total=10), 409, "GOAL_REACHED")
    assert_refused(late.submit(), 409, "GOAL_REACHED")


def test_an_upload_that_is_complete_after_the_goal_is_not_added(
    round_: LiveRound, reported: Device
) -> None:
    data = reported.data
    assert reported.put(data[:CHUNK], offset=0, total=len(data)).status == 200
    round_.finish(*round_.devices[1:])
    round_.task.ended(round_.round_id)
    assert_refused(reported.upload(), 409, "GOAL_REACHED")
    assert_refused(reported.submit(), 409, "GOAL_REACHED")
