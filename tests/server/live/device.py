"""A device that does exactly what a test asks of it, rightly or wrongly."""

import base64
import http.client
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import google_crc32c
import numpy as np
from google.protobuf.message import Message

from device_plan import wire_pb2 as wire
from device_plan.checkpoint import encode
from tests.server.live.mean_plan import RUNTIME, Update
from tests.server.live.served import Server
from tests.server.live.waiting import eventually

M = TypeVar("M", bound=Message)

PROTOBUF = "application/x-protobuf"

#: Seconds; whoever waits longer was forgotten.
TIMEOUT_S = 30.0

#: Bytes of a chunk, as the servers of these tests allow it.
CHUNK = 4096


@dataclass(frozen=True)
class Reply:
    """An answer as it came."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def read(self, message: type[M]) -> M:
        """The body of an answer that is expected to be good."""
        assert self.status == 200, (self.status, self.error)
        return message.FromString(self.body)

    @property
    def error(self) -> wire.Error:
        return wire.Error.FromString(self.body)

    @property
    def reason(self) -> str:
        return wire.Reason.Name(self.error.reason)


def request(
    port: int,
    method: str,
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> Reply:
    """One request on a connection of its own.

    Raises:
        OSError: nobody answers, or the answer breaks off.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request(method, path, body=body, headers=dict(headers or {}))
        response = connection.getresponse()
        return Reply(response.status, dict(response.getheaders()), response.read())
    except http.client.HTTPException as error:
        raise ConnectionError(f"the answer broke off: {error!r}") from error
    finally:
        connection.close()


def crc(data: bytes) -> str:
    """The value of a Content-Digest header."""
    value = google_crc32c.value(data).to_bytes(4, "big")
    return f"crc32c=:{base64.b64encode(value).decode()}:"


def new_key() -> str:
    """A device key as devices send it."""
    return base64.urlsafe_b64encode(os.urandom(32)).decode().rstrip("=")


class Device:
    """One device and its newest session."""

    def __init__(
        self,
        server: Server,
        population: str,
        *,
        update: Update | None = None,
        runtime: str = RUNTIME,
    ) -> None:
        self.runtime = runtime
        self.port = server.port
        self.population = population
        self.update = update or {}
        self.key = new_key()
        self.session_id = ""
        self.token = ""
        self.assignment = wire.Assignment()

    @property
    def data(self) -> bytes:
        """The update as it is uploaded."""
        return encode({name: np.asarray(value) for name, value in self.update.items()})

    @property
    def path(self) -> str:
        return f"/v1/sessions/{self.session_id}"

    def headers(self, **more: str) -> dict[str, str]:
        """Of a session's requests."""
        names = {name.replace("_", "-"): value for name, value in more.items()}
        return {"Authorization": f"Bearer {self.token}", "Content-Type": PROTOBUF, **names}

    def check_in(self, check_in_id: str | None = None) -> Reply:
        message = wire.CheckInRequest(
            protocol_version=1,
            check_in_id=check_in_id or secrets.token_hex(16),
            runtime=self.runtime,
        )
        reply = request(
            self.port,
            "POST",
            f"/v1/populations/{self.population}/checkins",
            headers={"Authorization": f"Bearer {self.key}", "Content-Type": PROTOBUF},
            body=message.SerializeToString(),
        )
        if reply.status == 200:
            told = wire.CheckInResponse.FromString(reply.body)
            self.session_id, self.token = told.session_id, told.session_token
        return reply

    def join(self) -> None:
        """Checks in until a pool takes it."""

        def waiting() -> bool:
            told = self.check_in().read(wire.CheckInResponse)
            return told.WhichOneof("outcome") == "waiting"

        eventually(waiting)

    def ask(self) -> Reply:
        """Where the session stands."""
        return request(self.port, "GET", self.path, headers=self.headers())

    def poll(self) -> wire.CheckInResponse:
        return self.ask().read(wire.CheckInResponse)

    def wait_until_told(self) -> wire.CheckInResponse:
        """Polls until it is selected or rejected."""

        def told() -> wire.CheckInResponse | None:
            answer = self.poll()
            return None if answer.WhichOneof("outcome") == "waiting" else answer

        answer = eventually(told)
        self.assignment = answer.assignment
        return answer

    def post(self, what: str, message: Message | None = None) -> Reply:
        body = message.SerializeToString() if message is not None else b""
        return request(self.port, "POST", f"{self.path}/{what}", headers=self.headers(), body=body)

    def report(self) -> Reply:
        return self.post("report", wire.ReportRequest(examples=1, batches=1))

    def put(
        self, chunk: bytes, *, offset: int | str, total: int | str, digest: str | None = None
    ) -> Reply:
        """One chunk, with whatever headers."""
        headers = {
            "Authorization": f"Bearer {self.token}",
            "Content-Type": "application/octet-stream",
            "Accept": PROTOBUF,
            "Upload-Offset": str(offset),
            "Upload-Length": str(total),
            "Content-Digest": crc(chunk) if digest is None else digest,
        }
        return request(self.port, "PUT", f"{self.path}/update", headers=headers, body=chunk)

    def upload(self, data: bytes | None = None) -> Reply:
        """All of the update, chunk after chunk; the last answer."""
        data = self.data if data is None else data
        reply = None
        for offset in range(0, len(data), CHUNK):
            reply = self.put(data[offset : offset + CHUNK], offset=offset, total=len(data))
            if reply.status != 200:
                break
        assert reply is not None
        return reply

    def received(self) -> Reply:
        """How far the server has got with the upload."""
        return request(
            self.port, "GET", f"{self.path}/update", headers={**self.headers(), "Accept": PROTOBUF}
        )

    def submit(self) -> Reply:
        return self.post("submit")

    def abort(self, reason: wire.AbortReason = wire.CONDITIONS_CHANGED) -> Reply:
        return self.post("abort", wire.AbortRequest(reason=reason))

    def finish(self) -> bool:
        """What a good device does once it is assigned; whether its update is in the sum."""
        if not self.report().read(wire.ReportResponse).upload:
            return False
        reply = self.upload()
        if reply.status == 200:
            reply = self.submit()
        assert reply.status == 200 or reply.reason == "GOAL_REACHED", (reply.status, reply.error)
        return reply.status == 200
