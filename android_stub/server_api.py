"""The device protocol over HTTP, one method a request (see device_plan/wire.proto).

Every answer is bounded in size and time; a refusal becomes `RefusedByServer`
with the server's reason, anything that is not an answer becomes `NoAnswer`.
"""

import base64
import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import quote

import google_crc32c
import urllib3
import zstandard
from google.protobuf.message import DecodeError, Message

from device_plan import wire_pb2 as wire

#: The protocol that this runtime speaks.
PROTOCOL_VERSION = 1
#: The content type of every message.
PROTOBUF = "application/x-protobuf"
#: Bytes above which an answer that is a message is not read.
MAX_MESSAGE_BYTES = 64 << 10
#: Bytes above which a plan or checkpoint is not downloaded.
MAX_BLOB_BYTES = 512 << 20

M = TypeVar("M", bound=Message)


class NoAnswer(Exception):
    """No connection, a broken or unreadable answer, or 5xx: try again later."""


class RefusedByServer(Exception):
    """A 4xx answer.

    Attributes:
        status: The HTTP status.
        reason: The reason code; REASON_UNSPECIFIED if something between device
            and server answered.
        message: The server's words.
        retry_windows: When to come back; None if the answer did not say.
        upload_offset: With CHUNK_OUT_OF_ORDER, the bytes that have arrived.
    """

    def __init__(self, *, status: int, error: wire.Error) -> None:
        name = (
            wire.Reason.Name(error.reason)
            if error.reason in wire.Reason.values()
            else str(error.reason)
        )
        super().__init__(f"{name}: {error.message} (HTTP {status})")
        self.status = status
        self.reason = error.reason
        self.message = error.message
        self.retry_windows = error.retry_windows if error.HasField("retry_windows") else None
        self.upload_offset = error.upload_offset


class WrongBlob(Exception):
    """A download whose size or SHA-256 is not the announced one."""


@dataclass
class Traffic:
    """Bytes of bodies as they crossed the network (compressed, without headers)."""

    bytes_down: int = 0
    bytes_up: int = 0


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """Seconds of silence after which a request is given up."""

    connect_s: float = 5.0
    read_s: float = 30.0


class ServerApi:
    """A server's address and the connections to it; safe to share between threads.

    Args:
        url: e.g. "https://fl.example.org"; a path in it is kept as a prefix.
        timeouts: For each request.
        connections: Kept open at most, one for each thread that calls.

    Raises:
        ValueError: not an http or https address.
    """

    def __init__(self, *, url: str, timeouts: Timeouts | None = None, connections: int = 4) -> None:
        self._scheme = _scheme(url)
        timeouts = timeouts or Timeouts()
        self._url = url.rstrip("/")
        self._pool = urllib3.PoolManager(
            num_pools=2,
            maxsize=connections,
            block=False,
            timeout=urllib3.Timeout(connect=timeouts.connect_s, read=timeouts.read_s),
            retries=False,
        )

    def close(self) -> None:
        self._pool.clear()

    def at(self, session_url: str) -> "ServerApi":
        """The same connections, to the server of this tier that has the session.

        Args:
            session_url: From the answer to a check-in; empty for this very server.

        Raises:
            NoAnswer: not an address, or one without TLS where this one has it.
        """
        if not session_url:
            return self
        try:
            scheme = _scheme(session_url)
        except ValueError as error:
            raise NoAnswer(f"the session's address is unusable: {error}") from error
        if self._scheme == "https" != scheme:
            raise NoAnswer(f"the session's address {session_url!r} has no TLS: it is not used")
        there = copy.copy(self)
        there._url = session_url.rstrip("/")
        return there

    def check_in(
        self,
        population: str,
        request: wire.CheckInRequest,
        *,
        credential: str,
        traffic: Traffic,
    ) -> wire.CheckInResponse:
        """Asks for work. Raises NoAnswer, RefusedByServer (as all below)."""
        path = f"/v1/populations/{quote(population, safe='/')}/checkins"
        return self._post(path, request, wire.CheckInResponse, credential, traffic)

    def poll(self, session_id: str, *, token: str, traffic: Traffic) -> wire.CheckInResponse:
        """Asks again while waiting for selection."""
        data = self._request(
            "GET", _session(session_id), {"Accept": PROTOBUF}, None, token, traffic
        )
        return _decode(wire.CheckInResponse, data)

    def fetch(self, blob: wire.Blob, *, traffic: Traffic) -> bytes:
        """Downloads a plan or checkpoint, which any cache on the way may serve.

        Raises:
            WrongBlob: larger or smaller than announced, or another SHA-256.
        """
        if blob.size > MAX_BLOB_BYTES:
            raise WrongBlob(f"{blob.path} has {blob.size} bytes, at most {MAX_BLOB_BYTES} are read")
        headers = {"Accept-Encoding": "zstd"}
        data = self._request("GET", blob.path, headers, None, None, traffic, limit=blob.size)
        if len(data) != blob.size:
            raise WrongBlob(f"{blob.path} does not have the {blob.size} bytes announced")
        digest = hashlib.sha256(data).hexdigest()
        if digest != blob.sha256:
            raise WrongBlob(f"{blob.path} has SHA-256 {digest}, the server announced {blob.sha256}")
        return data

    def report(
        self, session_id: str, request: wire.ReportRequest, *, token: str, traffic: Traffic
    ) -> wire.ReportResponse:
        """Tells what was computed and asks whether to upload."""
        path = _session(session_id) + "/report"
        return self._post(path, request, wire.ReportResponse, token, traffic)

    def upload_chunk(
        self,
        upload: wire.Upload,
        chunk: bytes | memoryview,
        *,
        offset: int,
        total: int,
        token: str,
        traffic: Traffic,
    ) -> wire.UploadResponse:
        """Sends bytes [offset, offset + len(chunk)) of an update of `total` bytes.

        Sending the same bytes again is harmless, so a chunk whose answer was
        lost is simply sent again.
        """
        body = bytes(chunk)
        headers = {
            "Accept": PROTOBUF,
            "Content-Type": "application/octet-stream",
            "Upload-Offset": str(offset),
            "Upload-Length": str(total),
            "Content-Digest": content_digest(body),
        }
        data = self._request("PUT", upload.path, headers, body, token, traffic)
        return _decode(wire.UploadResponse, data)

    def submit(self, upload: wire.Upload, *, token: str, traffic: Traffic) -> wire.SubmitResponse:
        """Puts the complete upload into the round's sum."""
        path = upload.path.rpartition("/")[0] + "/submit"
        return self._post(path, wire.SubmitRequest(), wire.SubmitResponse, token, traffic)

    def abort(
        self, session_id: str, request: wire.AbortRequest, *, token: str, traffic: Traffic
    ) -> wire.AbortResponse:
        path = _session(session_id) + "/abort"
        return self._post(path, request, wire.AbortResponse, token, traffic)

    def send_events(
        self, request: wire.EventsRequest, *, credential: str, traffic: Traffic
    ) -> wire.EventsResponse:
        return self._post("/v1/events", request, wire.EventsResponse, credential, traffic)

    def _post(
        self, path: str, request: Message, answer: type[M], bearer: str, traffic: Traffic
    ) -> M:
        headers = {"Accept": PROTOBUF, "Content-Type": PROTOBUF}
        body = request.SerializeToString()
        return _decode(answer, self._request("POST", path, headers, body, bearer, traffic))

    def _request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None,
        bearer: str | None,
        traffic: Traffic,
        *,
        limit: int = MAX_MESSAGE_BYTES,
    ) -> bytes:
        sent = dict(headers)
        if bearer is not None:
            sent["Authorization"] = f"Bearer {bearer}"
        traffic.bytes_up += len(body or b"")
        try:
            response = self._pool.request(
                method,
                self._url + path,
                body=body,
                headers=sent,
                preload_content=False,
                redirect=False,
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise NoAnswer(f"{method} {path}: {error}") from error
        intact = False
        try:
            refused = response.status >= 400
            most = MAX_MESSAGE_BYTES if refused else limit
            data = _read(response, most)
            traffic.bytes_down += len(data)
            intact = len(data) <= most
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise NoAnswer(f"{method} {path}: the answer broke off: {error}") from error
        finally:
            # A connection with unread bytes cannot carry another request.
            if intact:
                response.release_conn()
            else:
                response.close()
        if response.status >= 500 or response.status < 200 or 300 <= response.status < 400:
            raise NoAnswer(f"{method} {path}: HTTP {response.status}")
        if refused:
            raise RefusedByServer(status=response.status, error=_error(response, data))
        if not intact:
            if limit != MAX_MESSAGE_BYTES:
                raise WrongBlob(f"{path} does not have the {limit} bytes announced")
            raise NoAnswer(f"{method} {path}: the answer is larger than {limit} bytes")
        return _decompress(data, response.headers.get("Content-Encoding"), limit)


def _scheme(url: str) -> str:
    try:
        parsed = urllib3.util.parse_url(url)
    except urllib3.exceptions.LocationParseError:
        parsed = urllib3.util.Url()
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"the server must be an http or https address, not {url!r}")
    return parsed.scheme


def content_digest(body: bytes) -> str:
    """The Content-Digest header (RFC 9530) with CRC-32C."""
    crc = google_crc32c.value(body).to_bytes(4, "big")
    return f"crc32c=:{base64.b64encode(crc).decode()}:"


def _read(response: urllib3.BaseHTTPResponse, most: int) -> bytes:
    """At most one byte more than `most`, as they came."""
    parts: list[bytes] = []
    left = most + 1
    while left > 0:
        part = response.read(min(left, 1 << 20), decode_content=False)
        if not part:
            break
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _decompress(data: bytes, encoding: str | None, limit: int) -> bytes:
    """At most one byte more than `limit`, however well the sender compressed."""
    if encoding is None or encoding == "identity":
        return data
    if encoding != "zstd":
        raise NoAnswer(f"the answer has Content-Encoding {encoding}, which was not asked for")
    try:
        with zstandard.ZstdDecompressor().stream_reader(data) as reader:
            return reader.read(limit + 1)
    except zstandard.ZstdError as error:
        raise NoAnswer(f"the answer is not zstd: {error}") from error


def _session(session_id: str) -> str:
    return f"/v1/sessions/{quote(session_id, safe='')}"


def _decode(kind: type[M], data: bytes) -> M:
    try:
        message = kind()
        message.ParseFromString(data)
        return message
    except DecodeError as error:
        raise NoAnswer(f"the answer is not a {kind.__name__}: {error}") from error


def _error(response: urllib3.BaseHTTPResponse, data: bytes) -> wire.Error:
    if response.headers.get("Content-Type", "").partition(";")[0].strip() == PROTOBUF:
        try:
            return wire.Error.FromString(data)
        except DecodeError:
            pass
    return wire.Error(message="the answer was not written by a Nightshift server")
