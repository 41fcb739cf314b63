"""The device protocol over HTTP: check-in, poll, report, upload, submit, abort, events."""

import base64
import re

import google_crc32c
from flask import Blueprint, Request, Response, request

from device_plan import wire_pb2 as wire
from server.actors.runtime import Ref
from server.aggregation.admission import Inadmissible
from server.assignment import Answer, Download
from server.http.credentials import SessionTokens, bearer, device_id
from server.http.messages import answer, content_length, read_message, receive
from server.protocol.pace_steering import Windows
from server.refusal import Refusal
from server.session_events import SessionEventLog

#: Protocol versions served here: the current one.
PROTOCOL_VERSIONS = (1,)

#: Sessions that one POST /v1/events may report.
MAX_EVENTS = 64

_CHECK_IN_ID = re.compile(r"[A-Za-z0-9_-]{16,64}")
_SHAPE = re.compile(r"[-v\[\]+^#!*]{1,32}")
_DIGEST = re.compile(r"crc32c=:([A-Za-z0-9+/]{6}==):")


def device_api(
    *,
    selector: Ref,
    tokens: SessionTokens,
    events: SessionEventLog,
    max_chunk_bytes: int,
) -> Blueprint:
    """The routes under /v1 that devices call.

    Args:
        selector: The actor that decides.
        tokens: Issues and proves session tokens.
        events: Where session shapes are counted.
        max_chunk_bytes: The largest body of one PUT.
    """
    api = Blueprint("device_api", __name__, url_prefix="/v1")

    @api.post("/populations/<path:population>/checkins")
    def check_in(population: str) -> Response:
        message = read_message(request, wire.CheckInRequest)
        if message.protocol_version not in PROTOCOL_VERSIONS:
            raise Refusal(
                wire.UNSUPPORTED_PROTOCOL,
                f"protocol_version {message.protocol_version} is not served; "
                f"served: {', '.join(map(str, PROTOCOL_VERSIONS))}",
            )
        if not _CHECK_IN_ID.fullmatch(message.check_in_id):
            raise Refusal(
                wire.INVALID_FIELD, "check_in_id must be 16 to 64 letters, digits, '-' or '_'"
            )
        if len(message.runtime) > 64 or len(message.client_version) > 64:
            raise Refusal(
                wire.INVALID_FIELD, "runtime and client_version have at most 64 characters"
            )
        told = selector.ask(
            "check_in", population, device_id(request, population), message.check_in_id
        )
        return answer(request, _check_in_response(told, population))

    @api.get("/sessions/<session_id>")
    def poll(session_id: str) -> Response:
        population = _own_session(session_id)
        told = selector.ask("poll", session_id)
        return answer(request, _check_in_response(told, population))

    @api.post("/sessions/<session_id>/report")
    def report(session_id: str) -> Response:
        population = _own_session(session_id)
        read_message(request, wire.ReportRequest)
        reason = selector.ask("report", session_id)
        return answer(
            request,
            wire.ReportResponse(
                retry_windows=_windows(population),
                upload=reason is None,
                reason=reason or wire.REASON_UNSPECIFIED,
            ),
        )

    @api.put("/sessions/<session_id>/update")
    def put_chunk(session_id: str) -> Response:
        population = _own_session(session_id)
        length = content_length(request)
        if length > max_chunk_bytes:
            raise Refusal(
                wire.TOO_LARGE, f"one chunk has at most {max_chunk_bytes} bytes: send several"
            )
        offset = _number(request, "Upload-Offset")
        total = _number(request, "Upload-Length")
        digest = _digest(request)
        number = selector.ask("begin_chunk", session_id, offset, length, total)
        chunk = receive(request, length)
        if number is None:
            return _received(population, selector.ask("received", session_id))
        if google_crc32c.value(chunk) != digest:
            raise Refusal(
                wire.WRONG_DIGEST,
                "the chunk does not have the CRC-32C of Content-Digest: send it again",
                upload_offset=offset,
            )
        return _received(population, selector.ask("end_chunk", session_id, number, chunk))

    @api.get("/sessions/<session_id>/update")
    def resume(session_id: str) -> Response:
        population = _own_session(session_id)
        return _received(population, selector.ask("received", session_id))

    @api.post("/sessions/<session_id>/submit")
    def submit(session_id: str) -> Response:
        population = _own_session(session_id)
        read_message(request, wire.SubmitRequest)
        data, admission, aggregator = selector.ask("begin_submit", session_id)
        # Until the sum has it, the update counts as refused: whatever happens
        # here, the session ends and the round goes on.
        refused: wire.Reason | None = wire.INVALID_UPDATE
        try:
            views = admission.admit(data)
            refused = None if aggregator.ask("add", session_id, views) else wire.GOAL_REACHED
        except Inadmissible as error:
            refused = error.reason
            raise Refusal(error.reason, error.message) from error
        finally:
            selector.ask("end_submit", session_id, refused)
        if refused is not None:
            raise Refusal(refused, "the round has enough updates: nothing was added")
        return answer(request, wire.SubmitResponse(retry_windows=_windows(population)))

    @api.post("/sessions/<session_id>/abort")
    def abort(session_id: str) -> Response:
        population = _own_session(session_id)
        read_message(request, wire.AbortRequest)
        selector.ask("abort", session_id)
        return answer(request, wire.AbortResponse(retry_windows=_windows(population)))

    @api.post("/events")
    def session_events() -> Response:
        message = read_message(request, wire.EventsRequest)
        if len(message.sessions) > MAX_EVENTS:
            raise Refusal(wire.INVALID_FIELD, f"one request reports at most {MAX_EVENTS} sessions")
        for session in message.sessions:
            if not _SHAPE.fullmatch(session.shape):
                raise Refusal(wire.INVALID_FIELD, "a shape has 1 to 32 of the characters -v[]+^#!*")
            if max(session.bytes_down, session.bytes_up, session.duration_ms) > 1 << 40:
                raise Refusal(wire.INVALID_FIELD, "bytes and duration_ms are at most 2^40")
            if selector.ask("windows", session.population) is None:
                raise Refusal(
                    wire.UNKNOWN_POPULATION, f"no population {session.population!r} is served here"
                )
        for session in message.sessions:
            events.record(device_id(request, session.population), session)
        return answer(request, wire.EventsResponse())

    def _own_session(session_id: str) -> str:
        """The session's population, once the bearer has proved that it is its own."""
        token = bearer(request)
        population: str | None = selector.ask("population_of", session_id)
        if tokens.proves(token, session_id):
            return population or ""
        if population is None:
            raise Refusal(wire.UNKNOWN_SESSION, "this server never issued that session")
        raise Refusal(wire.NOT_YOUR_SESSION, "the token is not this session's")

    def _windows(population: str) -> wire.RetryWindows | None:
        windows: Windows | None = selector.ask("windows", population)
        return windows and retry_windows(windows)

    def _received(population: str, received: int) -> Response:
        return answer(
            request, wire.UploadResponse(retry_windows=_windows(population), received=received)
        )

    def _check_in_response(told: Answer, population: str) -> wire.CheckInResponse:
        response = wire.CheckInResponse(
            protocol_version=PROTOCOL_VERSIONS[0], retry_windows=_windows(population)
        )
        if told.session_id:
            response.session_id = told.session_id
            response.session_token = tokens.issue(told.session_id)
        if told.reason is not None:
            response.rejection.reason = told.reason
            response.rejection.message = _REJECTIONS[told.reason]
        elif told.work is None:
            response.waiting.poll_after_ms = round((told.poll_after_s or 0.0) * 1000)
        else:
            work = told.work
            response.assignment.MergeFrom(
                wire.Assignment(
                    round_id=told.round_id,
                    task=told.task,
                    computation=told.computation,
                    plan=_blob(work.plan),
                    checkpoint=_blob(work.checkpoint),
                    upload=wire.Upload(
                        path=f"/v1/sessions/{told.session_id}/update",
                        max_bytes=work.admission.layout.max_bytes,
                        max_chunk_bytes=max_chunk_bytes,
                    ),
                    deadline_ms=round(told.seconds_left * 1000),
                )
            )
        return response

    return api


_REJECTIONS = {
    wire.NO_TASK: "nothing is scheduled for this device now",
    wire.HELD_OUT: "this device is held out for evaluation, and none is open",
    wire.ROUND_FULL: "the open round has the devices it wants",
    wire.NOT_SELECTED: "others were drawn for this round",
    wire.ROUND_ABANDONED: "the round ended without a result",
    wire.SHUTTING_DOWN: "this server is about to stop",
}


def retry_windows(windows: Windows) -> wire.RetryWindows:
    """Pace steering's windows as a message."""
    return wire.RetryWindows(
        if_accepted=_window(windows.if_accepted), if_rejected=_window(windows.if_rejected)
    )


def _window(seconds: tuple[float, float]) -> wire.RetryWindow:
    return wire.RetryWindow(
        min_delay_ms=round(seconds[0] * 1000), max_delay_ms=round(seconds[1] * 1000)
    )


def _blob(download: Download) -> wire.Blob:
    return wire.Blob(
        sha256=download.sha256, size=download.size, path=f"/v1/blobs/{download.sha256}"
    )


def _number(from_request: Request, header: str) -> int:
    text = from_request.headers.get(header, "")
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise Refusal(wire.INVALID_FIELD, f"send the header {header} with a number of bytes")
    return int(text)


def _digest(from_request: Request) -> int:
    match = _DIGEST.fullmatch(from_request.headers.get("Content-Digest", ""))
    if match is None:
        raise Refusal(
            wire.INVALID_FIELD,
            "send the header 'Content-Digest: crc32c=:…:' with the chunk's CRC-32C, big-endian, "
            "in base64",
        )
    return int.from_bytes(base64.b64decode(match[1]), "big")
