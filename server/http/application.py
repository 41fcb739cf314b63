"""The Flask application factory, and the error answers that all routes share."""

import atexit
import logging
from typing import Any

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from device_plan.wire_pb2 import UNKNOWN_ROUTE, Error
from server.configuration import ServerConfiguration
from server.http.admin_api import admin_api
from server.http.blobs_api import blobs_api
from server.http.credentials import SessionTokens
from server.http.device_api import device_api, retry_windows
from server.http.messages import MAX_MESSAGE_BYTES, answer
from server.http.problem import STATUS
from server.refusal import Refusal
from server.tier import EmbeddedTier

_log = logging.getLogger(__name__)


def create_app(tier: EmbeddedTier) -> Flask:
    """The application over a tier that the caller starts and closes."""
    app = Flask("nightshift")
    app.json.sort_keys = False  # type: ignore[attr-defined]
    selector = tier.selector
    app.register_blueprint(
        device_api(
            selector=selector,
            tokens=SessionTokens(key=tier.secrets.session_key),
            events=tier.events,
            max_chunk_bytes=tier.configuration.max_chunk_bytes,
        )
    )
    app.register_blueprint(blobs_api(downloads=tier.downloads))
    app.register_blueprint(admin_api(tier=tier))

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz")
    def readyz() -> tuple[dict[str, Any], int]:
        waiting = [
            name
            for name, coordinator in tier.coordinators.items()
            if not coordinator.ask("holds_lease")
        ]
        ready = not waiting and tier.updater.ready
        status: dict[str, Any] = {
            "ready": ready,
            "model_update": "ready" if tier.updater.ready else "starting",
            "populations_without_lease": waiting,
        }
        return status, 200 if ready else 503

    @app.errorhandler(Refusal)
    def refused(error: Refusal) -> Response:
        body = Error(reason=error.reason, message=error.message, upload_offset=error.upload_offset)
        arguments = request.view_args or {}
        population = arguments.get("population")
        if population is None and "session_id" in arguments:
            population = selector.ask("population_of", arguments["session_id"])
        windows = selector.ask("windows", population)
        if windows is not None:
            body.retry_windows.CopyFrom(retry_windows(windows))
        response = answer(request, body, status=STATUS[error.reason])
        _discard_body_or_close(response)
        return response

    @app.errorhandler(HTTPException)
    def not_routed(error: HTTPException) -> Response:
        body = Error(reason=UNKNOWN_ROUTE, message=f"{request.method} {request.path}: {error.name}")
        status = error.code or 500
        return answer(request, body, status=status)

    @app.errorhandler(Exception)
    def failed(error: Exception) -> Response:
        _log.exception("%s %s failed", request.method, request.path, exc_info=error)
        body = Error(message="the server failed; its log says why. Try again later.")
        return answer(request, body, status=500)

    return app


def _discard_body_or_close(response: Response) -> None:
    """Leaves the connection usable after a refusal that came before the body was read."""
    length = request.environ.get("CONTENT_LENGTH") or ""
    if length.isdigit() and int(length) > MAX_MESSAGE_BYTES:
        response.headers["Connection"] = "close"


def create_from_environment() -> Flask:
    """The application of a worker process, with its own tier, started."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    tier = EmbeddedTier(ServerConfiguration.from_environment())
    atexit.register(tier.close)
    tier.start()
    return create_app(tier)
