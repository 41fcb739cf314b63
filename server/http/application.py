"""The Flask application factory, and the error answers that all routes share."""

import atexit
import logging
from typing import Any

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from device_plan.wire_pb2 import UNKNOWN_ROUTE, Error
from server.configuration import ServerConfiguration
from server.http.admin_api import admin_api
from server.http.blob_route import BlobRoute
from server.http.credentials import SessionTokens
from server.http.device_protocol import DeviceProtocol
from server.http.messages import encode_message
from server.tier import EmbeddedTier

_log = logging.getLogger(__name__)


def create_app(tier: EmbeddedTier) -> Flask:
    """The application over a tier that the caller starts and closes."""
    app = Flask("nightshift")
    app.json.sort_keys = False  # type: ignore[attr-defined]
    # A redirect is no answer for a program that speaks the protocol.
    app.url_map.merge_slashes = False
    app.wsgi_app = DeviceProtocol(  # type: ignore[method-assign]
        app.wsgi_app,
        selector=tier.selector,
        tokens=SessionTokens(key=tier.secrets.session_key),
        events=tier.events,
        blobs=BlobRoute(downloads=tier.downloads),
        max_chunk_bytes=tier.configuration.max_chunk_bytes,
    )
    app.register_blueprint(admin_api(tier=tier))

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz")
    def readyz() -> tuple[dict[str, Any], int]:
        waiting = tier.populations_without_lease()
        ready = not waiting and tier.updater.ready
        status: dict[str, Any] = {
            "ready": ready,
            "model_update": "ready" if tier.updater.ready else "starting",
            "populations_without_lease": waiting,
        }
        return status, 200 if ready else 503

    @app.errorhandler(HTTPException)
    def not_routed(error: HTTPException) -> Response | tuple[dict[str, str], int]:
        message = f"{request.method} {request.path}: {error.name}"
        if request.path.startswith("/v1/admin/"):
            return {"error": message}, error.code or 500
        return _error(Error(reason=UNKNOWN_ROUTE, message=message), error.code or 500)

    @app.errorhandler(Exception)
    def failed(error: Exception) -> Response:
        _log.exception("%s %s failed", request.method, request.path, exc_info=error)
        return _error(Error(message="the server failed; its log says why. Try again later."), 500)

    return app


def _error(body: Error, status: int) -> Response:
    content_type, data = encode_message(request.environ, body)
    return Response(data, status, {"Connection": "close"}, content_type=content_type)


def create_from_environment() -> Flask:
    """The application of a worker process, with its own tier, started."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    tier = EmbeddedTier(ServerConfiguration.from_environment())
    atexit.register(tier.close)
    tier.start()
    return create_app(tier)
