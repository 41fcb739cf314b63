"""Whatever is sent to any route, the answer is never a 5xx, and rounds go on undisturbed."""

import re
import string
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from google.protobuf import json_format
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from device_plan import wire_pb2 as wire
from tests.server.live.device import CHUNK, PROTOBUF, Device, crc, request
from tests.server.live.mean_plan import RUNTIME, plan_for
from tests.server.live.refusals import assert_refusal
from tests.server.live.rounds import assemble
from tests.server.live.served import Server

POPULATION = "anything/mean"

#: Devices that misbehave, and those that finish the round in spite of them.
WILD, GOOD = 6, 2


@dataclass(frozen=True)
class Route:
    """One request as it should be, with `{session}` for that of one wild device."""

    method: str
    path: str
    message: Message | None = None


ROUTES = [
    Route(
        "POST",
        f"/v1/populations/{POPULATION}/checkins",
        wire.CheckInRequest(protocol_version=1, check_in_id="0123456789abcdef", runtime=RUNTIME),
    ),
    Route("GET", "/v1/sessions/{session}"),
    Route("POST", "/v1/sessions/{session}/report", wire.ReportRequest(examples=5, batches=1)),
    Route("PUT", "/v1/sessions/{session}/update"),
    Route("GET", "/v1/sessions/{session}/update"),
    Route("POST", "/v1/sessions/{session}/submit", wire.SubmitRequest()),
    Route("POST", "/v1/sessions/{session}/abort", wire.AbortRequest(reason=wire.OUT_OF_TIME)),
    Route("GET", "/v1/blobs/" + "0" * 64),
    Route(
        "POST",
        "/v1/events",
        wire.EventsRequest(sessions=[wire.SessionEvents(population=POPULATION, shape="-v[!")]),
    ),
    Route("GET", "/v1/admin/tasks"),
    Route("POST", "/v1/admin/tasks"),
    Route("GET", "/readyz"),
]

#: Header values that HTTP allows, as its bytes in latin-1.
VALUES = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=80
)

NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70).map(str), st.sampled_from(["", "0", "4096", "12000", "00", "NaN"])
)

#: The text of a path, which http.client sends as it is.
PATHS = st.text(string.ascii_letters + string.digits + "/%._-~:@!$&'()*+,;=?#", max_size=60)


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes with some of them changed, removed, repeated or replaced."""
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        until = draw(st.integers(at, min(len(data), at + 8)))
        data = data[:at] + draw(st.binary(max_size=6)) + data[until:]
    return data


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3)
    ),
    max_leaves=6,
)

FIELDS = sorted(
    {
        field.json_name
        for message in (wire.CheckInRequest, wire.ReportRequest, wire.AbortRequest)
        for field in message.DESCRIPTOR.fields
    }
    | {"sessions", "shape", "population"}
)


def bodies(route: Route) -> st.SearchStrategy[tuple[str, bytes]]:
    """Content type and body: the right ones, damaged ones, and any."""
    kinds: list[st.SearchStrategy[tuple[str, bytes]]] = [
        st.tuples(st.sampled_from([PROTOBUF, "application/json"]), st.binary(max_size=200)),
        st.tuples(VALUES, st.binary(max_size=50)),
        st.tuples(
            st.just("application/json"),
            st.dictionaries(st.sampled_from(FIELDS), JSON_VALUES, max_size=4).map(
                lambda value: json_format.json.dumps(value).encode()
            ),
        ),
        st.tuples(
            st.just("application/json"),
            JSON_VALUES.map(lambda value: json_format.json.dumps(value).encode()),
        ),
    ]
    if route.message is not None:
        as_json = json_format.MessageToJson(route.message).encode()
        kinds += [
            st.tuples(st.just(PROTOBUF), damaged(route.message.SerializeToString())),
            st.tuples(st.just("application/json"), damaged(as_json)),
        ]
    return st.one_of(kinds)


@pytest.fixture(scope="module")
def devices(server: Server, mean_plan: Path) -> Iterator[list[Device]]:
    """Wild devices of an open round, which goes on without them."""
    cohort = {"goal_count": GOOD, "over_selection": (WILD + GOOD) / GOOD, "minimum_fraction": 1.0}
    task = server.deploy(plan_for(POPULATION, base=mean_plan, **cohort))
    live = assemble(task, WILD + GOOD)
    for device in live.devices[:WILD]:
        assert device.report().status == 200
    yield live.devices[:WILD]
    live.finish(*live.devices[WILD:])
    live.assert_committed()


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_no_request_makes_the_server_fail(
    server: Server, devices: list[Device], route: Route, data: st.DataObject
) -> None:
    device = data.draw(st.sampled_from(devices), "device")
    path = route.path.format(session=device.session_id)
    if data.draw(st.booleans(), "other path"):
        at = data.draw(st.integers(1, len(path)))
        path = path[:at] + data.draw(PATHS)
    content_type, body = data.draw(bodies(route), "body")
    right = "/events" in path or "/checkins" in path
    headers = {
        "Authorization": f"Bearer {device.key if right else device.token}",
        "Content-Type": content_type,
        "Accept": PROTOBUF,
        "Upload-Offset": "0",
        "Upload-Length": str(len(device.data)),
        "Content-Digest": crc(body),
    }
    headers |= data.draw(
        st.dictionaries(
            st.sampled_from(
                [*headers, "Range", "If-None-Match", "Accept-Encoding", "Host", "X-Forwarded-For"]
            ),
            st.one_of(VALUES, NUMBERS),
            max_size=3,
        ),
        "headers",
    )
    method = data.draw(
        st.one_of(st.just(route.method), st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD"])),
        "method",
    )
    reply = request(server.port, method, path, headers=headers, body=body)
    assert reply.status < 500 or path.startswith("/readyz"), reply
    if reply.status < 400 or not reply.body or re.match("/v1/admin|/readyz", path):
        return
    if reply.headers["content-type"] == PROTOBUF:
        assert_refusal(reply)


@given(chunk=st.binary(min_size=1, max_size=CHUNK), offset=NUMBERS, total=NUMBERS)
def test_no_chunk_makes_the_server_fail(
    devices: list[Device], chunk: bytes, offset: str, total: str
) -> None:
    reply = devices[0].put(chunk, offset=offset, total=total)
    assert reply.status == 200 or assert_refusal(reply) is None
