"""Refusals as HTTP answers: which status each reason has; and what failures say."""

from device_plan import wire_pb2 as wire
from device_plan.wire_pb2 import Reason

#: The HTTP status of each reason that is a mistake of the request (wire.proto).
STATUS: dict[Reason, int] = {
    wire.MALFORMED_MESSAGE: 400,
    wire.INVALID_FIELD: 400,
    wire.UNSUPPORTED_PROTOCOL: 400,
    wire.TRUNCATED: 400,
    wire.MISSING_CREDENTIAL: 401,
    wire.NOT_YOUR_SESSION: 403,
    wire.UNKNOWN_POPULATION: 404,
    wire.UNKNOWN_SESSION: 404,
    wire.UNKNOWN_BLOB: 404,
    wire.UNKNOWN_ROUTE: 404,
    wire.DEVICE_ALREADY_IN_SESSION: 409,
    wire.WRONG_STATE: 409,
    wire.CHUNK_OUT_OF_ORDER: 409,
    wire.ALREADY_SUBMITTED: 409,
    wire.UPLOAD_INCOMPLETE: 409,
    wire.GOAL_REACHED: 409,
    wire.ROUND_OVER: 410,
    wire.LENGTH_REQUIRED: 411,
    wire.TOO_LARGE: 413,
    wire.UNSUPPORTED_MEDIA_TYPE: 415,
    wire.WRONG_DIGEST: 422,
    wire.INVALID_UPDATE: 422,
    wire.NOT_FINITE: 422,
    wire.OUT_OF_RANGE: 422,
    wire.BUSY: 429,
}


def failure_message(request_id: str) -> str:
    """What whoever asked is told of an error of ours: where to look, not what it was."""
    return f"the server failed; its log has the reason under request {request_id}. Try again later."
