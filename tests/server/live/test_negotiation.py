"""One protocol in two forms, for clients older and newer than the server."""

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from device_plan import wire_pb2 as wire
from tests.server.live.device import PROTOBUF, Device, Reply, crc, new_key, request
from tests.server.live.mean_plan import RUNTIME, plan_for, update_of
from tests.server.live.rounds import LiveRound
from tests.server.live.served import DeployedTask, Server
from tests.server.live.waiting import eventually

JSON = "application/json"


@pytest.fixture(scope="module")
def task(server: Server, mean_plan: Path) -> DeployedTask:
    plan = plan_for("negotiation/mean", base=mean_plan, goal_count=1, over_selection=1.0)
    return server.deploy(plan)


def check_in(server: Server, headers: Mapping[str, str], body: bytes) -> Reply:
    return request(
        server.port,
        "POST",
        "/v1/populations/nobody/checkins",
        headers={"Authorization": f"Bearer {new_key()}", **headers},
        body=body,
    )


AS_JSON = b'{"protocolVersion": 1, "checkInId": "0123456789abcdef"}'
AS_PROTOBUF = wire.CheckInRequest(
    protocol_version=1, check_in_id="0123456789abcdef"
).SerializeToString()


@pytest.mark.parametrize(
    ("sent", "accepted", "answered"),
    [
        (PROTOBUF, None, PROTOBUF),
        (JSON, None, JSON),
        (None, None, PROTOBUF),
        (PROTOBUF, JSON, JSON),
        (JSON, PROTOBUF, PROTOBUF),
        (JSON, "*/*", JSON),
        (PROTOBUF, "*/*", PROTOBUF),
        (PROTOBUF, f"{JSON};q=0.9, {PROTOBUF};q=0.1", JSON),
        (JSON, f"{PROTOBUF}, {JSON};q=0.5", PROTOBUF),
        (JSON, "text/html", JSON),
        (JSON + "; charset=utf-8", None, JSON),
        ("Application/JSON", "nonsense;;q=x", None),
    ],
)
def test_the_answer_has_the_form_that_is_accepted(
    server: Server, sent: str | None, accepted: str | None, answered: str | None
) -> None:
    headers = {}
    if sent:
        headers["Content-Type"] = sent
    if accepted:
        headers["Accept"] = accepted
    body = AS_JSON if sent and "json" in sent.lower() else AS_PROTOBUF
    reply = check_in(server, headers, body)
    assert reply.status == 404
    form = reply.headers["content-type"]
    assert form == answered or answered is None
    if form == JSON:
        assert json.loads(reply.body)["reason"] == "UNKNOWN_POPULATION"
    else:
        assert reply.reason == "UNKNOWN_POPULATION"


def test_fields_of_a_newer_client_are_ignored(server: Server, task: DeployedTask) -> None:
    device = Device(server, task.population)
    unknown = b"\xa2\x06\x03new"  # field 100, three bytes
    for form, body in [
        (PROTOBUF, AS_PROTOBUF + unknown),
        (JSON, AS_JSON[:-1] + b', "newField": {"a": [1]}}'),
    ]:
        headers = {"Authorization": f"Bearer {device.key}", "Content-Type": form}
        path = f"/v1/populations/{task.population}/checkins"
        assert request(server.port, "POST", path, headers=headers, body=body).status == 200


def test_a_whole_session_in_json(server: Server, task: DeployedTask) -> None:
    key = new_key()
    update = update_of(1)

    def call(method: str, path: str, bearer: str, body: Any = None) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {bearer}", "Accept": JSON, "Content-Type": JSON}
        data = json.dumps(body).encode() if body is not None else None
        reply = request(server.port, method, path, headers=headers, body=data)
        assert reply.status == 200, reply.body
        answer: dict[str, Any] = json.loads(reply.body)
        return answer

    def joined() -> dict[str, Any] | None:
        told = call(
            "POST",
            f"/v1/populations/{task.population}/checkins",
            key,
            {
                "protocolVersion": 1,
                "checkInId": secrets.token_hex(16),
                "runtime": RUNTIME,
            },
        )
        return told if "waiting" in told else None

    told = eventually(joined)
    session, token = f"/v1/sessions/{told['sessionId']}", told["sessionToken"]

    def assigned() -> Any:
        return call("GET", session, token).get("assignment")

    assignment = eventually(assigned)
    assert assignment["computation"] == "TRAINING"
    checkpoint = request(server.port, "GET", assignment["checkpoint"]["path"])
    assert len(checkpoint.body) == int(assignment["checkpoint"]["size"])
    assert call("POST", f"{session}/report", token, {"examples": "1", "batches": "1"})["upload"]
    device = Device(server, task.population, update=update)
    size = int(assignment["upload"]["maxChunkBytes"])
    for offset in range(0, len(device.data), size):
        chunk = device.data[offset : offset + size]
        reply = request(
            server.port,
            "PUT",
            assignment["upload"]["path"],
            headers={
                "Authorization": f"Bearer {token}",
                "Accept": JSON,
                "Upload-Offset": str(offset),
                "Upload-Length": str(len(device.data)),
                "Content-Digest": crc(chunk),
            },
            body=chunk,
        )
        assert json.loads(reply.body)["received"] == str(offset + len(chunk))
    call("POST", f"{session}/submit", token, {})
    device.assignment.round_id = assignment["roundId"]
    LiveRound(task=task, devices=[device], in_sum=[update]).assert_committed()
