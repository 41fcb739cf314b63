"""An HTTP server that speaks the device protocol's real messages and misbehaves on demand."""

import base64
import contextlib
import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import google_crc32c
import zstandard

from device_plan import wire_pb2 as wire
from device_plan.wire_pb2 import Reason

PROTOBUF = "application/x-protobuf"


@dataclass(frozen=True)
class Refuse(Exception):
    status: int
    reason: int
    upload_offset: int = 0
    windows: bool = True


@dataclass
class Script:
    """How the server behaves; tests change it."""

    plan: bytes = b""
    checkpoint: bytes = b""
    computation: int = wire.Computation.TRAINING
    polls: int = 0
    rejection: int | None = None
    upload_wanted: bool = True
    deadline_ms: int = 60_000
    max_chunk_bytes: int = 1 << 20
    accepted_ms: tuple[int, int] = (40_000, 50_000)
    rejected_ms: tuple[int, int] = (10_000, 20_000)
    #: Path suffix -> what to raise, once each.
    refusals: dict[str, list[Refuse]] = field(default_factory=dict)
    #: Break the connection in the middle of the answer to these, once each.
    lost_answers: list[str] = field(default_factory=list)
    #: Accept only so many bytes of the next chunk, then drop the connection.
    break_upload_after: int | None = None
    #: Called with a blob's bytes before they are sent.
    tamper: Callable[[bytes], bytes] = field(default=lambda data: data)
    compress: bool = False


class FakeServer:
    """Use as a context manager. What arrived is in the attributes."""

    def __init__(self) -> None:
        self.script = Script()
        self.requests: list[str] = []
        self.credentials: list[str] = []
        self.check_in_ids: list[str] = []
        self.uploads: dict[str, bytearray] = {}
        self.submitted: list[bytes] = []
        self.aborts: list[int] = []
        self.reports: list[wire.ReportRequest] = []
        self.events: list[wire.SessionEvents] = []
        self.chunk_offsets: list[int] = []
        self._polled: dict[str, int] = {}
        self._by_check_in: dict[str, str] = {}
        self._lock = threading.RLock()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                fake._serve(self)

            do_POST = do_PUT = do_GET  # noqa: N815

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> "FakeServer":
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def windows(self) -> wire.RetryWindows:
        script = self.script
        return wire.RetryWindows(
            if_accepted=wire.RetryWindow(
                min_delay_ms=script.accepted_ms[0], max_delay_ms=script.accepted_ms[1]
            ),
            if_rejected=wire.RetryWindow(
                min_delay_ms=script.rejected_ms[0], max_delay_ms=script.rejected_ms[1]
            ),
        )

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        path = handler.path
        with self._lock:
            self.requests.append(f"{handler.command} {path}")
            suffix = "checkins" if path.endswith("/checkins") else path.rpartition("/")[2]
            if "/blobs/" in path:
                suffix = "blob"
        length = int(handler.headers.get("Content-Length", 0))
        script = self.script
        if suffix == "update" and script.break_upload_after is not None:
            part = handler.rfile.read(min(length, script.break_upload_after))
            self.uploads.setdefault(path.split("/")[3], bytearray()).extend(part)
            script.break_upload_after = None
            handler.connection.shutdown(2)
            handler.close_connection = True
            return
        body = handler.rfile.read(length)
        try:
            with self._lock:
                refusals = script.refusals.get(suffix)
                if refusals:
                    raise refusals.pop(0)
                status, kind, data = 200, PROTOBUF, self._answer(handler, suffix, body)
        except Refuse as refusal:
            status, kind = refusal.status, PROTOBUF
            error = wire.Error(
                reason=refusal.reason, message="as told", upload_offset=refusal.upload_offset
            )
            if refusal.windows:
                error.retry_windows.CopyFrom(self.windows())
            data = error.SerializeToString()
        if suffix in script.lost_answers:
            script.lost_answers.remove(suffix)
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
            handler.close_connection = True
            return
        handler.send_response(status)
        if suffix == "blob" and status == 200:
            kind = "application/octet-stream"
            if script.compress and "zstd" in handler.headers.get("Accept-Encoding", ""):
                data = zstandard.compress(data)
                handler.send_header("Content-Encoding", "zstd")
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        with contextlib.suppress(OSError):
            handler.wfile.write(data)

    def _answer(self, handler: BaseHTTPRequestHandler, suffix: str, body: bytes) -> bytes:
        path, script = handler.path, self.script
        bearer = handler.headers.get("Authorization", "").removeprefix("Bearer ")
        if suffix == "blob":
            digest = path.rpartition("/")[2]
            for data in (script.plan, script.checkpoint):
                if hashlib.sha256(data).hexdigest() == digest:
                    return script.tamper(data)
            raise Refuse(404, Reason.UNKNOWN_BLOB)
        if suffix == "events":
            self.events.extend(wire.EventsRequest.FromString(body).sessions)
            return b""
        if suffix == "checkins":
            return self._check_in(body, bearer)
        session = path.split("/")[3]
        if bearer != f"token-{session}":
            raise Refuse(403, Reason.NOT_YOUR_SESSION)
        if suffix == session:
            return self._outcome(session)
        if suffix == "report":
            self.reports.append(wire.ReportRequest.FromString(body))
            return wire.ReportResponse(
                retry_windows=self.windows(),
                upload=script.upload_wanted,
                reason=0 if script.upload_wanted else Reason.GOAL_REACHED,
            ).SerializeToString()
        if suffix == "update":
            return self._chunk(handler, session, body)
        if suffix == "submit":
            self.submitted.append(bytes(self.uploads[session]))
            return wire.SubmitResponse(retry_windows=self.windows()).SerializeToString()
        if suffix == "abort":
            self.aborts.append(wire.AbortRequest.FromString(body).reason)
            return wire.AbortResponse(retry_windows=self.windows()).SerializeToString()
        raise Refuse(404, Reason.UNKNOWN_ROUTE)

    def _check_in(self, body: bytes, bearer: str) -> bytes:
        request = wire.CheckInRequest.FromString(body)
        self.check_in_ids.append(request.check_in_id)
        self.credentials.append(bearer)
        if self.script.rejection is not None:
            return wire.CheckInResponse(
                protocol_version=1,
                retry_windows=self.windows(),
                rejection=wire.Rejection(reason=self.script.rejection, message="as told"),
            ).SerializeToString()
        session = self._by_check_in.setdefault(request.check_in_id, f"s{len(self._by_check_in)}")
        return self._outcome(session)

    def _outcome(self, session: str) -> bytes:
        script = self.script
        answer = wire.CheckInResponse(
            protocol_version=1,
            retry_windows=self.windows(),
            session_id=session,
            session_token=f"token-{session}",
        )
        asked = self._polled.get(session, 0)
        self._polled[session] = asked + 1
        if asked < script.polls:
            answer.waiting.poll_after_ms = 60
            return answer.SerializeToString()
        answer.assignment.CopyFrom(
            wire.Assignment(
                round_id="r1",
                task="t",
                computation=script.computation,
                plan=_blob(script.plan),
                checkpoint=_blob(script.checkpoint),
                upload=wire.Upload(
                    path=f"/v1/sessions/{session}/update",
                    max_bytes=1 << 24,
                    max_chunk_bytes=script.max_chunk_bytes,
                ),
                deadline_ms=script.deadline_ms,
            )
        )
        return answer.SerializeToString()

    def _chunk(self, handler: BaseHTTPRequestHandler, session: str, body: bytes) -> bytes:
        offset = int(handler.headers["Upload-Offset"])
        crc = google_crc32c.value(body).to_bytes(4, "big")
        if handler.headers["Content-Digest"] != f"crc32c=:{base64.b64encode(crc).decode()}:":
            raise Refuse(422, Reason.WRONG_DIGEST)
        self.chunk_offsets.append(offset)
        held = self.uploads.setdefault(session, bytearray())
        if offset > len(held):
            raise Refuse(409, Reason.CHUNK_OUT_OF_ORDER, len(held))
        held[offset:] = body
        assert len(held) <= int(handler.headers["Upload-Length"])
        return wire.UploadResponse(
            retry_windows=self.windows(), received=len(held)
        ).SerializeToString()


def _blob(data: bytes) -> wire.Blob:
    digest = hashlib.sha256(data).hexdigest()
    return wire.Blob(sha256=digest, size=len(data), path=f"/v1/blobs/{digest}")
