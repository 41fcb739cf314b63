"""One device: takes turns between its populations, one small step at a time."""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum

from android_stub.attempt import Attempt, SessionRecord
from android_stub.example_store import ExampleStore
from android_stub.gate import Gate
from android_stub.identity import Identity
from android_stub.randomness import Uniform
from android_stub.runtime import Runtime
from android_stub.schedule import DueTimes, Pace
from android_stub.server_api import NoAnswer, RefusedByServer, Traffic
from device_plan import wire_pb2 as wire
from device_plan.wire_pb2 import Reason

#: Seconds between looks at a closed gate whose source cannot say when it changes.
GATE_POLL_S = 60.0
#: Sessions that one events message may hold.
MAX_EVENTS = 64
#: Rejected check-ins alone are told to the server only in batches of so many.
REJECTIONS_BATCH = 16

_log = logging.getLogger(__name__)


class State(Enum):
    """What a device is doing."""

    #: Waiting for the time to come back.
    PACING = "pacing"
    #: The gate is closed.
    ASLEEP = "asleep"
    #: From a check-in to its end.
    IN_SESSION = "in_session"


class Device:
    """A device with one or more populations; at most one session at a time.

    Args:
        runtime: What the process's devices share.
        identity: The device's key.
        populations: Which take turns: the one due first goes first.
        store: The app's examples.
        gate: Asked before check-ins, polls, batches and uploads.
        draws: For delays, and for misfortune in fleets.
        time_scale: Divides default delays (not the server's windows).
        due: When each population is due.
        on_session: Called with each finished session.
    """

    __slots__ = (
        "_attempt",
        "_draws",
        "_due",
        "_events_tried",
        "_gate",
        "_held_plans",
        "_identity",
        "_on_session",
        "_pace",
        "_pending",
        "_populations",
        "_runtime",
        "_store",
        "state",
    )

    def __init__(
        self,
        *,
        runtime: Runtime,
        identity: Identity,
        populations: Sequence[str],
        store: ExampleStore,
        gate: Gate,
        draws: Uniform,
        time_scale: float = 1.0,
        due: DueTimes | None = None,
        on_session: Callable[[SessionRecord], None] | None = None,
    ) -> None:
        if not populations:
            raise ValueError("a device needs at least one population")
        self._runtime = runtime
        self._identity = identity
        self._populations = tuple(populations)
        self._store = store
        self._gate = gate
        self._draws = draws
        self._pace = Pace(draws=draws, time_scale=time_scale)
        self._due = due or DueTimes()
        self._on_session = on_session
        self._attempt: Attempt | None = None
        self._held_plans: list[str] = []
        #: Finished sessions that the server has not been told of.
        self._pending: deque[wire.SessionEvents] | None = None
        self._events_tried = False
        self.state = State.PACING

    def step(self, now: float) -> float:
        """Does what is due: one request, or the computation, or nothing.

        Args:
            now: Seconds, on the runtime's clock.

        Returns:
            Seconds from the return until the next step is due.
        """
        if self._attempt is not None:
            return self._continue(self._attempt, now)
        population = min(self._populations, key=lambda name: self._due.get(name, now))
        due = self._due.get(population, now)
        if due > now:
            self.state = State.PACING
            return due - now
        if self._gate.check(now) is not None:
            self.state = State.ASLEEP
            change = self._gate.next_change(now)
            return GATE_POLL_S if change is None else max(0.001, change - now)
        if self._events_due():
            self._tell_events()
            return 0.0
        self.state = State.IN_SESSION
        self._attempt = Attempt(
            runtime=self._runtime,
            population=population,
            identity=self._identity,
            store=self._store,
            gate=self._gate,
            pace=self._pace,
            draws=self._draws,
            held_plans=self._held_plans,
            now=now,
        )
        return self._continue(self._attempt, now)

    def _continue(self, attempt: Attempt, now: float) -> float:
        delay = attempt.step(now)
        if not attempt.session.ended:
            return delay
        self._attempt = None
        self._events_tried = False
        self.state = State.PACING
        ended_at = self._runtime.clock()
        self._due.set(attempt.population, attempt.due_next(ended_at))
        record = attempt.record(ended_at)
        self._remember(record)
        _log.info("%s %s %s", record.population, record.shape, record.note)
        if self._on_session is not None:
            self._on_session(record)
        next_due = min(self._due.get(name, ended_at) for name in self._populations)
        return max(0.0, next_due - ended_at)

    def _remember(self, record: SessionRecord) -> None:
        if self._pending is None:
            # Most of a fleet's devices never have anything to tell.
            self._pending = deque(maxlen=MAX_EVENTS)
        self._pending.append(
            wire.SessionEvents(
                population=record.population,
                session_id=record.session_id,
                shape=record.shape,
                bytes_down=record.bytes_down,
                bytes_up=record.bytes_up,
                duration_ms=record.duration_ms,
            )
        )

    def _events_due(self) -> bool:
        if not self._pending or self._events_tried:
            return False
        worth = any(events.shape != "-" for events in self._pending)
        return worth or len(self._pending) >= REJECTIONS_BATCH

    def _tell_events(self) -> None:
        assert self._pending is not None
        self._events_tried = True
        try:
            self._runtime.api.send_events(
                wire.EventsRequest(sessions=self._pending),
                credential=self._identity.credential,
                traffic=Traffic(),
            )
        except NoAnswer as error:
            _log.info("events kept for later: %s", error)
            return
        except RefusedByServer as error:
            _log.warning("events refused: %s", error)
            if error.reason == Reason.BUSY:
                return
        self._pending = None
