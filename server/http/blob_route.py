"""GET /v1/blobs/{sha256}: immutable files that any cache may keep."""

from collections.abc import Callable, Iterable
from typing import Any

from werkzeug.exceptions import RequestedRangeNotSatisfiable
from werkzeug.wrappers import Request, Response

from device_plan.wire_pb2 import UNKNOWN_BLOB
from server.downloads import Downloads, Published
from server.http.messages import Environ
from server.refusal import Refusal
from server.telemetry.traffic import TrafficCounts

#: Where blobs are; the rest of the path is the digest.
PREFIX = "/v1/blobs/"


class BlobRoute:
    """Sends published files: with an ETag, ranges, and zstd where the device accepts it.

    Args:
        downloads: What may be fetched.
        traffic: Counts the bytes sent.
    """

    def __init__(self, *, downloads: Downloads, traffic: TrafficCounts) -> None:
        self._downloads = downloads
        self._traffic = traffic

    def __call__(
        self, environ: Environ, start_response: Callable[..., Any], sha256: str
    ) -> Iterable[bytes]:
        """Raises Refusal: UNKNOWN_BLOB."""
        published = self._downloads.get(sha256)
        if published is None:
            raise Refusal(UNKNOWN_BLOB, "no such file: check in again for a current assignment")
        if "HTTP_RANGE" in environ or "HTTP_IF_NONE_MATCH" in environ:
            return self._conditional(environ, start_response, sha256, published)
        body, tag, encoding = published.data, sha256, []
        accepted = environ.get("HTTP_ACCEPT_ENCODING", "")
        if published.compressed is not None and "zstd" in accepted:
            body, tag = published.compressed, f"{sha256}-zstd"
            encoding = [("Content-Encoding", "zstd")]
        headers = [
            ("Content-Type", "application/octet-stream"),
            ("Content-Length", str(len(body))),
            ("ETag", f'"{tag}"'),
            ("Accept-Ranges", "bytes"),
            *_CACHING,
            *encoding,
        ]
        start_response("200 OK", headers)
        if environ["REQUEST_METHOD"] == "HEAD":
            return ()
        self._traffic.down(len(body))
        return (body,)

    def _conditional(
        self,
        environ: Environ,
        start_response: Callable[..., Any],
        sha256: str,
        published: Published,
    ) -> Iterable[bytes]:
        response = Response(
            published.data, headers=_CACHING, content_type="application/octet-stream"
        )
        response.set_etag(sha256)
        try:
            response.make_conditional(
                Request(environ), accept_ranges=True, complete_length=len(published.data)
            )
        except RequestedRangeNotSatisfiable as error:
            return error.get_response(environ)(environ, start_response)
        if environ["REQUEST_METHOD"] != "HEAD":
            self._traffic.down(response.content_length or 0)
        return response(environ, start_response)


_CACHING = [
    ("Cache-Control", "public, max-age=31536000, immutable"),
    ("Vary", "Accept-Encoding"),
]
