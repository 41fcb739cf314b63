"""What operators' machines ask: /healthz, /readyz and /metrics."""

from collections.abc import Sequence

from flask import Blueprint, Response, jsonify

from server.health.probe import Probe, report
from server.telemetry.telemetry import CONTENT_TYPE, Telemetry


def operation_routes(
    *, live: Sequence[Probe], ready: Sequence[Probe], telemetry: Telemetry, rounds: Probe
) -> Blueprint:
    """The routes.

    Args:
        live: What must be well for the process not to be restarted.
        ready: What must be well for devices to be sent here.
        telemetry: What /metrics shows,
        rounds: after this has counted rounds anew.
    """
    routes = Blueprint("operation", __name__)

    @routes.get("/healthz")
    def healthz() -> tuple[Response, int]:
        well, checks = report(live)
        return jsonify(healthy=well, checks=checks), 200 if well else 503

    @routes.get("/readyz")
    def readyz() -> tuple[Response, int]:
        well, checks = report(ready)
        return jsonify(ready=well, checks=checks), 200 if well else 503

    @routes.get("/metrics")
    def metrics() -> Response:
        rounds.result()
        return Response(telemetry.exposition(), content_type=CONTENT_TYPE)

    return routes
