"""Devices that follow the device protocol, as far as the schedule lets them."""

from __future__ import annotations

import base64
import random
from dataclasses import dataclass, field

import google_crc32c
from google.protobuf.message import Message

from device_plan import wire_pb2 as wire
from server.http.credentials import device_id
from tests.server.faults.exact_plan import POPULATION, RUNTIME, update_of
from tests.server.faults.web import ConnectionLost, Reply, Request, Vanished, Web
from tests.server.faults.world import World

#: Times that a request is sent before the device gives its session up.
ATTEMPTS = 4

#: Seconds after which a device would rather have no answer than wait for it longer. The
#: server is to end each session long before.
PATIENCE_S = 1800.0


class GaveUp(Exception):
    """The device ends its session by itself, without a word."""


@dataclass
class Submitted:
    """What a device knows of an update of its own.

    Attributes:
        device: Its number.
        round_id: For which round it is.
        requests: Submits sent.
        answers: What was said to those that were answered: "accepted", or a reason.
    """

    device: int
    round_id: str
    requests: int = 0
    answers: list[str] = field(default_factory=list)


@dataclass
class Fleet:
    """What all devices of a run have in common.

    Attributes:
        drop_out: The share of assignments after which nothing is heard any more.
        abort: The share that is aborted.
        active: Devices still begin new sessions.
        in_session: Devices that are in a session now.
        longest_s: The longest session so far, in seconds.
        submitted: Every update that was sent.
        failures: Answers that say that the server failed (HTTP 5xx).
    """

    drop_out: float
    abort: float
    active: bool = True
    in_session: int = 0
    longest_s: float = 0.0
    submitted: list[Submitted] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


class VirtualDevice:
    """One device, for a whole run.

    Args:
        number: From 0; its place in the sums.
        world: The run.
        web: How it reaches the server.
        fleet: Of all devices.
        rng: Its own chance.
        attributes: What cohorts may be stratified by.
    """

    def __init__(
        self,
        *,
        number: int,
        world: World,
        web: Web,
        fleet: Fleet,
        rng: random.Random,
        attributes: dict[str, str],
    ) -> None:
        self.number = number
        self._world = world
        self._web = web
        self._fleet = fleet
        self._rng = rng
        self._attributes = attributes
        self._token = ""
        self._selector = ""
        self.draw_key()

    def draw_key(self) -> None:
        """Makes it another device to the server."""
        self._key = base64.urlsafe_b64encode(self._rng.randbytes(32)).decode().rstrip("=")

    @property
    def device_id(self) -> bytes:
        """What the server knows it by."""
        return device_id({"HTTP_AUTHORIZATION": f"Bearer {self._key}"}, POPULATION)

    def live(self) -> None:
        """Takes part again and again, as the server asks it to, until the run is over."""
        self._world.time.sleep(self._rng.uniform(0.0, 2.0))
        while self._fleet.active:
            began = self._world.time.now
            self._fleet.in_session += 1
            try:
                earliest, latest = self._session()
            except (GaveUp, Vanished):
                earliest, latest = 0.5, 2.0
            finally:
                self._fleet.in_session -= 1
                took = self._world.time.now - began
                self._fleet.longest_s = max(self._fleet.longest_s, took)
            # The server asks for minutes; a run has no time for that.
            self._world.time.sleep(min(self._rng.uniform(earliest, latest), 4.0))

    def _session(self) -> tuple[float, float]:
        """Seconds at least and at most until the next one."""
        request = wire.CheckInRequest(
            protocol_version=1,
            check_in_id=self._rng.randbytes(12).hex(),
            runtime=RUNTIME,
            attributes=self._attributes,
        )
        began = self._world.time.now
        told = wire.CheckInResponse()
        for attempt in range(ATTEMPTS):
            # A balancer in front of the selectors sends a retry where it likes.
            self._selector = self._rng.choice(self._web.names)
            path = f"/v1/populations/{POPULATION}/checkins"
            try:
                reply = self._send("check-in", "POST", path, request, token=self._key)
            except ConnectionLost:
                self._pause(attempt)
                continue
            if reply.status != 200:
                return self._refused(reply)
            told.ParseFromString(reply.body)
            break
        else:
            raise GaveUp
        session = f"/v1/sessions/{told.session_id}"
        self._token = told.session_token
        self._selector = told.session_url or self._selector
        while told.HasField("waiting"):
            if self._world.time.now - began > PATIENCE_S:
                self._world.violated("no session waits for ever", f"device {self.number}")
                raise GaveUp
            self._world.time.sleep(told.waiting.poll_after_ms / 1000)
            reply = self._insist("poll", "GET", session)
            if reply.status != 200:
                return self._refused(reply)
            told.Clear()
            told.ParseFromString(reply.body)
        if told.HasField("rejection"):
            return _seconds(told.retry_windows.if_rejected)
        return self._work(session, told.assignment)

    def _work(self, session: str, assignment: wire.Assignment) -> tuple[float, float]:
        chance = self._rng.random()
        if chance < self._fleet.drop_out:
            raise GaveUp
        reply = self._insist("download", "GET", assignment.checkpoint.path)
        if reply.status != 200:
            return self._abort(session)
        self._world.time.sleep(self._rng.uniform(0.1, 2.0))
        if chance < self._fleet.drop_out + self._fleet.abort:
            return self._abort(session)
        reply = self._insist("report", "POST", f"{session}/report", wire.ReportRequest())
        if reply.status != 200:
            return self._refused(reply)
        report = wire.ReportResponse.FromString(reply.body)
        if not report.upload:
            return _seconds(report.retry_windows.if_rejected)
        return self._upload(session, update_of(self.number, assignment.round_id), assignment)

    def _upload(
        self, session: str, data: bytes, assignment: wire.Assignment
    ) -> tuple[float, float]:
        submitted = Submitted(self.number, assignment.round_id)
        middle = len(data) // 2 if self._rng.random() < 0.25 else len(data)
        offset = 0
        for attempt in range(4 * ATTEMPTS):
            piece = data[offset : middle if offset < middle else len(data)]
            if piece:
                try:
                    reply = self._chunk(session, offset, len(data), piece)
                except ConnectionLost:
                    self._pause(attempt)
                    offset = self._received(session)
                    continue
                if reply.status == 200:
                    offset = wire.UploadResponse.FromString(reply.body).received
                    continue
                error = self._error(reply)
                if error.reason not in _RESUMABLE:
                    return _seconds(error.retry_windows.if_rejected)
                self._pause(attempt)
                offset = self._received(session)
                continue
            if submitted.requests == 0:
                self._fleet.submitted.append(submitted)
            submitted.requests += 1
            try:
                reply = self._send("submit", "POST", f"{session}/submit", wire.SubmitRequest())
            except ConnectionLost:
                submitted.answers.append("nothing")
                self._pause(attempt)
                continue
            if reply.status == 200:
                submitted.answers.append("accepted")
                return _seconds(
                    wire.SubmitResponse.FromString(reply.body).retry_windows.if_accepted
                )
            error = self._error(reply)
            submitted.answers.append(wire.Reason.Name(error.reason))
            if error.reason not in _RESUMABLE:
                return _seconds(error.retry_windows.if_accepted)
            self._pause(attempt)
            offset = self._received(session)
        raise GaveUp

    def _chunk(self, session: str, offset: int, total: int, piece: bytes) -> Reply:
        crc = google_crc32c.value(piece).to_bytes(4, "big")
        headers = {
            "HTTP_UPLOAD_OFFSET": str(offset),
            "HTTP_UPLOAD_LENGTH": str(total),
            "HTTP_CONTENT_DIGEST": f"crc32c=:{base64.b64encode(crc).decode()}:",
        }
        return self._exchange(Request("chunk", "PUT", f"{session}/update", piece, headers))

    def _received(self, session: str) -> int:
        reply = self._insist("resume", "GET", f"{session}/update")
        if reply.status != 200:
            raise GaveUp
        return wire.UploadResponse.FromString(reply.body).received

    def _abort(self, session: str) -> tuple[float, float]:
        self._insist("abort", "POST", f"{session}/abort", wire.AbortRequest())
        return 0.5, 2.0

    def _insist(self, step: str, method: str, path: str, message: Message | None = None) -> Reply:
        """Sends a request again until it is answered, and not by BUSY."""
        for attempt in range(ATTEMPTS):
            try:
                reply = self._send(step, method, path, message)
            except ConnectionLost:
                self._pause(attempt)
                continue
            if reply.status < 500:
                return reply
            self._pause(attempt)
        raise GaveUp

    def _send(
        self,
        step: str,
        method: str,
        path: str,
        message: Message | None = None,
        *,
        token: str = "",
    ) -> Reply:
        headers = {"HTTP_AUTHORIZATION": f"Bearer {token}"} if token else {}
        body = message.SerializeToString() if message is not None else b""
        return self._exchange(Request(step, method, path, body, headers))

    def _exchange(self, request: Request) -> Reply:
        headers = {"HTTP_AUTHORIZATION": f"Bearer {self._token}", **request.headers}
        request = Request(request.step, request.method, request.path, request.body, headers)
        reply = self._web.exchange(self._selector, request)
        # A download fails when the blob store does, as the schedule may wish.
        if reply.status >= 500 and reply.status != 503 and request.step != "download":
            self._fleet.failures.append(f"{request.step} of device {self.number}: {reply.status}")
        return reply

    def _pause(self, attempt: int) -> None:
        self._world.time.sleep(self._rng.uniform(0.1, 0.5) * 2.0 ** min(attempt, 3))

    @staticmethod
    def _error(reply: Reply) -> wire.Error:
        return wire.Error.FromString(reply.body)

    def _refused(self, reply: Reply) -> tuple[float, float]:
        return _seconds(self._error(reply).retry_windows.if_rejected)


#: After these the upload goes on where the server says.
_RESUMABLE = (
    wire.REASON_UNSPECIFIED,
    wire.BUSY,
    wire.CHUNK_OUT_OF_ORDER,
    wire.TRUNCATED,
    wire.WRONG_DIGEST,
    wire.UPLOAD_INCOMPLETE,
)


def _seconds(window: wire.RetryWindow) -> tuple[float, float]:
    return window.min_delay_ms / 1000, window.max_delay_ms / 1000
