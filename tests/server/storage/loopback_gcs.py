"""A Google Cloud Storage on loopback: as much of the JSON API as the client library uses.

Unlike the emulators on PyPI it honours generation preconditions. It can be told
to fail. https://cloud.google.com/storage/docs/json_api/v1
"""

import base64
import hashlib
import itertools
import json
import re
import secrets
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from email.parser import BytesParser
from types import TracebackType
from typing import Any

import google_crc32c
from flask import Flask, Response, abort, jsonify, request
from werkzeug.serving import make_server

#: What a fault does to a request: it is given the rest of the server's work.
Fault = Callable[[Callable[[], Response]], Response]


@dataclass(frozen=True)
class StoredObject:
    """One generation of an object."""

    name: str
    data: bytes
    generation: int
    metadata: dict[str, str]
    sent: bytes | None = None

    @property
    def hashes(self) -> tuple[str, str]:
        """Base64 of the CRC32C (big-endian) and of the MD5."""
        crc32c = struct.pack(">I", google_crc32c.value(self.data))
        md5 = hashlib.md5(self.data, usedforsecurity=False).digest()
        return base64.b64encode(crc32c).decode(), base64.b64encode(md5).decode()


@dataclass
class _Session:
    """A resumable upload under way."""

    bucket: str
    resource: dict[str, Any]
    precondition: int | None
    received: bytearray = field(default_factory=bytearray)


class LoopbackGcs:
    """The service, in threads of this process, while the block lasts.

    Attributes:
        url: For STORAGE_EMULATOR_HOST.
        requests: Method and path of each request so far.
        buckets: Objects by bucket and name.
        page_size: Objects on one page of a listing, at most.
    """

    def __init__(self, *buckets: str) -> None:
        self.buckets: dict[str, dict[str, StoredObject]] = {name: {} for name in buckets}
        self.requests: list[tuple[str, str]] = []
        self.page_size = 1000
        self._generations = itertools.count(int(time.time() * 1e6))
        self._sessions: dict[str, _Session] = {}
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._server = make_server("127.0.0.1", 0, self._application(), threaded=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "LoopbackGcs":
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def fail_next(self, *faults: Fault) -> None:
        """Each of the next requests meets one of the faults, in this order."""
        with self._lock:
            self._faults += faults

    def forget_faults(self) -> None:
        """The next requests succeed."""
        with self._lock:
            self._faults.clear()

    def damage(self, bucket: str, name: str, data: bytes) -> None:
        """Sends other bytes for an object than the hashes that it goes on to send."""
        stored = self.buckets[bucket][name]
        self.buckets[bucket][name] = replace(stored, sent=data)

    def _application(self) -> Flask:
        app = Flask(__name__)
        objects = "/storage/v1/b/<bucket>/o"
        app.add_url_rule(objects, "list", self._list)
        app.add_url_rule(f"{objects}/<path:name>", "get", self._get)
        app.add_url_rule(f"{objects}/<path:name>", "delete", self._delete, methods=["DELETE"])
        app.add_url_rule(f"/download{objects}/<path:name>", "download", self._download)
        app.add_url_rule(f"/upload{objects}", "upload", self._upload, methods=["POST"])
        app.add_url_rule(f"/upload{objects}", "resume", self._resume, methods=["PUT"])
        for endpoint, view in list(app.view_functions.items()):
            app.view_functions[endpoint] = self._with_faults(view)
        app.register_error_handler(404, lambda error: _refusal(404, str(error.description)))
        app.register_error_handler(412, lambda _: _refusal(412, "conditionNotMet"))
        app.register_error_handler(400, lambda error: _refusal(400, str(error.description)))
        return app

    def _with_faults(self, view: Callable[..., Response]) -> Callable[..., Response]:
        def answer(**names: str) -> Response:
            with self._lock:
                self.requests.append((request.method, request.path))
                fault = self._faults.pop(0) if self._faults else None
            return view(**names) if fault is None else fault(lambda: view(**names))

        return answer

    def _objects(self, bucket: str) -> dict[str, StoredObject]:
        if bucket not in self.buckets:
            abort(404, "The specified bucket does not exist.")
        return self.buckets[bucket]

    def _object(self, bucket: str, name: str) -> StoredObject:
        found = self._objects(bucket).get(name)
        if found is None:
            abort(404, f"No such object: {bucket}/{name}")
        return found

    def _list(self, bucket: str) -> Response:
        after = request.args.get("pageToken", "")
        prefix = request.args.get("prefix", "")
        names = [n for n in sorted(self._objects(bucket)) if n.startswith(prefix) and n > after]
        size = min(int(request.args.get("maxResults", self.page_size)), self.page_size)
        page: dict[str, Any] = {"kind": "storage#objects"}
        page["items"] = [_resource(bucket, self._object(bucket, name)) for name in names[:size]]
        if len(names) > size:
            page["nextPageToken"] = names[size - 1]
        return jsonify(page)

    def _get(self, bucket: str, name: str) -> Response:
        if request.args.get("alt") == "media":
            return self._download(bucket, name)
        return jsonify(_resource(bucket, self._object(bucket, name)))

    def _download(self, bucket: str, name: str) -> Response:
        found = self._object(bucket, name)
        crc32c, md5 = found.hashes
        headers = {
            "X-Goog-Hash": f"crc32c={crc32c},md5={md5}",
            "X-Goog-Generation": str(found.generation),
        }
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
        if not wanted:
            sent = found.data if found.sent is None else found.sent
            return Response(sent, headers=headers, mimetype="application/octet-stream")
        first, last = int(wanted[1]), min(int(wanted[2] or len(found.data)), len(found.data) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(found.data)}"
        return Response(found.data[first : last + 1], 206, headers=headers)

    def _delete(self, bucket: str, name: str) -> Response:
        with self._lock:
            del self._objects(bucket)[self._object(bucket, name).name]
        return Response(status=204)

    def _upload(self, bucket: str) -> Response:
        self._objects(bucket)
        kind = request.args.get("uploadType")
        precondition = request.args.get("ifGenerationMatch", type=int)
        if kind == "media":
            resource = {"name": request.args["name"]}
            return self._store(bucket, resource, request.get_data(), precondition)
        if kind == "multipart":
            head = f"Content-Type: {request.headers['Content-Type']}\r\n\r\n".encode()
            parts = BytesParser().parsebytes(head + request.get_data()).get_payload()
            assert isinstance(parts, list)
            resource, data = (part.get_payload(decode=True) for part in parts)
            assert isinstance(data, bytes)
            return self._store(bucket, json.loads(resource), data, precondition)
        if kind != "resumable":
            abort(400, f"uploadType {kind}")
        resource = {"name": request.args.get("name"), **(request.get_json(silent=True) or {})}
        self._check(bucket, resource["name"], precondition)
        identity = secrets.token_hex(8)
        self._sessions[identity] = _Session(bucket, resource, precondition)
        location = f"{self.url}{request.path}?uploadType=resumable&upload_id={identity}"
        return Response(status=200, headers={"Location": location})

    def _resume(self, bucket: str) -> Response:
        session = self._sessions[request.args["upload_id"]]
        given = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", request.headers["Content-Range"])
        assert given, request.headers["Content-Range"]
        if given[1] is not None and int(given[1]) == len(session.received):
            session.received += request.get_data()
        if given[3] != "*" and len(session.received) == int(given[3]):
            data = bytes(session.received)
            return self._store(bucket, session.resource, data, session.precondition)
        headers = {}
        if session.received:
            headers["Range"] = f"bytes=0-{len(session.received) - 1}"
        return Response(status=308, headers=headers)

    def _check(self, bucket: str, name: str, precondition: int | None) -> None:
        present = self._objects(bucket).get(name)
        if precondition is not None and precondition != (present.generation if present else 0):
            abort(412)

    def _store(
        self, bucket: str, resource: dict[str, Any], data: bytes, precondition: int | None
    ) -> Response:
        with self._lock:
            self._check(bucket, resource["name"], precondition)
            stored = StoredObject(
                resource["name"], data, next(self._generations), resource.get("metadata") or {}
            )
            if resource.get("crc32c", stored.hashes[0]) != stored.hashes[0]:
                abort(400, "the data do not have the CRC32C that was announced")
            self.buckets[bucket][stored.name] = stored
        return jsonify(_resource(bucket, stored))


def unavailable(_work: Callable[[], Response]) -> Response:
    """Answers 503 and does nothing."""
    return _refusal(503, "backendError")


def unavailable_afterwards(work: Callable[[], Response]) -> Response:
    """Does what was asked, and answers 503."""
    work()
    return _refusal(503, "backendError")


def cut(_work: Callable[[], Response]) -> Response:
    """Closes the connection without an answer."""
    request.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    return Response(status=500)


def cut_afterwards(work: Callable[[], Response]) -> Response:
    """Does what was asked, and closes the connection without an answer."""
    work()
    return cut(work)


def cut_within(work: Callable[[], Response]) -> Response:
    """Sends half of the answer's body."""
    whole = work()
    data = whole.get_data()
    return Response(
        _half(data, request.environ["werkzeug.socket"]),
        whole.status_code,
        headers={**whole.headers, "Content-Length": str(len(data))},
        direct_passthrough=True,
    )


def _half(data: bytes, connection: socket.socket) -> Any:
    yield data[: len(data) // 2]
    connection.shutdown(socket.SHUT_RDWR)


def silent_for(seconds: float) -> Fault:
    """Waits, then does what was asked."""

    def wait(work: Callable[[], Response]) -> Response:
        time.sleep(seconds)
        return work()

    return wait


def _resource(bucket: str, stored: StoredObject) -> dict[str, Any]:
    crc32c, md5 = stored.hashes
    return {
        "kind": "storage#object",
        "bucket": bucket,
        "name": stored.name,
        "generation": str(stored.generation),
        "metageneration": "1",
        "size": str(len(stored.data)),
        "crc32c": crc32c,
        "md5Hash": md5,
        "metadata": stored.metadata,
    }


def _refusal(status: int, message: str) -> Response:
    answer = jsonify({"error": {"code": status, "message": message}})
    answer.status_code = status
    return answer
