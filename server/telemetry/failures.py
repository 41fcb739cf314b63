"""Actors that died and requests that failed: what should not happen, counted and logged."""

import re
import secrets

from prometheus_client import CollectorRegistry, Counter

from server.telemetry.labels import Labels
from server.telemetry.logs import event_log

_log = event_log("server.failures")

#: Kinds of actors that are counted apart.
MAX_KINDS = 20

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class FailureTelemetry:
    """Counts and logs. Thread-safe.

    Args:
        registry: Where its metrics go.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._kinds = Labels(MAX_KINDS)
        self._deaths = Counter(
            "nightshift_actor_deaths",
            "Actors that an exception ended, by kind.",
            ["kind"],
            registry=registry,
        )
        self._requests = Counter(
            "nightshift_request_failures", "Requests answered with a 500.", registry=registry
        )

    def actor_died(self, kind: str, name: str, reason: BaseException | None) -> None:
        """An actor has ended that should not have.

        Args:
            kind: One of a few, e.g. "coordinator".
            name: The actor's.
            reason: What ended it, if that is known.
        """
        self._deaths.labels(self._kinds.of(kind)).inc()
        _log.error("actor_died", kind=kind, name=name, reason=repr(reason), exc_info=reason)

    def request_failed(self, method: str, path: str, request_id: str, error: Exception) -> str:
        """A request is answered with a 500, because of an error of ours.

        Args:
            method: The request's,
            path: and its path.
            request_id: From its header X-Request-Id; "" or one of strange form is replaced.
            error: Ours; its traceback is logged.

        Returns:
            The request's id, for the answer.
        """
        if not _REQUEST_ID.fullmatch(request_id):
            request_id = secrets.token_hex(8)
        self._requests.inc()
        _log.error(
            "request_failed", method=method, path=path, request_id=request_id, exc_info=error
        )
        return request_id
