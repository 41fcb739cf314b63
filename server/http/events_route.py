"""What devices tell of the sessions that they had: shapes, bytes and durations."""

import re

from google.protobuf.message import Message

from device_plan import wire_pb2 as wire
from server.actors.supervised import Supervised
from server.http.credentials import bearer, device_id
from server.http.messages import Environ, read_message
from server.refusal import Refusal
from server.session_events import SessionEventLog

#: Sessions that one POST /v1/events may report.
MAX_EVENTS = 64

#: Characters of a session's id in an event; those that are remembered cost memory.
MAX_SESSION_ID = 64

_SHAPE = re.compile(r"[-v\[\]+^#!*]{1,32}")


class EventsRoute:
    """POST /v1/events.

    Args:
        selector: Knows which populations are served.
        events: Where session shapes are counted.
    """

    def __init__(self, *, selector: Supervised, events: SessionEventLog) -> None:
        self._selector = selector
        self._events = events

    def __call__(self, environ: Environ) -> Message:
        """Counts all sessions of the request, or none.

        Raises:
            Refusal: MISSING_CREDENTIAL, INVALID_FIELD, UNKNOWN_POPULATION, or as `read_message`.
        """
        message = read_message(environ, wire.EventsRequest)
        bearer(environ)
        if len(message.sessions) > MAX_EVENTS:
            raise Refusal(wire.INVALID_FIELD, f"one request reports at most {MAX_EVENTS} sessions")
        for session in message.sessions:
            self._check(session)
        for session in message.sessions:
            self._events.record(device_id(environ, session.population), session)
        return wire.EventsResponse()

    def _check(self, session: wire.SessionEvents) -> None:
        if not _SHAPE.fullmatch(session.shape):
            raise Refusal(wire.INVALID_FIELD, "a shape has 1 to 32 of the characters -v[]+^#!*")
        if len(session.session_id) > MAX_SESSION_ID:
            raise Refusal(
                wire.INVALID_FIELD, f"a session_id has at most {MAX_SESSION_ID} characters"
            )
        if max(session.bytes_down, session.bytes_up, session.duration_ms) > 1 << 40:
            raise Refusal(wire.INVALID_FIELD, "bytes and duration_ms are at most 2^40")
        if self._selector.ask("windows", session.population) is None:
            raise Refusal(
                wire.UNKNOWN_POPULATION, f"no population {session.population!r} is served here"
            )
