"""Requests that are wrong before there is any update: each learns what was wrong with it."""

import json
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_plan import wire_pb2 as wire
from device_plan.archive import DevicePart, PlanArchive, write_archive
from tests.server.live.device import PROTOBUF, Device, Reply, new_key, request
from tests.server.live.mean_plan import RUNTIME, plan_for
from tests.server.live.refusals import assert_refusal, assert_refused
from tests.server.live.rounds import LiveRound, assemble
from tests.server.live.served import DeployedTask, Server
from tests.server.live.waiting import eventually

POPULATION = "bad-requests/mean"


@pytest.fixture(scope="module", autouse=True)
def task(server: Server, mean_plan: Path) -> DeployedTask:
    cohort = {"goal_count": 1, "over_selection": 1.0, "selection_timeout_s": 600.0}
    return server.deploy(plan_for(POPULATION, base=mean_plan, **cohort))


@pytest.fixture
def round_(task: DeployedTask) -> Iterator[LiveRound]:
    live = assemble(task, 1)
    yield live
    live.release()


def check_in_message(**changed: object) -> wire.CheckInRequest:
    values = {"protocol_version": 1, "check_in_id": secrets.token_hex(16), "runtime": RUNTIME}
    return wire.CheckInRequest(**{**values, **changed})  # type: ignore[arg-type]


def check_in(
    server: Server,
    body: bytes | None = None,
    *,
    population: str = POPULATION,
    **headers: str,
) -> Reply:
    """A check-in of a new device, with some headers changed (None of them if empty)."""
    sent = {"Authorization": f"Bearer {new_key()}", "Content-Type": PROTOBUF, "Accept": PROTOBUF}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    return request(
        server.port,
        "POST",
        f"/v1/populations/{population}/checkins",
        headers={name: value for name, value in sent.items() if value},
        body=check_in_message().SerializeToString() if body is None else body,
    )


@pytest.mark.parametrize(
    "population",
    ["nobody", "bad-requests", "bad-requests/mean/", "bad-requests/mean%00", "%FF%FE", "..", "ä"],
)
def test_a_wrong_population_is_refused(server: Server, population: str) -> None:
    population = population.encode().decode("latin-1") if population != "ä" else "%C3%A4"
    reply = check_in(server, population=population)
    assert_refused(reply, 404, "UNKNOWN_POPULATION", windows=False)


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic dXNlcjpwYXNz",
        "Bearer short",
        "Bearer " + "A" * 42,
        "Bearer " + "A" * 44,
        "Bearer " + "!" * 43,
        "Bearer " + "\xff" * 43,
        "Bearer " + "A" * 5000,
    ],
)
def test_a_check_in_without_a_device_key_is_refused(server: Server, authorization: str) -> None:
    reply = check_in(server, Authorization=authorization)
    assert_refused(reply, 401, "MISSING_CREDENTIAL")


@pytest.mark.parametrize("version", [0, 2, 2**32 - 1])
def test_another_protocol_version_is_refused(server: Server, version: int) -> None:
    body = check_in_message(protocol_version=version).SerializeToString()
    assert_refused(check_in(server, body), 400, "UNSUPPORTED_PROTOCOL")


@pytest.mark.parametrize(
    "changed",
    [
        {"check_in_id": ""},
        {"check_in_id": "short"},
        {"check_in_id": "a" * 65},
        {"check_in_id": "a" * 15 + "\n"},
        {"check_in_id": "a" * 16 + "\n"},
        {"check_in_id": "ä" * 16},
        {"runtime": "r" * 65},
        {"client_version": "c" * 65},
    ],
)
def test_a_field_out_of_its_range_is_refused(server: Server, changed: dict[str, str]) -> None:
    body = check_in_message(**changed).SerializeToString()
    assert_refused(check_in(server, body), 400, "INVALID_FIELD")


@pytest.mark.parametrize("body", [b"\xff", b"\x12\xff", b"\x0a\x05ab", b"\x12\x02\xff\xfe"])
def test_what_is_not_protobuf_is_refused(server: Server, body: bytes) -> None:
    assert_refused(check_in(server, body), 400, "MALFORMED_MESSAGE")


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"null",
        b"[]",
        b"7",
        b'"text"',
        b"\xff\xfe",
        b"[" * 10_000,
        b'{"a":' * 3000,
        b'{"protocolVersion": "one"}',
        b'{"protocolVersion": -1}',
        b'{"protocolVersion": 1e400}',
        b'{"protocolVersion": NaN}',
        b'{"checkInId": 7}',
        b'{"checkInId": {}}',
        b'{"checkInId": "\\ud800"}',
        b'{"checkInId": "a", "checkInId": "b"}',
    ],
)
def test_what_is_not_the_messages_json_is_refused(server: Server, body: bytes) -> None:
    reply = check_in(server, body, Content_Type="application/json")
    assert_refused(reply, 400, "MALFORMED_MESSAGE")


@pytest.mark.parametrize("media_type", ["text/plain", "application/xml", ";;;", "a" * 999])
def test_an_unknown_media_type_is_refused(server: Server, media_type: str) -> None:
    assert_refused(check_in(server, Content_Type=media_type), 415, "UNSUPPORTED_MEDIA_TYPE")


def test_a_check_in_that_is_too_large_is_refused(server: Server) -> None:
    for size in (16 * 1024 + 1, 32 * 1024):
        assert_refused(check_in(server, b"x" * size), 413, "TOO_LARGE")


def raw(server: Server, data: bytes, *, half_close: bool = False) -> bytes:
    """The first bytes that come back for these bytes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(data)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        return connection.recv(4096)


HEAD = f"POST /v1/populations/{POPULATION}/checkins HTTP/1.1\r\nHost: x\r\n".encode()
KEY = f"Authorization: Bearer {'A' * 43}\r\n".encode()


def test_a_body_of_unknown_length_is_refused(server: Server) -> None:
    chunked = HEAD + KEY + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    assert raw(server, chunked).startswith(b"HTTP/1.1 411")
    assert raw(server, HEAD + KEY + b"\r\n").startswith(b"HTTP/1.1 411")


def test_a_body_that_is_cut_short_is_nothing(server: Server) -> None:
    cut = HEAD + KEY + b"Content-Length: 100\r\n\r\nabc"
    assert raw(server, cut, half_close=True)[:12] in (b"", b"HTTP/1.1 400")
    assert server.status("/healthz") == 200


@pytest.mark.parametrize(
    "data",
    [
        b"\0\0\0\0\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n" + b"A: b\r\n" * 500 + b"\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        HEAD + KEY + b"Content-Length: -1\r\n\r\n",
        HEAD + KEY + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        HEAD + KEY + b"Content-Length: abc\r\n\r\n",
        HEAD + KEY + b"Content-Length: 99999999999999999999999\r\n\r\n",
        HEAD + KEY + KEY + b"Content-Length: 0\r\n\r\n",
        HEAD + b"Authorization\r\n\r\n",
    ],
)
def test_what_is_hardly_http_is_refused(server: Server, data: bytes) -> None:
    assert raw(server, data)[:10] in (b"", b"HTTP/1.1 4", b"HTTP/1.0 4")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/v1"),
        ("GET", "/v2/sessions/x"),
        ("GET", "/v1/blobs"),
        ("GET", "/v1/sessions/x/y/z"),
        ("GET", f"/v1/populations/{POPULATION}/checkins"),
        ("DELETE", f"/v1/populations/{POPULATION}/checkins"),
        ("GET", "/v1/events"),
        ("PATCH", "/v1/sessions/x"),
        ("POST", "/v1/sessions/x"),
        ("POST", "/v1/sessions/x/update"),
        ("GET", "/v1/sessions/x/submit"),
        ("PUT", "/v1/blobs/" + "0" * 64),
        ("BREW", "/healthz"),
        ("GET", "//v1//blobs//x"),
        ("GET", "/v1/../etc/passwd"),
        ("GET", "/v1/blobs/../../secrets.json"),
        ("GET", "/v1/blobs/%2e%2e%2fsecrets.json"),
    ],
)
def test_an_unknown_route_or_method_is_refused(server: Server, method: str, path: str) -> None:
    reply = request(server.port, method, path, headers={"Accept": PROTOBUF}, body=b"")
    assert reply.status in (404, 405)
    assert reply.reason == "UNKNOWN_ROUTE"
    assert_refusal(reply)


@pytest.mark.parametrize("sha256", ["0" * 64, "x", "A" * 64, "%00", "%C3%A4"])
def test_an_unknown_blob_is_refused(server: Server, sha256: str) -> None:
    reply = request(server.port, "GET", f"/v1/blobs/{sha256}", headers={"Accept": PROTOBUF})
    assert_refused(reply, 404, "UNKNOWN_BLOB", windows=False)


def test_what_devices_need_not_know_is_not_served(server: Server) -> None:
    """The plan's server part and the server's state lie in the same store as the downloads."""
    for path in (server.data / "blobs" / "sha256").rglob("*"):
        status = server.status(f"/v1/blobs/{path.name}")
        private = path.is_file() and b"server/training.pb" in path.read_bytes()
        assert status != 200 or not private


@pytest.mark.parametrize(
    "range_", ["bytes=-", "bytes=9-1", "bytes=999999999-", "lines=1-2", "\xff"]
)
def test_a_range_that_makes_no_sense_does_no_harm(
    server: Server, round_: LiveRound, range_: str
) -> None:
    path = round_.devices[0].assignment.checkpoint.path
    reply = request(server.port, "GET", path, headers={"Range": range_, "Accept": PROTOBUF})
    assert reply.status in (200, 416)
    round_.finish()


def test_an_unknown_session_is_refused(round_: LiveRound) -> None:
    device = round_.devices[0]
    device.session_id, mine = "0" * 32, device.session_id
    for reply in (device.report(), device.submit(), device.received(), device.abort()):
        assert_refused(reply, 404, "UNKNOWN_SESSION", windows=False)
    device.session_id = mine
    round_.finish()


def test_a_session_without_its_token_is_refused(server: Server, round_: LiveRound) -> None:
    device = round_.devices[0]
    paths = [("GET", ""), ("POST", "/report"), ("GET", "/update"), ("PUT", "/update")]
    for method, path in [*paths, ("POST", "/submit"), ("POST", "/abort")]:
        reply = request(server.port, method, device.path + path, body=b"")
        assert_refused(reply, 401, "MISSING_CREDENTIAL", windows=False)
    for token in ("", "x", device.key, "\xff" * 32, device.token.upper(), device.token + "0"):
        headers = {"Authorization": f"Bearer {token}"}
        reply = request(server.port, "GET", device.path, headers=headers)
        assert reply.status in (401, 403)
        assert_refusal(reply)
    round_.finish()


def test_a_session_whose_round_is_over_is_refused(round_: LiveRound) -> None:
    round_.finish()
    round_.assert_committed()
    device = round_.devices[0]
    assert_refused(
        request(device.port, "GET", device.path, headers=device.headers()),
        409,
        "ALREADY_SUBMITTED",
    )


def test_a_device_has_one_session(round_: LiveRound) -> None:
    device = round_.devices[0]
    mine = device.session_id
    reply = device.check_in()
    assert_refused(reply, 409, "DEVICE_ALREADY_IN_SESSION")
    assert device.poll().session_id == mine
    round_.finish()
    round_.assert_committed()


def test_a_check_in_that_is_repeated_has_the_same_session(server: Server) -> None:
    device = Device(server, POPULATION)
    check_in_id = secrets.token_hex(16)

    def joined() -> wire.CheckInResponse | None:
        told = device.check_in(check_in_id).read(wire.CheckInResponse)
        return told if told.WhichOneof("outcome") == "waiting" else None

    first = eventually(joined)
    second = device.check_in(check_in_id).read(wire.CheckInResponse)
    assert (second.session_id, second.session_token) == (first.session_id, first.session_token)
    device.wait_until_told()
    third = device.check_in(check_in_id).read(wire.CheckInResponse)
    assert third.session_id == first.session_id
    assert third.assignment.round_id == device.assignment.round_id
    device.abort()


def post_events(server: Server, body: bytes, *, key: str | None = None) -> Reply:
    authorization = f"Bearer {new_key() if key is None else key}"
    headers = {"Authorization": authorization, "Content-Type": PROTOBUF}
    return request(server.port, "POST", "/v1/events", headers=headers, body=body)


def events(count: int = 1, **changed: object) -> bytes:
    values = {"population": POPULATION, "session_id": "s", "shape": "-v[]+^", **changed}
    sessions = [wire.SessionEvents(**values) for _ in range(count)]  # type: ignore[arg-type]
    return wire.EventsRequest(sessions=sessions).SerializeToString()


def test_bad_events_are_refused_and_nothing_of_them_is_counted(server: Server) -> None:
    def counted() -> object:
        return server.admin.get(f"populations/{POPULATION}")["session_shapes"]

    before = counted()
    refused = [
        (events(65, session_id=""), 400, "INVALID_FIELD"),
        (events(shape=""), 400, "INVALID_FIELD"),
        (events(shape="-v[]+^\n"), 400, "INVALID_FIELD"),
        (events(shape="hello"), 400, "INVALID_FIELD"),
        (events(shape="-" * 33), 400, "INVALID_FIELD"),
        (events(bytes_up=2**64 - 1), 400, "INVALID_FIELD"),
        (events(duration_ms=2**41), 400, "INVALID_FIELD"),
        (events(session_id="s" * 5000), 400, "INVALID_FIELD"),
        (events(population="nobody"), 404, "UNKNOWN_POPULATION"),
        (events() + events(population="nobody"), 404, "UNKNOWN_POPULATION"),
        (b"\xff", 400, "MALFORMED_MESSAGE"),
    ]
    assert post_events(server, b"").status == 200
    for body, status, reason in refused:
        assert_refused(post_events(server, body), status, reason, windows=False)
    for key, body in [("", events()), ("short", events()), ("A" * 300, b"")]:
        reply = post_events(server, body, key=key)
        assert_refused(reply, 401, "MISSING_CREDENTIAL", windows=False)
    assert counted() == before


def test_events_of_one_session_are_counted_once(server: Server) -> None:
    key, shape = new_key(), "-v[]!*"
    for _ in range(3):
        assert post_events(server, events(2, shape=shape), key=key).status == 200
    shapes = server.admin.get(f"populations/{POPULATION}")["session_shapes"]
    assert {"shape": shape, "sessions": 1} in shapes


def admin(
    server: Server, method: str, path: str, *, body: bytes = b"", token: str | None = None
) -> tuple[int, str]:
    """Status and error sentence of the operator's API."""
    secret = json.loads((server.data / "secrets.json").read_text())["admin_token"]
    authorization = f"Bearer {secret if token is None else token}"
    headers = {"Authorization": authorization} if token != "" else {}
    reply = request(server.port, method, f"/v1/admin/{path}", headers=headers, body=body)
    return reply.status, str(json.loads(reply.body).get("error", ""))


def test_the_operators_api_wants_its_token(server: Server, task: DeployedTask) -> None:
    status = task.status
    for token in ("", "x", new_key(), "\xff\xfe", "A" * 5000):
        for method, path in [
            ("GET", "tasks"),
            ("POST", "tasks"),
            ("POST", f"tasks/{task.task_id}/cancel"),
            ("GET", f"tasks/{task.task_id}/models/0/weights"),
            ("GET", f"populations/{POPULATION}"),
        ]:
            code, error = admin(server, method, path, token=token)
            assert code == 401
            assert "admin token" in error
    assert task.status == status


def test_the_operators_api_says_what_there_is_not(server: Server, task: DeployedTask) -> None:
    for method, path in [
        ("GET", "tasks/none"),
        ("GET", "tasks/none/rounds"),
        ("GET", "tasks/none/models"),
        ("POST", "tasks/none/pause"),
        ("GET", f"tasks/{task.task_id}/models/999999"),
        ("GET", f"tasks/{task.task_id}/models/{2**70}"),
        ("GET", f"tasks/{task.task_id}/models/999999/weights"),
        ("POST", f"tasks/{task.task_id}/explode"),
        ("GET", "populations/none"),
    ]:
        code, error = admin(server, method, path)
        assert code == 404, (path, code, error)
        assert error
    assert admin(server, "POST", f"tasks/{task.task_id}/resume")[0] == 409


def test_a_broken_plan_is_refused_and_nothing_is_created(server: Server, mean_plan: Path) -> None:
    good = plan_for("broken/mean", base=mean_plan, goal_count=1)
    before = admin(server, "GET", "populations/broken/mean"), server.admin.get("tasks")
    nested = b"[" * 100_000
    for broken in (
        b"",
        b"PK",
        b"nonsense" * 1000,
        good[:-1],
        good[1:],
        good[: len(good) // 2],
        good.replace(b'"goal_count": 1', b'"goal_count": 0'),
        good.replace(b'"population": "', b'"pqpulation": "'),
        plan_with_schedule(mean_plan, {}),
        plan_with_schedule(mean_plan, {"population": 7, "name": "x", "rounds": 1}),
        plan_with_schedule(mean_plan, {"rounds": 0}),
        plan_with_schedule(mean_plan, {"rounds": "many"}),
        plan_with_schedule(mean_plan, {"population": ["broken"]}),
        plan_with_schedule(mean_plan, {"population": ""}),
        plan_with_schedule(mean_plan, {"name": 7}),
        plan_with_schedule(mean_plan, {"cohort": {"goal_count": 10**9}}),
        plan_with_schedule(mean_plan, {"cohort": 7}),
        plan_with_schedule(mean_plan, {"evaluation": 7}),
        plan_with_schedule(mean_plan, {"evaluation": {"every_rounds": 0, "cohort": {}}}),
        nested,
    ):
        code, error = admin(server, "POST", "tasks", body=broken)
        assert code == 400, (code, error)
        assert error
    for query in ("goal_count=0", "goal_count=x", "rounds=0", "rounds=-1", "what=1"):
        code, error = admin(server, "POST", f"tasks?{query}", body=good)
        assert code == 400, query
    assert (admin(server, "GET", "populations/broken/mean"), server.admin.get("tasks")) == before


def plan_with_schedule(mean_plan: Path, changed: dict[str, object]) -> bytes:
    """A plan that is whole, but wishes for something impossible."""
    plan = PlanArchive(plan_for("broken/mean", base=mean_plan, goal_count=1))
    return write_archive(
        variants=[DevicePart(manifest=plan.manifest, graph=plan.graph)],
        training=plan.server_part("training"),
        evaluation=plan.server_part("evaluation"),
        initial_state=plan.initial_state,
        initial_checkpoint=plan.initial_checkpoint,
        checks={},
        schedule={**plan.schedule, **changed} if changed else {},
    )
