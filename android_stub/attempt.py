"""Performs what a session asks for: its requests, its downloads, its computation."""

import secrets
import sqlite3
from collections.abc import MutableSequence
from dataclasses import dataclass

from android_stub.engine import (
    RUNTIME,
    Computation,
    ComputationFailed,
    UnsupportedPlan,
)
from android_stub.example_store import ExampleStore, NotEnoughExamples
from android_stub.gate import Gate
from android_stub.identity import Identity
from android_stub.misfortune import Misfortune
from android_stub.randomness import Uniform
from android_stub.runtime import Runtime
from android_stub.schedule import KnownDelays, Pace
from android_stub.server_api import (
    PROTOCOL_VERSION,
    NoAnswer,
    RefusedByServer,
    Traffic,
    WrongBlob,
)
from android_stub.session import Phase, Session
from android_stub.session_messages import (
    Abort,
    AbortAnswered,
    Action,
    Assigned,
    CheckIn,
    CheckpointReady,
    ChunkArrived,
    Comeback,
    ComputationStarted,
    Compute,
    Computed,
    ContactLost,
    DeadlinePassed,
    End,
    Event,
    Failed,
    FetchCheckpoint,
    FetchPlan,
    GateClosed,
    PlanReady,
    Poll,
    Refused,
    Rejected,
    Report,
    ReportAnswered,
    Submit,
    SubmitAnswered,
    TooFewExamples,
    UploadChunk,
    Waiting,
)
from device_plan import wire_pb2 as wire
from device_plan.archive import DevicePart, MalformedPlan
from device_plan.checkpoint import MalformedCheckpoint, decode, encode
from device_plan.signing import NotTrusted
from device_plan.wire_pb2 import AbortReason

#: Plans that one device keeps.
KEPT_PLANS = 4


@dataclass(frozen=True, kw_only=True)
class SessionRecord:
    """What is known of a session afterwards; nothing of it comes from the examples' content."""

    population: str
    #: "" for a check-in that was rejected at once.
    session_id: str
    shape: str
    #: "training", "evaluation", or "" if there was no assignment.
    computation: str
    round_id: str
    examples: int
    bytes_down: int
    bytes_up: int
    duration_ms: int
    #: The last reason that the server or the device gave, for people; may be "".
    note: str
    #: In fleets: "interrupted" or "vanished" if the device was made to; else "".
    misfortune: str


class _Stop(Exception):
    """Carries the event that ends a computation early."""

    def __init__(self, event: Event, note: str) -> None:
        super().__init__(note)
        self.event = event
        self.note = note


class Attempt:
    """One session of one device, advanced by one request or the computation at a time.

    Args:
        held_plans: SHA-256 of the plans the device has; changed in place.
        now: When the attempt begins.
    """

    def __init__(
        self,
        *,
        runtime: Runtime,
        population: str,
        identity: Identity,
        store: ExampleStore,
        gate: Gate,
        pace: Pace,
        draws: Uniform,
        held_plans: MutableSequence[str],
        now: float,
    ) -> None:
        self.population = population
        self.session = Session(retry_delays_s=runtime.retry_delays_s)
        self._runtime = runtime
        # Where the session is served; the tier may have several servers.
        self._api = runtime.api
        self._identity = identity
        self._store = store
        self._gate = gate
        self._pace = pace
        self._draws = draws
        self._held_plans = held_plans
        self._began_at = now
        self._check_in_id = secrets.token_urlsafe(24)
        self._session_id = ""
        self._token = ""
        self._traffic = Traffic()
        self._delays = KnownDelays()
        self._deadline_at: float | None = None
        self._refusal_had_windows = False
        self._plan: DevicePart | None = None
        self._checkpoint: bytes | None = None
        self._update = b""
        self._examples = 0
        self._fate: Misfortune | None = None
        self._note = ""

    def step(self, now: float) -> float:
        """Performs the action that is due; returns the seconds until the next one."""
        action = self.session.action
        if isinstance(action, End):
            return 0.0
        if self._fate is not None:
            silence = self._fate.silence_before(action)
            if silence > 0:
                return silence
        event = self._hindrance(now) or self._perform(action)
        return self.session.handle(event).after_s

    def _hindrance(self, now: float) -> Event | None:
        if self.session.phase >= Phase.SUBMITTING:
            return None
        if self._deadline_at is not None and now >= self._deadline_at:
            self._note = "the session's deadline passed"
            return DeadlinePassed()
        closed = self._gate.check(now)
        if closed is not None:
            self._note = closed.value
            return GateClosed()
        return None

    def _perform(self, action: Action) -> Event:
        try:
            return self._request(action)
        except NoAnswer as error:
            self._note = str(error)
            return ContactLost()
        except RefusedByServer as error:
            self._note = str(error)
            self._refusal_had_windows = error.retry_windows is not None
            if error.retry_windows is not None:
                self._learn(error.retry_windows)
            return Refused(reason=error.reason, upload_offset=error.upload_offset)
        except WrongBlob as error:
            self._note = str(error)
            return Failed(reason=AbortReason.DOWNLOAD_FAILED)
        except NotTrusted as error:
            self._note = str(error)
            return Failed(reason=AbortReason.UNTRUSTED_PLAN)
        except (MalformedPlan, UnsupportedPlan) as error:
            self._note = str(error)
            return Failed(reason=AbortReason.UNSUPPORTED_PLAN)
        except (MalformedCheckpoint, ComputationFailed, sqlite3.Error) as error:
            self._note = str(error)
            return Failed(reason=AbortReason.COMPUTATION_FAILED)

    def _request(self, action: Action) -> Event:
        api, token, traffic = self._api, self._token, self._traffic
        match action:
            case CheckIn():
                return self._checked_in(
                    self._runtime.api.check_in(
                        self.population,
                        wire.CheckInRequest(
                            protocol_version=PROTOCOL_VERSION,
                            check_in_id=self._check_in_id,
                            runtime=RUNTIME,
                            client_version=self._runtime.client_version,
                            attributes=self._runtime.attributes,
                        ),
                        credential=self._identity.credential,
                        traffic=traffic,
                    )
                )
            case Poll():
                return self._checked_in(api.poll(self._session_id, token=token, traffic=traffic))
            case FetchPlan():
                return self._fetch_plan()
            case FetchCheckpoint():
                blob = self._assignment.checkpoint
                self._checkpoint = api.fetch(blob, traffic=traffic)
                return CheckpointReady()
            case Compute():
                return self._compute()
            case Report(examples=examples, batches=batches, compute_ms=compute_ms):
                reported = api.report(
                    self._session_id,
                    wire.ReportRequest(examples=examples, batches=batches, compute_ms=compute_ms),
                    token=token,
                    traffic=traffic,
                )
                self._learn(reported.retry_windows)
                if not reported.upload:
                    self._note = _name(reported.reason)
                return ReportAnswered(upload=reported.upload)
            case UploadChunk(offset=offset, length=length, total=total):
                arrived = api.upload_chunk(
                    self._assignment.upload,
                    memoryview(self._update)[offset : offset + length],
                    offset=offset,
                    total=total,
                    token=token,
                    traffic=traffic,
                )
                self._learn(arrived.retry_windows)
                return ChunkArrived(received=arrived.received)
            case Submit():
                submitted = api.submit(self._assignment.upload, token=token, traffic=traffic)
                self._learn(submitted.retry_windows)
                return SubmitAnswered()
            case Abort(reason=reason):
                aborted = api.abort(
                    self._session_id,
                    wire.AbortRequest(reason=reason),
                    token=token,
                    traffic=traffic,
                )
                self._learn(aborted.retry_windows)
                return AbortAnswered()
            case End():
                return AbortAnswered()

    @property
    def _assignment(self) -> wire.Assignment:
        assert self.session.assignment is not None
        return self.session.assignment

    def _checked_in(self, answer: wire.CheckInResponse) -> Event:
        self._learn(answer.retry_windows)
        if answer.session_url:
            self._api = self._runtime.api.at(answer.session_url)
        # A poll's answer need not repeat what the check-in's said.
        self._session_id = answer.session_id or self._session_id
        self._token = answer.session_token or self._token
        match answer.WhichOneof("outcome"):
            case "waiting":
                return Waiting(poll_after_s=answer.waiting.poll_after_ms / 1000.0)
            case "assignment":
                assignment = answer.assignment
                if assignment.deadline_ms:
                    self._deadline_at = self._runtime.clock() + assignment.deadline_ms / 1000.0
                if self._runtime.misfortune is not None:
                    self._fate = Misfortune(rates=self._runtime.misfortune, draws=self._draws)
                return Assigned(assignment=assignment)
            case "rejection":
                self._note = _name(answer.rejection.reason)
                if answer.rejection.reason == wire.Reason.RUNTIME_NOT_SUPPORTED:
                    # It is for whoever builds the app to read.
                    self._note += f": {answer.rejection.message}"
                return Rejected(reason=answer.rejection.reason)
        raise NoAnswer("the answer says neither waiting, assignment nor rejection")

    def _learn(self, windows: wire.RetryWindows) -> None:
        self._delays.learn(windows, pace=self._pace, now=self._runtime.clock())

    def _fetch_plan(self) -> Event:
        blob = self._assignment.plan
        plan = self._runtime.plans.get(blob.sha256) if blob.sha256 in self._held_plans else None
        if plan is None:
            plan = DevicePart.from_bytes(self._api.fetch(blob, traffic=self._traffic))
            self._runtime.verify(plan, population=self.population)
            self._runtime.plans.put(blob.sha256, plan)
            if blob.sha256 not in self._held_plans:
                self._held_plans.append(blob.sha256)
                del self._held_plans[:-KEPT_PLANS]
        self._plan = plan
        return PlanReady()

    def _compute(self) -> Event:
        assert self._plan is not None
        assert self._checkpoint is not None
        computation = _computation(self._assignment.computation)
        clock = self._runtime.clock
        engine = self._runtime.engines.get(self._assignment.plan.sha256, self._plan)
        checkpoint = decode(self._checkpoint)
        try:
            examples = self._store.query(self._plan.manifest.example_selector, now=clock())
        except NotEnoughExamples as error:
            self._note = str(error)
            return TooFewExamples()
        self.session.handle(ComputationStarted())

        def before_batch(done: int, total: int) -> None:
            hindrance = self._hindrance(clock())
            if hindrance is not None:
                raise _Stop(hindrance, self._note)
            if self._fate is not None and self._fate.interrupts(done, total):
                raise _Stop(GateClosed(), "picked up")

        try:
            outcome = engine.run(
                computation,
                checkpoint=checkpoint,
                examples=examples,
                before_batch=before_batch,
                seed=self._identity.session_seed(self._session_id),
            )
        except _Stop as stop:
            self._note = stop.note
            return stop.event
        finally:
            self._checkpoint = None
        self._update = encode(outcome.tensors)
        self._examples = outcome.examples
        if self._fate is not None:
            half = self._fate.chunk_bytes(len(self._update))
            if half is not None:
                self.session.chunk_bytes = min(self.session.chunk_bytes, half)
        return Computed(
            examples=outcome.examples,
            batches=outcome.batches,
            compute_ms=outcome.compute_ms,
            update_bytes=len(self._update),
        )

    def due_next(self, now: float) -> float:
        """When the device comes back to this population, once the session has ended."""
        action = self.session.action
        assert isinstance(action, End)
        at: float | None = None
        match action.comeback:
            case Comeback.ACCEPTED:
                at = self._delays.accepted_at
            case Comeback.REJECTED:
                at = self._delays.rejected_at
            case Comeback.PERMANENT if self._refusal_had_windows:
                at = self._delays.rejected_at
        if at is None:
            permanent = action.comeback is Comeback.PERMANENT
            return now + self._pace.default(permanent=permanent)
        return at

    def record(self, now: float) -> SessionRecord:
        assignment = self.session.assignment
        return SessionRecord(
            population=self.population,
            session_id=self._session_id,
            shape=self.session.shape,
            computation="" if assignment is None else _name_of_computation(assignment.computation),
            round_id="" if assignment is None else assignment.round_id,
            examples=self._examples,
            bytes_down=self._traffic.bytes_down,
            bytes_up=self._traffic.bytes_up,
            duration_ms=max(0, round(1000 * (now - self._began_at))),
            note=self._note,
            misfortune="" if self._fate is None else self._fate.happened,
        )


def _computation(value: "wire.Computation") -> Computation:
    if value == wire.Computation.TRAINING:
        return "training"
    if value == wire.Computation.EVALUATION:
        return "evaluation"
    raise UnsupportedPlan(f"this runtime does not know computation {value}")


def _name_of_computation(value: "wire.Computation") -> str:
    try:
        return _computation(value)
    except UnsupportedPlan:
        return str(value)


def _name(reason: "wire.Reason") -> str:
    """The reason's name; a newer server may send one that this runtime does not know."""
    return wire.Reason.Name(reason) if reason in wire.Reason.values() else f"reason {reason}"
