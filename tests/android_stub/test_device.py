"""One device against a server, step by step, with a clock of the test's own."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from android_stub.attempt import SessionRecord
from android_stub.device import GATE_POLL_S, Device, State
from android_stub.example_store import ExampleStore
from android_stub.gate import Conditions, Gate
from android_stub.identity import Identity
from android_stub.misfortune import MisfortuneRates
from android_stub.randomness import SeededDraws
from android_stub.runtime import Runtime
from android_stub.server_api import ServerApi, Timeouts
from device_plan.archive import DevicePart, PlanArchive, write_archive
from device_plan.checkpoint import decode, encode
from device_plan.plan_pb2 import PlanManifest, ServerPart
from device_plan.signing import sign
from device_plan.wire_pb2 import AbortReason, Computation, Reason
from tests.android_stub import linear_plan, seeded_plan
from tests.android_stub.fake_server import FakeServer, Refuse

POPULATION = "tests/linear"


class Phone:
    """Conditions that close after so many looks."""

    def __init__(self) -> None:
        self.looks_until_closed: int | None = None
        self.change: float | None = None

    def conditions(self, now: float) -> Conditions:  # noqa: ARG002
        idle = self.looks_until_closed is None or self.looks_until_closed > 0
        if self.looks_until_closed is not None:
            self.looks_until_closed -= 1
        return Conditions(idle=idle, charging=True, unmetered=True)

    def next_change(self, now: float) -> float | None:  # noqa: ARG002
        return self.change


KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
PINNED = (KEY.public_key(),)


def signed_plan(key: Ed25519PrivateKey, *, others: str = "", **after: int) -> bytes:
    """The linear plan for this population, or others, signed; then with these fields changed."""
    part = DevicePart.from_bytes(linear_plan.PLAN.read_bytes())
    manifest = PlanManifest()
    manifest.CopyFrom(part.manifest)
    manifest.population = others or POPULATION
    whole = write_archive(
        variants=[DevicePart(manifest=manifest, graph=part.graph)],
        training=ServerPart(),
        evaluation=ServerPart(),
        initial_state=b"",
        initial_checkpoint=b"",
        checks={},
        schedule={},
    )
    (signed,) = PlanArchive(sign(PlanArchive(whole), key)).variants
    if not after:
        return signed.to_bytes()
    for name, value in after.items():
        setattr(signed.manifest, name, value)
    return DevicePart(
        manifest=signed.manifest, graph=signed.graph, signature=signed.signature
    ).to_bytes()


@dataclass
class Bench:
    server: FakeServer
    store: ExampleStore
    phone: Phone = field(default_factory=Phone)
    now: float = 1000.0
    records: list[SessionRecord] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)
    device: Device = field(init=False)

    def make(
        self,
        *,
        populations=(POPULATION,),
        misfortune: MisfortuneRates | None = None,
        plan_keys: tuple[Ed25519PublicKey, ...] = (),
    ) -> "Bench":
        self.device = Device(
            runtime=Runtime(
                api=ServerApi(url=self.server.url, timeouts=Timeouts(connect_s=1, read_s=2)),
                clock=lambda: self.now,
                misfortune=misfortune,
                plan_keys=plan_keys,
            ),
            identity=Identity.virtual(seed=1, index=1),
            populations=populations,
            store=self.store,
            gate=Gate(source=self.phone),
            draws=SeededDraws("bench"),
            on_session=self.records.append,
        )
        return self

    def step(self) -> float:
        delay = self.device.step(self.now)
        self.delays.append(delay)
        return delay

    def session(self, before_step: Callable[[], None] = lambda: None) -> SessionRecord:
        """Steps, letting time pass as asked, until a session ends."""
        count = len(self.records)
        for _ in range(100):
            before_step()
            delay = self.step()
            if len(self.records) > count:
                return self.records[-1]
            self.now += delay
        raise AssertionError("the session does not end")


@pytest.fixture
def bench(server: FakeServer, tmp_path: Path) -> Bench:
    store = ExampleStore(tmp_path / "examples.sqlite", durable=False)
    store.add(linear_plan.COLLECTION, linear_plan.examples(9), now=0.0)
    return Bench(server=server, store=store).make()


def test_a_training_session_uploads_the_update_and_returns_inside_the_accepted_window(bench):
    bench.server.script.polls = 2
    record = bench.session()
    assert record.shape == "-v[]+^"
    assert record.computation == "training"
    assert record.examples == 9
    (update,) = bench.server.submitted
    expected = linear_plan.train(linear_plan.checkpoint(), linear_plan.examples(9))
    for name, value in decode(update).items():
        np.testing.assert_allclose(value, expected[name], rtol=2e-5, atol=1e-5)
    assert 40.0 <= bench.delays[-1] <= 50.0
    (report,) = bench.server.reports
    assert (report.examples, report.batches) == (9, 6)
    assert bench.server.credentials == [Identity.virtual(seed=1, index=1).credential]


def test_an_evaluation_session_uploads_metrics(bench):
    bench.server.script.computation = Computation.EVALUATION
    record = bench.session()
    assert (record.shape, record.computation) == ("-v[]+^", "evaluation")
    metrics = decode(bench.server.submitted[0])
    expected = linear_plan.evaluate(linear_plan.checkpoint(), linear_plan.examples(9))
    np.testing.assert_allclose(metrics["squared_error"], expected["squared_error"], rtol=1e-5)


def test_traffic_is_counted_and_the_plan_downloaded_only_once(bench):
    plan, checkpoint = len(bench.server.script.plan), len(bench.server.script.checkpoint)
    first = bench.session()
    assert first.bytes_down > plan + checkpoint
    assert first.bytes_up > len(bench.server.submitted[0])
    bench.now += 100
    second = bench.session()
    assert checkpoint < second.bytes_down < plan
    assert sum("/blobs/" in request for request in bench.server.requests) == 3


def test_events_of_the_last_session_go_before_the_next_check_in(bench):
    first = bench.session()
    assert bench.server.events == []
    bench.now += 100
    bench.session()
    (events,) = bench.server.events
    assert (events.population, events.session_id) == (POPULATION, first.session_id)
    assert events.shape == "-v[]+^"
    assert (events.bytes_up, events.bytes_down) == (first.bytes_up, first.bytes_down)


def test_events_that_could_not_be_told_are_told_later(bench):
    bench.session()
    bench.server.script.lost_answers = ["events"]
    for _ in range(2):
        bench.now += 100
        bench.session()
    # The first telling's answer was lost, so it is repeated: told at least once.
    assert [events.session_id for events in bench.server.events] == ["s0", "s0", "s1"]


def test_a_rejection_leads_back_inside_the_rejected_window(bench):
    bench.server.script.rejection = Reason.ROUND_FULL
    record = bench.session()
    assert (record.shape, record.session_id, record.note) == ("-", "", "ROUND_FULL")
    assert 10.0 <= bench.delays[-1] <= 20.0
    assert bench.device.state is State.PACING


def test_each_attempt_has_its_own_id_and_a_retry_repeats_it(bench):
    bench.server.script.lost_answers = ["checkins"]
    assert bench.session().shape == "-v[]+^"
    bench.now += 100
    bench.session()
    first, again, second = bench.server.check_in_ids
    assert first == again != second
    assert 16 <= len(first) <= 64


@pytest.mark.parametrize(
    ("suffix", "refusal", "shape"),
    [
        ("report", Refuse(410, Reason.ROUND_OVER), "-v[]#"),
        ("update", Refuse(410, Reason.ROUND_OVER), "-v[]+#"),
        ("submit", Refuse(410, Reason.ROUND_OVER), "-v[]+#"),
        ("submit", Refuse(409, Reason.ALREADY_SUBMITTED), "-v[]+^"),
        ("submit", Refuse(422, Reason.NOT_FINITE), "-v[]+#"),
        ("update", Refuse(422, Reason.WRONG_DIGEST), "-v[]+^"),
        ("update", Refuse(429, Reason.BUSY), "-v[]+^"),
        ("update", Refuse(503, Reason.REASON_UNSPECIFIED), "-v[]+^"),
        ("checkins", Refuse(409, Reason.DEVICE_ALREADY_IN_SESSION), "-"),
    ],
)
def test_refusals_end_or_delay_the_session_as_their_reason_says(bench, suffix, refusal, shape):
    bench.server.script.refusals[suffix] = [refusal]
    assert bench.session().shape == shape


def test_nothing_is_uploaded_once_the_goal_is_reached(bench):
    bench.server.script.upload_wanted = False
    record = bench.session()
    assert (record.shape, record.note) == ("-v[]#", "GOAL_REACHED")
    assert not any(request.startswith("PUT") for request in bench.server.requests)
    assert 40.0 <= bench.delays[-1] <= 50.0


def test_an_upload_in_chunks_survives_a_broken_connection(bench):
    bench.server.script.max_chunk_bytes = 50

    def break_the_third_chunk() -> None:
        if len(bench.server.chunk_offsets) == 2 and not bench.delays[-1]:
            bench.server.script.break_upload_after = 30

    assert bench.session(break_the_third_chunk).shape == "-v[]+^"
    offsets = bench.server.chunk_offsets
    # The chunk at 100 broke off after 30 bytes; it is sent again from where the device was.
    assert offsets[:4] == [0, 50, 100, 150]
    assert 0.5 in bench.delays
    _assert_is_the_update(bench)


def test_an_upload_resumes_at_the_offset_the_server_names(bench):
    bench.server.script.max_chunk_bytes = 100

    def forget_the_second_chunk() -> None:
        if bench.server.chunk_offsets == [0, 100]:
            bench.server.uploads["s0"][50:] = b""

    assert bench.session(forget_the_second_chunk).shape == "-v[]+^"
    assert bench.server.chunk_offsets[:4] == [0, 100, 200, 50]
    _assert_is_the_update(bench)


def _assert_is_the_update(bench: Bench) -> None:
    expected = linear_plan.train(linear_plan.checkpoint(), linear_plan.examples(9))
    update = decode(bench.server.submitted[0])
    np.testing.assert_allclose(
        update["weights_delta"], expected["weights_delta"], rtol=2e-5, atol=1e-5
    )


def test_a_lost_submit_answer_counts_once_the_server_says_so(bench):
    bench.server.script.lost_answers = ["submit"]

    def already_there() -> None:
        if bench.server.submitted:
            bench.server.script.refusals["submit"] = [Refuse(409, Reason.ALREADY_SUBMITTED)]

    assert bench.session(already_there).shape == "-v[]+^"
    assert len(bench.server.submitted) == 1


def test_a_tampered_download_is_refused(bench):
    bench.server.script.tamper = lambda data: data[:-1] + bytes([data[-1] ^ 1])
    record = bench.session()
    assert record.shape == "-*"
    assert "SHA-256" in record.note
    assert bench.server.aborts == [AbortReason.DOWNLOAD_FAILED]
    assert bench.server.submitted == []


def test_a_plan_that_is_no_plan_is_unsupported_and_the_device_stays_away(bench):
    bench.server.script.plan = b"a well-delivered file, but no plan"
    assert bench.session().shape == "-*"
    assert bench.server.aborts == [AbortReason.UNSUPPORTED_PLAN]
    assert 0.8 * 4 * 3600 <= bench.delays[-1] <= 1.2 * 4 * 3600


def test_a_checkpoint_of_another_model_is_a_failed_computation(bench):
    bench.server.script.checkpoint = encode({"other": np.zeros(3, np.float32)})
    record = bench.session()
    assert record.shape == "-v[*"
    assert bench.server.aborts == [AbortReason.COMPUTATION_FAILED]


def test_too_few_examples_end_the_session_before_the_computation(server, tmp_path):
    store = ExampleStore(tmp_path / "few.sqlite", durable=False)
    store.add(linear_plan.COLLECTION, linear_plan.examples(2), now=0.0)
    bench = Bench(server=server, store=store).make()
    record = bench.session()
    assert (record.shape, record.examples) == ("-v", 0)
    assert server.aborts == [AbortReason.NOT_ENOUGH_EXAMPLES]


def test_a_closed_gate_sends_nothing_and_waits_for_the_change(bench):
    bench.phone.looks_until_closed = 0
    assert bench.step() == GATE_POLL_S
    assert bench.device.state is State.ASLEEP
    bench.phone.change = bench.now + 7.0
    assert bench.step() == 7.0
    assert bench.server.requests == []


def test_a_gate_that_closes_between_batches_interrupts_the_computation(bench):
    # Looks: device, check-in, plan, checkpoint, computation; then one for each batch.
    bench.phone.looks_until_closed = 7
    record = bench.session()
    assert (record.shape, record.note) == ("-v[!", "in use")
    assert bench.server.aborts == [AbortReason.CONDITIONS_CHANGED]
    assert bench.server.reports == []


def test_a_gate_that_closes_in_the_selection_pool_ends_the_session(bench):
    bench.server.script.polls = 5
    bench.phone.looks_until_closed = 3
    assert bench.session().shape == "-!"
    assert bench.server.aborts == [AbortReason.CONDITIONS_CHANGED]


def test_a_deadline_that_passes_ends_the_session(bench):
    bench.server.script.deadline_ms = 5000

    def dawdle() -> None:
        if bench.server.requests and "/blobs/" in bench.server.requests[-1]:
            bench.now += 3.0

    record = bench.session(dawdle)
    assert record.shape == "-v[!" or record.shape == "-v!"
    assert bench.server.aborts == [AbortReason.OUT_OF_TIME]


def test_an_unreachable_server_is_left_alone_for_the_default_time(tmp_path):
    with FakeServer() as gone:
        pass
    bench = Bench(server=gone, store=ExampleStore(tmp_path / "e.sqlite")).make()
    assert bench.session().shape == "-*"
    assert bench.delays[:-1] == [0.5, 1.0, 2.0, 4.0, 8.0]
    assert 0.8 * 900 <= bench.delays[-1] <= 1.2 * 900


def test_an_unknown_population_is_left_alone_for_hours_unless_the_server_says_when(bench):
    bench.server.script.refusals["checkins"] = [
        Refuse(404, Reason.UNKNOWN_POPULATION, windows=False),
        Refuse(404, Reason.UNKNOWN_POPULATION),
    ]
    assert bench.session().shape == "-*"
    assert 0.8 * 4 * 3600 <= bench.delays[-1] <= 1.2 * 4 * 3600
    bench.now += bench.delays[-1]
    bench.session()
    assert 10.0 <= bench.delays[-1] <= 20.0


def test_several_populations_take_turns(bench):
    bench.make(populations=("a", "b"))
    bench.server.script.rejection = Reason.NO_TASK
    for _ in range(6):
        bench.now += bench.step()
    asked = [request.split("/")[3] for request in bench.server.requests if "checkins" in request]
    assert asked[:2] == ["a", "b"]
    assert {"a", "b"} <= set(asked[2:])


def test_an_interrupted_virtual_device_stops_in_its_computation(bench):
    bench.make(misfortune=MisfortuneRates(interrupt=1.0))
    record = bench.session()
    assert (record.shape, record.misfortune) == ("-v[!", "interrupted")


def test_a_vanishing_device_is_silent_and_then_resumes_or_gives_up(bench):
    bench.make(misfortune=MisfortuneRates(vanish=1.0, vanish_s=20.0))
    shapes = set()
    for _ in range(12):
        count = len(bench.delays)
        record = bench.session()
        silences = [delay for delay in bench.delays[count:-1] if delay > 5]
        assert len(silences) == 1
        assert 10.0 <= silences[0] <= 30.0
        assert record.misfortune == "vanished"
        shapes.add(record.shape)
        bench.now += 100
    assert shapes == {"-v[]+^"}
    bench.server.script.deadline_ms = 9000
    for _ in range(12):
        shapes.add(bench.session().shape)
        bench.now += 100
    assert shapes == {"-v[]+^", "-v!", "-v[]+!"}


def test_a_device_whose_runtime_is_not_supported_comes_back_in_the_window_and_says_why(bench):
    bench.server.script.rejection = Reason.RUNTIME_NOT_SUPPORTED
    bench.server.script.rejected_ms = (86_400_000, 172_800_000)
    record = bench.session()
    assert record.shape == "-"
    assert record.note == "RUNTIME_NOT_SUPPORTED: as told"
    assert 86_400 <= bench.delays[-1] <= 172_800


def test_a_device_with_a_pinned_key_executes_a_plan_that_the_key_signed(bench):
    bench.server.script.plan = signed_plan(KEY)
    assert bench.make(plan_keys=PINNED).session().shape == "-v[]+^"


@pytest.mark.parametrize(
    ("plan", "note"),
    [
        (lambda: linear_plan.PLAN.read_bytes(), "is not signed"),
        (lambda: signed_plan(Ed25519PrivateKey.generate()), "signed by the unknown key"),
        (lambda: signed_plan(KEY, epochs=1000), "was altered after the key"),
        (lambda: signed_plan(KEY, others="tests/others"), "signed for the population"),
    ],
    ids=["unsigned", "by a stranger", "altered", "for another population"],
)
def test_a_plan_that_the_pinned_key_did_not_sign_is_never_loaded(bench, plan, note):
    bench.server.script.plan = plan()
    bench.make(plan_keys=PINNED)
    for _ in range(2):
        record = bench.session()
        assert record.shape == "-*"
        assert note in record.note
        assert bench.server.aborts[-1] == AbortReason.UNTRUSTED_PLAN
        assert 40.0 <= bench.delays[-1] <= 50.0
        bench.now += bench.delays[-1]
    # The plan each time, because it was not kept, and never the checkpoint.
    assert sum("/blobs/" in request for request in bench.server.requests) == 2
    assert bench.server.reports == []


def test_a_device_that_pins_nothing_executes_whatever_the_server_sends(bench):
    bench.server.script.plan = signed_plan(Ed25519PrivateKey.generate())
    assert bench.session().shape == "-v[]+^"


def test_a_seeded_plan_gets_the_devices_seed_for_the_session(bench):
    bench.server.script.plan = seeded_plan.PLAN.read_bytes()
    bench.server.script.checkpoint = encode(seeded_plan.checkpoint())
    bench.store.add(seeded_plan.COLLECTION, seeded_plan.examples(5), now=0.0)
    assert bench.session().shape == "-v[]+^"
    bench.now += bench.delays[-1]
    assert bench.session().shape == "-v[]+^"
    identity = Identity.virtual(seed=1, index=1)
    for number, update in enumerate(bench.server.submitted):
        expected = identity.session_seed(f"s{number}").astype(np.float32)
        np.testing.assert_array_equal(decode(update)["seed"], expected)
