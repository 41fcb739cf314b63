"""The Flask application factory, and the error answers that all routes share."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing import util
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from device_plan.wire_pb2 import UNKNOWN_ROUTE, Error
from server.actors.cells import ActorDied, AskTimeout
from server.configuration import ServerConfiguration
from server.health.checks import (
    LeasesAreHeld,
    blobs_answer,
    database_answers,
    model_update_is_ready,
    selector_answers,
)
from server.health.probe import NotWell, Probe
from server.health.pulse import Heartbeat, Pulse
from server.http.admin_api import admin_api
from server.http.blob_route import BlobRoute
from server.http.credentials import SessionTokens
from server.http.device_protocol import DeviceProtocol
from server.http.draining import RETRY_S, Drain
from server.http.events_route import EventsRoute
from server.http.messages import encode_message
from server.http.operation_routes import operation_routes
from server.http.problem import failure_message
from server.refusal import Refusal
from server.served_population import pace_policy
from server.telemetry.rounds import RoundMetrics
from server.telemetry.telemetry import SelectorState
from server.tier import COORDINATOR, EmbeddedTier

if TYPE_CHECKING:
    from server.cluster.tier import ClusterTier

#: States of sessions that a drain waits for: the device has computed its update.
UPLOADING = ("reported", "adding")


class Application:
    """The application over a tier that the caller starts and closes.

    Attributes:
        flask: The WSGI application.
        drain: Ends it gently.
    """

    def __init__(self, tier: EmbeddedTier | ClusterTier) -> None:
        self._tier = tier
        self._telemetry = tier.telemetry
        self._telemetry.selector_state = self._selector_state
        configuration = tier.configuration
        self.drain = Drain(
            under_way=self._uploads,
            least_s=configuration.drain_min_s,
            most_s=configuration.drain_s,
            on_begin=self._refuse_check_ins,
        )
        app = self.flask = Flask("nightshift")
        app.json.sort_keys = False  # type: ignore[attr-defined]
        # A redirect is no answer for a program that speaks the protocol.
        app.url_map.merge_slashes = False
        app.wsgi_app = DeviceProtocol(  # type: ignore[method-assign]
            app.wsgi_app,
            selector=tier.selector,
            tokens=SessionTokens(key=tier.secrets.session_key),
            events=EventsRoute(selector=tier.selector, events=tier.events),
            blobs=BlobRoute(downloads=tier.downloads, traffic=self._telemetry.traffic),
            max_chunk_bytes=configuration.max_chunk_bytes,
            permanent=pace_policy(configuration).permanent,
            session_url=(configuration.public_url or "").rstrip("/"),
            telemetry=self._telemetry,
        )
        app.register_blueprint(admin_api(tier=tier))
        app.register_blueprint(self._operation_routes())
        app.register_error_handler(HTTPException, _not_routed)
        app.register_error_handler(Exception, self._failed)

    def _operation_routes(self) -> Any:
        tier = self._tier
        heartbeat = Heartbeat(tier.system.now)

        def on_beat() -> None:
            heartbeat.beat()
            self._telemetry.check_ins.sample()

        tier.system.spawn(Pulse, name="pulse", on_beat=on_beat).tell("beat")
        return operation_routes(
            live=[
                Probe("actors", heartbeat.check),
                Probe("selector", partial(selector_answers, tier.selector)),
            ],
            ready=[
                Probe("accepting", self._accepts),
                Probe("database", partial(database_answers, tier.registry)),
                Probe("blobs", blobs_answer(tier.blobs)),
                Probe("leases", LeasesAreHeld(tier.populations_without_lease, self._holder)),
                Probe(
                    "model_update",
                    model_update_is_ready(lambda: tier.updater.ready, tier.updater.start),
                ),
            ],
            telemetry=self._telemetry,
            rounds=Probe("rounds", RoundMetrics(tier.registry, self._telemetry.metrics).read),
        )

    def _accepts(self) -> str:
        if self.drain.began:
            raise NotWell("draining: the process ends when the uploads under way have")
        return "check-ins are accepted"

    def _holder(self, population: str) -> str | None:
        lease = self._tier.registry.leases.holder(f"{COORDINATOR}{population}")
        return lease.owner if lease is not None and lease.owner and not lease.expired else None

    def _statistics(self) -> dict[str, dict[str, float]]:
        """Of each population that the selector serves; a new selector knows some only soon."""
        found = {}
        for population in self._tier.populations:
            with suppress(ActorDied, AskTimeout, Refusal):
                found[population] = self._tier.selector.ask("statistics", population)
        return found

    def _selector_state(self) -> SelectorState:
        found = self._statistics()
        return SelectorState(
            estimated_devices={name: each.pop("estimated_devices") for name, each in found.items()},
            sessions={name: {s: int(n) for s, n in each.items()} for name, each in found.items()},
            upload_memory=self._tier.upload_memory.held,
            draining=self.drain.began,
        )

    def _uploads(self) -> int:
        return sum(int(each[state]) for each in self._statistics().values() for state in UPLOADING)

    def _refuse_check_ins(self) -> None:
        with suppress(ActorDied):
            self._tier.selector.ask("drain", RETRY_S)

    def _failed(self, error: Exception) -> Response:
        request_id = self._telemetry.failures.request_failed(
            request.method, request.path, request.headers.get("X-Request-Id", ""), error
        )
        return _error(Error(message=failure_message(request_id)), 500)


def _not_routed(error: HTTPException) -> Response | tuple[dict[str, str], int]:
    message = f"{request.method} {request.path}: {error.name}"
    if request.path.startswith("/v1/admin/"):
        return {"error": message}, error.code or 500
    return _error(Error(reason=UNKNOWN_ROUTE, message=message), error.code or 500)


def _error(body: Error, status: int) -> Response:
    content_type, data = encode_message(request.environ, body)
    return Response(data, status, {"Connection": "close"}, content_type=content_type)


class OnceClosed:
    """Closes something once, whoever asks first; the others wait until it is closed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._close: Callable[[], None] | None = None

    def set(self, close: Callable[[], None]) -> None:
        self._close = close
        # A child of multiprocessing ends without running what atexit knows.
        util.Finalize(None, self, exitpriority=0)

    def __call__(self) -> None:
        with self._lock:
            close, self._close = self._close, None
            if close is not None:
                close()


def create(configuration: ServerConfiguration, closing: OnceClosed) -> Application:
    """The application of a worker process, with its own tier, started.

    Args:
        configuration: The operator's settings.
        closing: Is given the tier's end.
    """
    tier: EmbeddedTier | ClusterTier
    if configuration.ray_address is None:
        tier = EmbeddedTier(configuration)
    else:
        # Ray is not needed by servers that are no selectors of a cluster.
        from server.cluster.tier import ClusterTier

        tier = ClusterTier(configuration)
    closing.set(tier.close)
    tier.start()
    return Application(tier)
