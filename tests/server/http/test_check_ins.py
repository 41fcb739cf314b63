"""Check-ins answered at once: what is said, to whom, and how it is counted."""

import random
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf import json_format
from werkzeug.test import Client, TestResponse

from device_plan import wire_pb2 as wire
from server.actors.runtime import Actor, ActorSystem
from server.actors.selector import Selector
from server.actors.supervised import Supervised
from server.assignment import Opening
from server.desk import PopulationSettings
from server.downloads import Downloads
from server.http.blob_route import BlobRoute
from server.http.credentials import SessionTokens
from server.http.device_protocol import DeviceProtocol
from server.http.events_route import EventsRoute
from server.http.ready_answers import MAX_KEPT
from server.protocol.pace_steering import PacePolicy, PaceSteering
from server.session_events import SessionEventLog
from server.telemetry.telemetry import Telemetry
from server.upload import UploadMemory

POPULATION = "keyboard/next-word"
RUNTIME = "tflite-runtime 2.14.0"
PROTOBUF, JSON = "application/x-protobuf", "application/json"

#: Everybody comes back after exactly a minute.
A_MINUTE = PacePolicy(min_delay_s=60.0, max_delay_s=60.0)

WORDS = {
    wire.NO_TASK: "nothing is scheduled for this device now",
    wire.HELD_OUT: "this device is held out for evaluation, and none is open",
    wire.ROUND_FULL: "the open round has the devices it wants",
    wire.QUOTA_REACHED: "the population has as many sessions open as it may",
}


class Master(Actor):
    """A master aggregator to whom nothing matters."""

    def pool_changed(self, selector_id: str, waiting: int) -> None:
        """Devices wait."""


class Front:
    """The device protocol of one selector, without a network."""

    def __init__(self, system: ActorSystem) -> None:
        self.system = system
        self.telemetry = Telemetry()
        downloads = Downloads(load=lambda _population, _sha256: b"")
        self.selector = Supervised(
            lambda: system.spawn(
                Selector,
                name="selector",
                dispatch="inline",
                selector_id="selector",
                rng=random.Random(7),
                memory=UploadMemory(limit=1 << 20),
                downloads=downloads,
                poll_interval_s=5.0,
                grace_s=5.0,
            )
        )
        self._master = system.spawn(Master, name="master")
        self._client = Client(
            DeviceProtocol(
                _nothing_else,
                selector=self.selector,
                tokens=SessionTokens(key=b"a key"),
                events=EventsRoute(selector=self.selector, events=SessionEventLog()),
                blobs=BlobRoute(downloads=downloads, traffic=self.telemetry.traffic),
                max_chunk_bytes=1 << 20,
                permanent=A_MINUTE.permanent,
                session_url="",
                telemetry=self.telemetry,
            )
        )

    def serve(self, *, pace: PacePolicy = A_MINUTE, **changes: Any) -> None:
        settings: dict[str, Any] = {"holdout_fraction": 0.0, "holdout_salt": b"salt", **changes}
        self.selector.ask("serve", PopulationSettings(name=POPULATION, pace=pace, **settings))

    def open_round(self, capacity: int) -> None:
        self.selector.ask(
            "open_selection",
            Opening(
                round_id="round",
                population=POPULATION,
                epoch=1,
                task_id="task",
                task="a task",
                computation=wire.TRAINING,
                variants=(("modern", (RUNTIME,)),),
                weight=1.0,
                master=self._master,
                capacity=capacity,
                window_s=60.0,
                lifetime_s=600.0,
            ),
        )

    def check_in(
        self, device: int, *, attempt: int = 0, accept: str = PROTOBUF, sends: str = PROTOBUF
    ) -> TestResponse:
        message = wire.CheckInRequest(
            protocol_version=1, check_in_id=f"check-in-{device:06}-{attempt:06}", runtime=RUNTIME
        )
        body = (
            json_format.MessageToJson(message).encode()
            if sends == JSON
            else message.SerializeToString()
        )
        return self._client.post(
            f"/v1/populations/{POPULATION}/checkins",
            data=body,
            content_type=sends,
            headers={"Authorization": f"Bearer {_key(device)}", "Accept": accept},
        )

    def told(self, device: int, attempt: int = 0) -> wire.CheckInResponse:
        return wire.CheckInResponse.FromString(self.check_in(device, attempt=attempt).data)

    def saturate(self, reason: wire.Reason) -> None:
        """Has every further device turned away for the reason."""
        self.serve(
            holdout_fraction=1.0 if reason == wire.HELD_OUT else 0.0,
            max_sessions=0 if reason == wire.QUOTA_REACHED else None,
        )
        if reason in (wire.ROUND_FULL, wire.QUOTA_REACHED):
            self.open_round(capacity=1)


def _key(device: int) -> str:
    # 43 characters of base64url are 32 bytes and two bits that must be zero.
    return f"{device:042}A"


def _nothing_else(_environ: Any, _start_response: Any) -> list[bytes]:
    raise AssertionError("only check-ins come here")


@pytest.fixture
def front() -> Iterator[Front]:
    system = ActorSystem()
    yield Front(system)
    assert system.shutdown()


def expected(reason: wire.Reason) -> wire.CheckInResponse:
    a_minute = wire.RetryWindow(min_delay_ms=60_000, max_delay_ms=60_000)
    return wire.CheckInResponse(
        protocol_version=1,
        retry_windows=wire.RetryWindows(if_accepted=a_minute, if_rejected=a_minute),
        rejection=wire.Rejection(reason=reason, message=WORDS[reason]),
    )


def rejections(front: Front, reason: wire.Reason, **how: Any) -> list[TestResponse]:
    """Several answers of devices that were turned away: a reservoir lets some in."""
    answers = [front.check_in(device, **how) for device in range(60)]
    assert {answer.status_code for answer in answers} == {200}
    if reason != wire.ROUND_FULL:
        return answers
    return [answer for answer in answers if b"ROUND_FULL" in answer.data or b"wants" in answer.data]


@pytest.mark.parametrize("reason", WORDS, ids=wire.Reason.Name)
def test_whoever_is_turned_away_is_told_why_and_when_to_come_back(
    front: Front, reason: wire.Reason
) -> None:
    front.saturate(reason)
    answers = rejections(front, reason)
    assert len(answers) > 20
    assert {answer.data for answer in answers} == {expected(reason).SerializeToString()}
    assert {answer.content_type for answer in answers} == {PROTOBUF}


@pytest.mark.parametrize("reason", WORDS, ids=wire.Reason.Name)
@pytest.mark.parametrize("how", [{"accept": JSON}, {"sends": JSON, "accept": "*/*"}], ids=str)
def test_it_is_told_in_json_too(front: Front, reason: wire.Reason, how: dict[str, str]) -> None:
    front.saturate(reason)
    # The same answers are kept as protobuf meanwhile, and must not be mixed up.
    rejections(front, reason)
    answers = rejections(front, reason, **how)
    told = {
        json_format.Parse(answer.data, wire.CheckInResponse()).SerializeToString()
        for answer in answers
    }
    assert told == {expected(reason).SerializeToString()}
    assert {answer.content_type for answer in answers} == {JSON}


def test_the_windows_follow_pace_steering(front: Front) -> None:
    policy = PacePolicy(min_delay_s=60.0, max_delay_s=6000.0, by_time_of_day=False)
    front.serve(pace=policy)
    met = front.told(1).retry_windows.if_rejected
    assert 60_000 <= met.min_delay_ms <= 660_000
    # No task is left: nobody need come soon.
    front.serve(pace=policy, resting=True)
    rested = front.told(2).retry_windows.if_rejected
    steering = PaceSteering(policy=policy)
    told = steering.windows(front.system.now(), demand_per_s=0.0, round_period_s=1.0).if_rejected
    assert (rested.min_delay_ms, rested.max_delay_ms) == (told[0] * 1000, told[1] * 1000)
    assert rested.min_delay_ms > met.max_delay_ms


def test_more_windows_than_are_kept_are_told_rightly(front: Front) -> None:
    # A pace whose windows are made anew for each device.
    policy = PacePolicy(min_delay_s=0.001, max_delay_s=1000.0, rendezvous_period_s=1000.0)
    front.serve(pace=policy)
    for device in range(MAX_KEPT + 100):
        told = front.told(device)
        window = told.retry_windows.if_rejected
        assert told.rejection.reason == wire.NO_TASK
        assert 0 < window.min_delay_ms <= window.max_delay_ms <= 1_000_000


def test_a_device_that_waits_finds_its_session_however_full_the_round_is(front: Front) -> None:
    front.serve()
    front.open_round(capacity=1)
    first = front.told(0)
    assert first.session_id
    waiting = {0: first}
    # Who is drawn in another's place waits; who is turned away does not.
    for device in range(1, 30):
        told = front.told(device)
        if told.session_id:
            waiting = {device: told}
    ((device, told),) = waiting.items()
    again = front.told(device)
    assert (again.session_id, again.session_token) == (told.session_id, told.session_token)
    assert again.WhichOneof("outcome") == "waiting"
    other_attempt = front.check_in(device, attempt=1)
    assert other_attempt.status_code == 409
    error = wire.Error.FromString(other_attempt.data)
    assert error.reason == wire.DEVICE_ALREADY_IN_SESSION


def test_every_answer_is_counted_and_every_device_observed(front: Front) -> None:
    front.serve(max_sessions=20)
    for device in range(30):
        front.told(device)
    front.open_round(capacity=100)
    for device in range(50):
        front.told(device, attempt=1)
    counts = {(reason or "accepted"): n for _, reason, n in front.telemetry.check_ins.items()}
    assert counts == {"NO_TASK": 30, "accepted": 20, "QUOTA_REACHED": 30}
    estimate = front.selector.ask("statistics", POPULATION)["estimated_devices"]
    assert estimate == pytest.approx(50, abs=1)


@pytest.mark.parametrize(
    ("bearer", "reason"),
    [
        ("", wire.MISSING_CREDENTIAL),
        ("A" * 42, wire.MISSING_CREDENTIAL),
        ("A" * 44, wire.MISSING_CREDENTIAL),
        ("A" * 42 + "=", wire.MISSING_CREDENTIAL),
        ("A" * 42 + "é", wire.MISSING_CREDENTIAL),
        ("A" * 21 + " " + "A" * 21, wire.MISSING_CREDENTIAL),
    ],
)
def test_a_saturated_server_still_asks_who_it_is(
    front: Front, bearer: str, reason: wire.Reason, monkeypatch: pytest.MonkeyPatch
) -> None:
    front.saturate(wire.NO_TASK)
    front.told(1)
    monkeypatch.setattr("tests.server.http.test_check_ins._key", lambda _device: bearer)
    answer = front.check_in(1)
    assert answer.status_code == 401
    assert wire.Error.FromString(answer.data).reason == reason
