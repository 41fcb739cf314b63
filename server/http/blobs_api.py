"""GET /v1/blobs/{sha256}: immutable files that any cache may keep."""

from flask import Blueprint, Response, request

from device_plan.wire_pb2 import UNKNOWN_BLOB
from server.downloads import Downloads
from server.refusal import Refusal


def blobs_api(*, downloads: Downloads) -> Blueprint:
    """The download route: ETag, ranges, and zstd where the device accepts it."""
    api = Blueprint("blobs_api", __name__, url_prefix="/v1")

    @api.get("/blobs/<sha256>")
    def blob(sha256: str) -> Response:
        published = downloads.get(sha256)
        if published is None:
            raise Refusal(UNKNOWN_BLOB, "no such file: check in again for a current assignment")
        environ = request.environ
        zstd = (
            published.compressed is not None
            and "HTTP_RANGE" not in environ
            and "zstd" in environ.get("HTTP_ACCEPT_ENCODING", "")
        )
        body = published.compressed if zstd else published.data
        response = Response(body, content_type="application/octet-stream")
        headers = response.headers
        headers["Cache-Control"] = "public, max-age=31536000, immutable"
        headers["Vary"] = "Accept-Encoding"
        if zstd:
            headers["Content-Encoding"] = "zstd"
            response.set_etag(sha256 + "-zstd")
        else:
            response.set_etag(sha256)
        if "HTTP_RANGE" in environ or "HTTP_IF_NONE_MATCH" in environ:
            response.make_conditional(
                request, accept_ranges=True, complete_length=len(published.data)
            )
        return response

    return api
