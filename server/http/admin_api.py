"""The operator's API under /v1/admin: JSON in and out, a bearer token of its own.

A plan archive is posted as it is; everything else is small JSON. Mistakes are
answered as {"error": sentence} with a 4xx, and with a 503 what has to wait until the
database or the blob store is back.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response, g, jsonify, request
from werkzeug.exceptions import HTTPException

from device_plan.archive import MalformedPlan, PlanArchive
from device_plan.checkpoint import decode, encode
from device_plan.signing import NotTrusted
from server.http.credentials import bearer
from server.http.messages import read_body
from server.refusal import Refusal
from server.storage.blobs import BlobsUnavailable, get_content
from server.storage.errors import DatabaseUnavailable, NotFound, UnknownPopulation
from server.storage.tasks import Status, Task
from server.tier import EmbeddedTier

if TYPE_CHECKING:
    from server.cluster.tier import ClusterTier

_log = logging.getLogger(__name__)

#: Bytes of a plan archive that are accepted.
MAX_PLAN_BYTES = 1 << 30

#: Seconds after which an operator's program may ask again for what could not be done.
RETRY_AFTER_S = 5

#: What an operator may ask of a task: the status it must have, and the one it gets.
ACTIONS: dict[str, tuple[tuple[Status, ...], Status]] = {
    "pause": (("active",), "paused"),
    "resume": (("paused",), "active"),
    "cancel": (("active", "paused"), "cancelled"),
}


def admin_api(*, tier: EmbeddedTier | ClusterTier) -> Blueprint:
    """The operator's routes."""
    api = Blueprint("admin_api", __name__, url_prefix="/v1/admin")
    registry = tier.registry

    @api.before_request
    def authorize() -> tuple[Response, int] | None:
        try:
            token = bearer(request.environ)
        except Refusal:
            token = ""
        g.population = None
        if hmac.compare_digest(token.encode(), tier.secrets.admin_token.encode()):
            return None
        digest = hashlib.sha256(token.encode()).hexdigest()
        g.population = registry.populations.population_of_token(digest)
        if g.population is not None:
            return None
        return _error(
            401, "send 'Authorization: Bearer …' with the server's admin token, or a population's"
        )

    def own_task(task_id: str) -> Task:
        """The task, unless it is another population's than the token's."""
        task = registry.tasks.get(task_id)
        check_own(task.population)
        return task

    def check_own(population: str) -> None:
        if g.population not in (None, population):
            raise UnknownPopulation(f"the token is not for the population {population!r}")

    @api.errorhandler(NotFound)
    def not_found(error: NotFound) -> tuple[Response, int]:
        return _error(404, str(error))

    @api.errorhandler(Refusal)
    def refused(error: Refusal) -> tuple[Response, int]:
        return _error(400, error.message)

    @api.errorhandler(DatabaseUnavailable)
    @api.errorhandler(BlobsUnavailable)
    def unavailable(error: DatabaseUnavailable | BlobsUnavailable) -> tuple[Response, int]:
        what = "database" if isinstance(error, DatabaseUnavailable) else "blob store"
        _log.warning("%s %s is answered 503: %s", request.method, request.path, error)
        # Not its own words: whoever asks need not have shown a token yet.
        answer, status = _error(
            503,
            f"the {what} does not answer just now: try again in some seconds, after a look at "
            "what has been done already; /readyz tells when it is back",
        )
        answer.headers["Retry-After"] = str(RETRY_AFTER_S)
        return answer, status

    @api.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> tuple[Response, int]:
        return _error(error.code or 500, str(error.name))

    @api.post("/tasks")
    def create() -> tuple[Response, int]:
        try:
            plan = PlanArchive.from_bytes(read_body(request.environ, limit=MAX_PLAN_BYTES))
            wishes = {name: int(value) for name, value in request.args.items()}
            created = tier.deployment.create_tasks(plan, **wishes, only_population=g.population)
            for population in {registry.tasks.get(task_id).population for task_id in created}:
                tier.tasks_changed(population)
        except PermissionError as error:
            return _error(403, str(error))
        except NotTrusted as error:
            return _error(403, f"this server does not run the plan: {error}")
        except (MalformedPlan, TypeError, ValueError) as error:
            return _error(400, f"this plan cannot be deployed: {error}")
        warning = tier.deployment.signature_warning(plan)
        if warning is not None:
            _log.warning("plan %s: %s", plan.digest, warning)
        described = [_task(registry.tasks.get(task_id)) for task_id in created]
        return jsonify(tasks=described, warnings=[warning] if warning else []), 201

    @api.get("/tasks")
    def tasks() -> Response:
        population = g.population or request.args.get("population")
        return jsonify(tasks=[_task(task) for task in registry.tasks.list(population)])

    @api.get("/tasks/<task_id>")
    def task(task_id: str) -> Response:
        return jsonify(_task(own_task(task_id)))

    @api.post("/tasks/<task_id>/weight")
    def weigh(task_id: str) -> tuple[Response, int]:
        task = own_task(task_id)
        try:
            registry.tasks.set_weight(task_id, float(request.args.get("value", "")))
        except ValueError as error:
            return _error(400, f"give ?value=, a positive number: {error}")
        tier.tasks_changed(task.population)
        return jsonify(_task(registry.tasks.get(task_id))), 200

    @api.post("/tasks/<task_id>/<action>")
    def act(task_id: str, action: str) -> tuple[Response, int]:
        if action not in ACTIONS:
            return _error(404, f"no action {action!r}; there are {', '.join(ACTIONS)}")
        allowed, to = ACTIONS[action]
        task = own_task(task_id)
        if task.status not in allowed or not registry.tasks.set_status(task_id, task.status, to):
            return _error(409, f"task {task_id} is {task.status}: it cannot be {to}")
        tier.tasks_changed(task.population)
        return jsonify(_task(registry.tasks.get(task_id))), 200

    @api.get("/tasks/<task_id>/rounds")
    def rounds(task_id: str) -> Response:
        own_task(task_id)
        return jsonify(rounds=[asdict(record) for record in registry.rounds.list(task_id)])

    @api.get("/tasks/<task_id>/models")
    def models(task_id: str) -> Response:
        own_task(task_id)
        return jsonify(models=[asdict(model) for model in registry.models.list(task_id)])

    @api.get("/tasks/<task_id>/models/<int(max=2147483647):number>")
    def model(task_id: str, number: int) -> Response:
        own_task(task_id)
        return jsonify(asdict(registry.models.get(task_id, number)))

    @api.get("/tasks/<task_id>/models/<int(max=2147483647):number>/weights")
    def weights(task_id: str, number: int) -> Response:
        task = own_task(task_id)
        found = registry.models.get(task_id, number)
        blobs = tier.blobs_of(task.population)
        plan = PlanArchive(get_content(blobs, task.plan_digest))
        state = decode(get_content(blobs, found.state_sha256))
        names = plan.server_part("training").model_weights
        data = encode({name: state[tensor] for name, tensor in names.items()})
        return Response(data, content_type="application/octet-stream")

    @api.get("/populations/<path:name>")
    def population(name: str) -> Response:
        check_own(name)
        found = registry.populations.get(name)
        tier.flush_events()
        traffic = registry.session_shapes.traffic(name)
        return jsonify(
            name=name,
            holdout_fraction=found.holdout_fraction,
            max_sessions=found.max_sessions,
            max_upload_bytes=found.max_upload_bytes,
            created_at=found.created_at,
            session_shapes=[
                {"shape": shape, "sessions": sessions}
                for shape, sessions in registry.session_shapes.shapes(name)
            ],
            bytes_up=traffic.bytes_up,
            bytes_down=traffic.bytes_down,
            now=tier.selector.ask("statistics", name),
            unsupported_runtimes=tier.selector.ask("unsupported", name),
        )

    @api.get("/populations")
    def populations() -> Response:
        names = [each.name for each in registry.populations.list()]
        return jsonify(populations=[each for each in names if g.population in (None, each)])

    @api.post("/populations/<path:name>/quotas")
    def quotas(name: str) -> tuple[Response, int]:
        if g.population is not None:
            return _error(403, "a population's quotas are set with the server's admin token")
        wishes = request.get_json(force=True, silent=True)
        known = {"max_sessions", "max_upload_bytes"}
        if not isinstance(wishes, dict) or set(wishes) != known:
            return _error(400, f"send a JSON object with {' and '.join(sorted(known))}, or null")
        try:
            registry.populations.set_quotas(name, **wishes)
        except (TypeError, ValueError) as error:
            return _error(400, str(error))
        tier.serve_populations()
        return jsonify(name=name, **wishes), 200

    @api.post("/populations/<path:name>/token")
    def new_token(name: str) -> tuple[Response, int]:
        if g.population is not None:
            return _error(403, "a population's token is made with the server's admin token")
        token = secrets.token_urlsafe(32)
        registry.populations.set_token(name, hashlib.sha256(token.encode()).hexdigest())
        return jsonify(name=name, token=token), 201

    @api.delete("/populations/<path:name>/token")
    def revoke_token(name: str) -> tuple[Response, int]:
        if g.population is not None:
            return _error(403, "a population's token is revoked with the server's admin token")
        registry.populations.set_token(name, None)
        return jsonify(name=name, token=None), 200

    def _task(task: Task) -> dict[str, Any]:
        described = asdict(task)
        if task.computation == "training":
            described["head_round"] = registry.models.head(task.task_id).round
        described["variants"] = [
            {"name": variant.name, "bytes": variant.size, "runtimes": variant.runtimes}
            for variant in registry.plans.get(task.plan_digest).variants
        ]
        return described

    return api


def _error(status: int, message: str) -> tuple[Response, int]:
    return jsonify(error=message), status
