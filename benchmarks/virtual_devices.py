"""Devices without a model: they go through the protocol and upload a given update.

For measuring the server. Each device has its own identity and goes through
check-in, polls, checkpoint download, report, upload and submit as the reference
runtime does; computing is left out.
"""

import asyncio
import base64
import hashlib
import random
import time
from dataclasses import dataclass, field

import google_crc32c

from benchmarks.http_client import Connection
from benchmarks.plans import RUNTIME
from device_plan import wire_pb2 as wire

PROTOBUF = "Content-Type: application/x-protobuf\r\nAccept: application/x-protobuf\r\n"


@dataclass
class Tally:
    """What the devices did."""

    accepted: int = 0
    requests: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    first_assignment_at: float = 0.0
    last_accepted_at: float = 0.0

    def refuse(self, reason: int) -> None:
        name = wire.Reason.Name(reason)
        self.refused[name] = self.refused.get(name, 0) + 1


class VirtualDevice:
    """One device.

    Args:
        number: Makes its identity.
        port: Of the server, on loopback.
        population: Where it checks in.
        update: The bytes it uploads.
        tally: Where it counts.
        download: Fetch the checkpoint each time, as a device does.
    """

    def __init__(
        self,
        *,
        number: int,
        port: int,
        population: str,
        update: bytes,
        tally: Tally,
        download: bool = True,
    ) -> None:
        key = hashlib.sha256(f"benchmark device {number}".encode()).digest()
        text = base64.urlsafe_b64encode(key).decode().rstrip("=")
        self._bearer = f"Authorization: Bearer {text}\r\n"
        self._connection = Connection("127.0.0.1", port)
        self._population = population
        self._update = update
        self._tally = tally
        self._number = number
        self._random = random.Random(number)
        self._download = download
        digest = base64.b64encode(google_crc32c.value(update).to_bytes(4, "big")).decode()
        self._chunk_headers = (
            "Upload-Offset: 0\r\n"
            f"Upload-Length: {len(update)}\r\n"
            f"Content-Digest: crc32c=:{digest}:\r\n"
        )

    async def run(self, rounds: int, stop: asyncio.Event) -> None:
        """Takes part until `rounds` of its updates are accepted or `stop` is set."""
        attempt = 0
        done = 0
        while done < rounds and not stop.is_set():
            attempt += 1
            done += await self._session(attempt, stop)
        self._connection.close()

    async def _session(self, attempt: int, stop: asyncio.Event) -> bool:
        told = await self._check_in(attempt)
        token = f"Authorization: Bearer {told.session_token}\r\n"
        session = f"/v1/sessions/{told.session_id}"
        while told.WhichOneof("outcome") == "waiting" and not stop.is_set():
            await asyncio.sleep(told.waiting.poll_after_ms / 1000)
            told = wire.CheckInResponse.FromString(
                await self._request("GET", session, token + PROTOBUF)
            )
        if told.WhichOneof("outcome") != "assignment":
            if told.HasField("rejection"):
                self._tally.refuse(told.rejection.reason)
            await self._pause(told.retry_windows.if_rejected)
            return False
        if not self._tally.first_assignment_at:
            self._tally.first_assignment_at = time.perf_counter()
        assignment = told.assignment
        if self._download:
            await self._request("GET", assignment.checkpoint.path, "")
        report = wire.ReportRequest(examples=1, batches=1).SerializeToString()
        answer = wire.ReportResponse.FromString(
            await self._request("POST", f"{session}/report", token + PROTOBUF, report)
        )
        if not answer.upload:
            self._tally.refuse(answer.reason)
            return False
        await self._request(
            "PUT", assignment.upload.path, token + self._chunk_headers, self._update
        )
        submitted = wire.SubmitResponse.FromString(
            await self._request("POST", f"{session}/submit", token + PROTOBUF)
        )
        self._tally.accepted += 1
        self._tally.last_accepted_at = time.perf_counter()
        await self._pause(submitted.retry_windows.if_accepted)
        return True

    async def _pause(self, window: wire.RetryWindow) -> None:
        """A uniform time inside the window, as every device draws it."""
        delay_ms = self._random.uniform(window.min_delay_ms, window.max_delay_ms)
        await asyncio.sleep(delay_ms / 1000)

    async def _check_in(self, attempt: int) -> wire.CheckInResponse:
        message = wire.CheckInRequest(
            protocol_version=1,
            check_in_id=f"benchmark-{self._number:08}-{attempt:06}",
            runtime=RUNTIME,
        )
        return wire.CheckInResponse.FromString(
            await self._request(
                "POST",
                f"/v1/populations/{self._population}/checkins",
                self._bearer + PROTOBUF,
                message.SerializeToString(),
            )
        )

    async def _request(self, method: str, path: str, headers: str, body: bytes = b"") -> bytes:
        reply = await self._connection.request(method, path, headers=headers, body=body)
        self._tally.requests += 1
        if reply.status >= 400:
            error = wire.Error.FromString(reply.body)
            self._tally.refuse(error.reason)
            raise RefusedError(error.message)
        return reply.body


class RefusedError(RuntimeError):
    """The server answered a device with a 4xx."""
