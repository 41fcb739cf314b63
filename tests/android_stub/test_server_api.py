import socket
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from android_stub.server_api import (
    MAX_MESSAGE_BYTES,
    NoAnswer,
    RefusedByServer,
    ServerApi,
    Timeouts,
    Traffic,
    WrongBlob,
    content_digest,
)
from device_plan import wire_pb2 as wire
from device_plan.wire_pb2 import Reason
from tests.android_stub.fake_server import FakeServer, Refuse, _blob

REQUEST = wire.CheckInRequest(protocol_version=1, check_in_id="0123456789abcdef")


@pytest.fixture
def api(server: FakeServer) -> Iterator[ServerApi]:
    api = ServerApi(url=server.url, timeouts=Timeouts(connect_s=1.0, read_s=2.0))
    yield api
    api.close()


def _check_in(api: ServerApi, population: str = "digits/demo") -> wire.CheckInResponse:
    return api.check_in(population, REQUEST, credential="key", traffic=Traffic())


def test_a_population_keeps_its_slash_and_loses_other_special_characters(server, api):
    _check_in(api, "digits/a b?c")
    assert server.requests == ["POST /v1/populations/digits/a%20b%3Fc/checkins"]


def test_a_refusal_carries_reason_windows_and_offset(server, api):
    server.script.refusals["checkins"] = [Refuse(409, Reason.CHUNK_OUT_OF_ORDER, 17)]
    with pytest.raises(
        RefusedByServer, match=r"CHUNK_OUT_OF_ORDER: as told \(HTTP 409\)"
    ) as caught:
        _check_in(api)
    assert caught.value.reason == Reason.CHUNK_OUT_OF_ORDER
    assert caught.value.upload_offset == 17
    assert caught.value.retry_windows.if_rejected.max_delay_ms == 20_000


def test_a_refusal_without_windows_says_none(server, api):
    server.script.refusals["checkins"] = [Refuse(404, Reason.UNKNOWN_POPULATION, windows=False)]
    with pytest.raises(RefusedByServer) as caught:
        _check_in(api)
    assert caught.value.retry_windows is None


def test_a_server_error_is_no_answer(server, api):
    server.script.refusals["checkins"] = [Refuse(503, Reason.REASON_UNSPECIFIED)]
    with pytest.raises(NoAnswer, match="HTTP 503"):
        _check_in(api)


def test_a_broken_answer_is_no_answer(server, api):
    server.script.lost_answers = ["checkins"]
    with pytest.raises(NoAnswer):
        _check_in(api)
    assert _check_in(api).session_id == "s0"


def test_nobody_listening_is_no_answer():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        api = ServerApi(url=f"http://127.0.0.1:{unused.getsockname()[1]}")
        with pytest.raises(NoAnswer):
            _check_in(api)


@pytest.mark.parametrize("url", ["127.0.0.1:80", "ftp://a", "", "http://", "http://["])
def test_an_address_that_is_not_http_is_refused(url):
    with pytest.raises(ValueError, match="http or https address"):
        ServerApi(url=url)


@pytest.mark.parametrize("compress", [False, True])
def test_a_blob_arrives_whole_and_its_traffic_is_counted_as_sent(server, api, compress):
    server.script.plan = bytes(100_000)
    server.script.compress = compress
    traffic = Traffic()
    assert api.fetch(_blob(server.script.plan), traffic=traffic) == bytes(100_000)
    assert (traffic.bytes_down < 1000) == compress
    assert traffic.bytes_up == 0


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (lambda data: data[:-1] + b"!", "has SHA-256"),
        (lambda data: data[:-1], "does not have the 1000 bytes"),
        (lambda data: data + b"more", "does not have the 1000 bytes"),
        (lambda data: data * 10_000, "does not have the 1000 bytes"),
    ],
)
def test_a_blob_that_is_not_the_announced_one_is_refused(server, api, tamper, message, compress):
    server.script.plan = bytes(1000)
    server.script.tamper = tamper
    server.script.compress = compress
    with pytest.raises(WrongBlob, match=message):
        api.fetch(_blob(server.script.plan), traffic=Traffic())
    server.script.tamper = lambda data: data
    assert api.fetch(_blob(server.script.plan), traffic=Traffic()) == bytes(1000)


def test_a_blob_announced_larger_than_any_is_not_asked_for(server, api):
    with pytest.raises(WrongBlob, match="at most"):
        api.fetch(wire.Blob(sha256="0", size=1 << 40, path="/v1/blobs/0"), traffic=Traffic())
    assert server.requests == []


def _raw(answer: bytes) -> tuple[str, socket.socket]:
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        connection.recv(65536)
        connection.sendall(answer)
        connection.close()

    threading.Thread(target=serve, daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}", listener


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n\xff\xff\xff",
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (2 * MAX_MESSAGE_BYTES)
        + bytes(2 * MAX_MESSAGE_BYTES),
        b"HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\n\r\n",
        b"this is no HTTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd",
        b"",
    ],
)
def test_an_answer_that_makes_no_sense_is_no_answer(answer):
    url, listener = _raw(answer)
    with listener, pytest.raises(NoAnswer):
        _check_in(ServerApi(url=url))


def test_a_captive_portal_is_a_refusal_without_a_reason():
    page = b"<html>log in</html>"
    url, listener = _raw(
        b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%s"
        % (len(page), page)
    )
    with listener, pytest.raises(RefusedByServer, match="not written by a Nightshift") as caught:
        _check_in(ServerApi(url=url))
    assert caught.value.reason == Reason.REASON_UNSPECIFIED


def test_a_silent_server_is_given_up_after_the_timeout():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        api = ServerApi(url=url, timeouts=Timeouts(connect_s=0.1, read_s=0.1))
        with pytest.raises(NoAnswer):
            _check_in(api)


def _crc32c_bitwise(data: bytes) -> int:
    """RFC 3720, appendix B.4: reflected polynomial 0x82F63B78."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


@given(st.binary(max_size=64))
def test_the_content_digest_is_crc32c_big_endian(data):
    import base64

    encoded = base64.b64encode(_crc32c_bitwise(data).to_bytes(4, "big")).decode()
    assert content_digest(data) == f"crc32c=:{encoded}:"


def test_the_content_digest_of_the_check_vector():
    assert content_digest(b"123456789") == "crc32c=:4waSgw==:"


def test_a_session_is_continued_where_the_answer_to_the_check_in_says(server):
    elsewhere = ServerApi(url="http://127.0.0.1:9", timeouts=Timeouts(connect_s=1.0, read_s=2.0))
    there = elsewhere.at(server.url + "/")
    _check_in(there)
    assert server.requests == ["POST /v1/populations/digits/demo/checkins"]
    assert elsewhere.at("") is elsewhere


@pytest.mark.parametrize("url", ["ftp://fl.example.org", "//", "http://fl.example.org"])
def test_a_session_is_not_continued_at_an_address_without_tls_or_of_another_kind(url):
    with pytest.raises(NoAnswer, match="address"):
        ServerApi(url="https://fl.example.org").at(url)
