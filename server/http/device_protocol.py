"""The device protocol as a WSGI application in front of Flask.

Check-ins, polls and uploads are nearly all that a selector does, and Flask's
dispatch costs several times what they need (docs/architecture.md has the
figures). They are few, fixed routes, so this module finds them itself; whatever
else is asked for goes on to Flask.
"""

import base64
import re
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

import google_crc32c
import numpy as np
from google.protobuf.message import Message

from device_plan import wire_pb2 as wire
from server.actors.cells import ActorDied
from server.actors.supervised import Supervised
from server.aggregation.admission import Inadmissible
from server.assignment import Answer, Download
from server.http.blob_route import PREFIX, BlobRoute
from server.http.check_in import PROTOCOL_VERSION, attributes_of, read_check_in
from server.http.credentials import SessionTokens, bearer, device_id
from server.http.events_route import EventsRoute
from server.http.messages import (
    JSON,
    PROTOBUF,
    Environ,
    content_length,
    encode_message,
    read_message,
    receive,
    receive_into,
    wants_json,
)
from server.http.problem import STATUS, failure_message
from server.http.ready_answers import ReadyAnswers, retry_windows
from server.protocol.pace_steering import Windows
from server.refusal import Refusal
from server.telemetry.telemetry import Telemetry

#: Mistakes that a device does not mend by trying again: it waits for days.
PERMANENT = frozenset({wire.UNSUPPORTED_PROTOCOL, wire.UNKNOWN_POPULATION})

_DIGEST = re.compile(r"crc32c=:([A-Za-z0-9+/]{6}==):")
_STATUS_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}

#: A WSGI application (PEP 3333).
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]


class DeviceProtocol:
    """Answers the routes that devices call and hands the others on.

    Args:
        others: The application for every other route.
        selector: The actor that decides.
        tokens: Issues and proves session tokens.
        events: Hears of sessions that have ended.
        blobs: Sends plans and checkpoints.
        max_chunk_bytes: The largest body of one PUT.
        permanent: When devices come back that cannot be served until they change.
        session_url: Where devices reach this very server; "" for where they check in.
        telemetry: Where check-ins, bytes and failures are counted.
    """

    def __init__(
        self,
        others: Application,
        *,
        selector: Supervised,
        tokens: SessionTokens,
        events: EventsRoute,
        blobs: BlobRoute,
        max_chunk_bytes: int,
        permanent: Windows,
        session_url: str,
        telemetry: Telemetry,
    ) -> None:
        self._permanent = retry_windows(permanent)
        self._session_url = session_url
        self._telemetry = telemetry
        self._blobs = blobs
        self._others = others
        self._selector = selector
        self._tokens = tokens
        self._events = events
        self._max_chunk_bytes = max_chunk_bytes
        self._ready = ReadyAnswers(_rejection)
        self._session_routes: dict[tuple[str, str], Callable[[Environ, str, str], Message]] = {
            ("GET", ""): self._poll,
            ("POST", "report"): self._report,
            ("PUT", "update"): self._put_chunk,
            ("GET", "update"): self._resume,
            ("POST", "submit"): self._submit,
            ("POST", "abort"): self._abort,
        }

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        path: str = environ.get("PATH_INFO", "")
        population: str | None = None
        session_id = ""
        try:
            if path.endswith("/checkins") and path.startswith("/v1/populations/"):
                if environ["REQUEST_METHOD"] != "POST":
                    return self._others(environ, start_response)
                population = path[16:-9]
                if not population.isascii():
                    # WSGI gives the path's bytes as latin-1 (PEP 3333).
                    population = population.encode("latin-1").decode("utf-8", "replace")
                return self._check_in(environ, start_response, population)
            if path.startswith("/v1/sessions/"):
                session_id, _, step = path[13:].partition("/")
                act = self._session_routes.get((environ["REQUEST_METHOD"], step))
                if act is None:
                    return self._others(environ, start_response)
                population = self._own_session(environ, session_id)
                message = act(environ, session_id, population)
            elif (
                path.startswith(PREFIX)
                and "/" not in path[len(PREFIX) :]
                and environ["REQUEST_METHOD"] in ("GET", "HEAD")
            ):
                return self._blobs(environ, start_response, path.removeprefix(PREFIX))
            elif path == "/v1/events" and environ["REQUEST_METHOD"] == "POST":
                message = self._events(environ)
            else:
                return self._others(environ, start_response)
        except ActorDied:
            # The selector is started again in a second, without today's sessions.
            refusal = Refusal(wire.BUSY, "the server is starting again: come back in some seconds")
            if path.endswith("/checkins"):
                self._telemetry.check_ins.refused(population, refusal.reason)
            answer = self._error(refusal, None)
            return self._answer(environ, start_response, answer, STATUS[refusal.reason])
        except Refusal as refusal:
            if path.endswith("/checkins"):
                self._telemetry.check_ins.refused(population, refusal.reason)
            return self._answer(
                environ, start_response, self._error(refusal, population), STATUS[refusal.reason]
            )
        except Exception as error:
            request_id = self._telemetry.failures.request_failed(
                environ["REQUEST_METHOD"], path, environ.get("HTTP_X_REQUEST_ID", ""), error
            )
            failed = wire.Error(message=failure_message(request_id))
            return self._answer(environ, start_response, failed, 500)
        return self._answer(environ, start_response, message, 200)

    def _error(self, refusal: Refusal, population: str | None) -> wire.Error:
        return wire.Error(
            reason=refusal.reason,
            message=refusal.message,
            upload_offset=refusal.upload_offset,
            retry_windows=(
                self._permanent if refusal.reason in PERMANENT else self._windows(population)
            ),
        )

    def _answer(
        self, environ: Environ, start_response: Callable[..., Any], message: Message, status: int
    ) -> Iterable[bytes]:
        content_type, body = encode_message(environ, message)
        headers = [("Content-Type", content_type), ("Content-Length", str(len(body)))]
        if status >= 400:
            # A refusal may come before the body was read, and what is left of
            # it must not be taken for the next request.
            headers.append(("Connection", "close"))
        start_response(_STATUS_LINES[status], headers)
        # A list: granian sends any other iterable piece by piece.
        return [body]

    def _check_in(
        self, environ: Environ, start_response: Callable[..., Any], population: str
    ) -> Iterable[bytes]:
        message = read_check_in(environ)
        told: Answer = self._selector.ref.ask(
            "check_in",
            population,
            device_id(environ, population),
            message.check_in_id,
            message.runtime,
            attributes_of(message),
        )
        reason = told.reason
        self._telemetry.check_ins.told(population, reason or 0)
        if reason not in _SAME_FOR_ALL or told.windows is None:
            answer = self._check_in_response(told, population)
            return self._answer(environ, start_response, answer, 200)
        json = wants_json(environ)
        body = self._ready.body(reason, told.windows, json=json)
        content_type = JSON if json else PROTOBUF
        start_response(
            "200 OK", [("Content-Type", content_type), ("Content-Length", str(len(body)))]
        )
        return [body]

    def _poll(self, _environ: Environ, session_id: str, population: str) -> Message:
        told = self._selector.ask("poll", session_id)
        return self._check_in_response(told, population)

    def _report(self, environ: Environ, session_id: str, population: str) -> Message:
        read_message(environ, wire.ReportRequest)
        reason = self._selector.ask("report", session_id)
        return wire.ReportResponse(
            retry_windows=self._windows(population),
            upload=reason is None,
            reason=reason or wire.REASON_UNSPECIFIED,
        )

    def _put_chunk(self, environ: Environ, session_id: str, population: str) -> Message:
        length = content_length(environ)
        if length > self._max_chunk_bytes:
            raise Refusal(
                wire.TOO_LARGE, f"one chunk has at most {self._max_chunk_bytes} bytes: send several"
            )
        offset = _number(environ, "Upload-Offset")
        total = _number(environ, "Upload-Length")
        digest = _digest(environ)
        begun = self._selector.ask("begin_chunk", session_id, offset, length, total)
        if begun is None:
            receive(environ, length)
            return self._received(population, self._selector.ask("received", session_id))
        number, place = begun
        arrived = 0
        try:
            receive_into(environ, place)
            # The library takes no memoryview, but numpy's view of one.
            if google_crc32c.value(np.frombuffer(place, np.uint8)) != digest:
                raise Refusal(
                    wire.WRONG_DIGEST,
                    "the chunk does not have the CRC-32C of Content-Digest: send it again",
                    upload_offset=offset,
                )
            arrived = length
            self._telemetry.traffic.up(population, length)
        finally:
            received = self._selector.ask("end_chunk", session_id, number, arrived)
        return self._received(population, received)

    def _resume(self, _environ: Environ, session_id: str, population: str) -> Message:
        return self._received(population, self._selector.ask("received", session_id))

    def _submit(self, environ: Environ, session_id: str, population: str) -> Message:
        read_message(environ, wire.SubmitRequest)
        data, admission, aggregator = self._selector.ask("begin_submit", session_id)
        # Until the sum has it, the update counts as refused: whatever happens
        # here, the session ends and the round goes on.
        refused: wire.Reason | None = wire.INVALID_UPDATE
        try:
            views = admission.admit(data)
            refused = None if aggregator.ask("add", session_id, views) else wire.GOAL_REACHED
        except ActorDied as error:
            refused = wire.ROUND_OVER
            raise Refusal(refused, "the round's sum was lost: check in again") from error
        except Inadmissible as error:
            refused = error.reason
            raise Refusal(error.reason, error.message) from error
        finally:
            self._selector.ask("end_submit", session_id, refused)
        if refused is not None:
            raise Refusal(refused, "the round has enough updates: nothing was added")
        return wire.SubmitResponse(retry_windows=self._windows(population))

    def _abort(self, environ: Environ, session_id: str, population: str) -> Message:
        read_message(environ, wire.AbortRequest)
        self._selector.ask("abort", session_id)
        return wire.AbortResponse(retry_windows=self._windows(population))

    def _own_session(self, environ: Environ, session_id: str) -> str:
        """The session's population, once the bearer has proved that it is its own."""
        token = bearer(environ)
        population: str | None = self._selector.ask("population_of", session_id)
        if self._tokens.proves(token, session_id):
            return population or ""
        if population is None:
            raise Refusal(wire.UNKNOWN_SESSION, "this server never issued that session")
        raise Refusal(wire.NOT_YOUR_SESSION, "the token is not this session's")

    def _windows(self, population: str | None) -> wire.RetryWindows | None:
        try:
            windows: Windows | None = self._selector.ask("windows", population)
        except ActorDied:
            return None
        return None if windows is None else self._ready.windows(windows)

    def _received(self, population: str, received: int) -> Message:
        return wire.UploadResponse(retry_windows=self._windows(population), received=received)

    def _check_in_response(self, told: Answer, population: str) -> Message:
        if told.windows is None:
            windows = self._windows(population)
        elif told.reason is None:
            windows = self._ready.windows(told.windows)
        else:
            # They may be this device's own.
            windows = retry_windows(told.windows)
        response = wire.CheckInResponse(protocol_version=PROTOCOL_VERSION, retry_windows=windows)
        if told.session_id:
            response.session_id = told.session_id
            response.session_token = self._tokens.issue(told.session_id)
            response.session_url = self._session_url
        if told.reason is not None:
            response.rejection.reason = told.reason
            response.rejection.message = told.message or _REJECTIONS[told.reason]
        elif told.assignment is None:
            response.waiting.poll_after_ms = round((told.poll_after_s or 0.0) * 1000)
        else:
            work = told.assignment
            response.assignment.MergeFrom(
                wire.Assignment(
                    round_id=work.round_id,
                    task=work.task,
                    computation=work.computation,
                    plan=_blob(work.plan),
                    checkpoint=_blob(work.checkpoint),
                    upload=wire.Upload(
                        path=f"/v1/sessions/{told.session_id}/update",
                        max_bytes=work.max_upload_bytes,
                        max_chunk_bytes=self._max_chunk_bytes,
                    ),
                    deadline_ms=round(work.seconds_left * 1000),
                )
            )
        return response


_REJECTIONS = {
    wire.NO_TASK: "nothing is scheduled for this device now",
    wire.HELD_OUT: "this device is held out for evaluation, and none is open",
    wire.ROUND_FULL: "the open round has the devices it wants",
    wire.NOT_SELECTED: "others were drawn for this round",
    wire.ROUND_ABANDONED: "the round ended without a result",
    wire.PARTICIPATED_RECENTLY: "this device took part a short while ago; others come first",
    wire.PARTICIPATED_ENOUGH: "this device took part as often as the task allows",
    wire.DRAINING: "this server is about to end: come back in some seconds",
    wire.QUOTA_REACHED: "the population has as many sessions open as it may",
}


#: Of these there is nothing to say that is not the same for all devices of a population.
_SAME_FOR_ALL = frozenset({wire.NO_TASK, wire.HELD_OUT, wire.ROUND_FULL, wire.QUOTA_REACHED})


def _rejection(reason: wire.Reason, windows: wire.RetryWindows) -> wire.CheckInResponse:
    return wire.CheckInResponse(
        protocol_version=PROTOCOL_VERSION,
        retry_windows=windows,
        rejection=wire.Rejection(reason=reason, message=_REJECTIONS[reason]),
    )


def _blob(download: Download) -> wire.Blob:
    return wire.Blob(
        sha256=download.sha256, size=download.size, path=f"/v1/blobs/{download.sha256}"
    )


def _number(environ: Environ, header: str) -> int:
    text = environ.get("HTTP_" + header.upper().replace("-", "_"), "")
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise Refusal(wire.INVALID_FIELD, f"send the header {header} with a number of bytes")
    return int(text)


def _digest(environ: Environ) -> int:
    match = _DIGEST.fullmatch(environ.get("HTTP_CONTENT_DIGEST", ""))
    if match is None:
        raise Refusal(
            wire.INVALID_FIELD,
            "send the header 'Content-Digest: crc32c=:…:' with the chunk's CRC-32C, big-endian, "
            "in base64",
        )
    return int.from_bytes(base64.b64decode(match[1]), "big")
