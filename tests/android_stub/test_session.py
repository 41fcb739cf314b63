"""The session alone: every ending, and any order of events."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from android_stub import session_messages as m
from android_stub.session import MAX_WAITING_S, RETRY_DELAYS_S, SHAPE, Phase, Session
from device_plan.wire_pb2 import AbortReason, Assignment, Reason, Upload

ASSIGNMENT = Assignment(round_id="r", upload=Upload(path="/u", max_bytes=1000, max_chunk_bytes=40))
WAIT = m.Waiting(poll_after_s=1.0)
ASSIGNED = m.Assigned(assignment=ASSIGNMENT)
COMPUTED = m.Computed(examples=5, batches=2, compute_ms=7, update_bytes=100)
FETCHED = [WAIT, ASSIGNED, m.PlanReady(), m.CheckpointReady()]
STARTED = [*FETCHED, m.ComputationStarted()]
REPORTED = [*STARTED, COMPUTED]
UPLOADING = [*REPORTED, m.ReportAnswered(upload=True)]
SENT = [*UPLOADING, *(m.ChunkArrived(received=n) for n in (40, 80, 100))]
ABORTED = m.AbortAnswered()


def _refused(reason: int, offset: int = 0) -> m.Refused:
    return m.Refused(reason=reason, upload_offset=offset)


def _lost(times: int = len(RETRY_DELAYS_S) + 1) -> list[m.Event]:
    return [m.ContactLost()] * times


def _play(events) -> Session:
    session = Session()
    for event in events:
        session.handle(event)
    return session


@pytest.mark.parametrize(
    ("events", "shape", "comeback"),
    [
        ([m.Rejected(reason=Reason.ROUND_FULL)], "-", "rejected"),
        ([WAIT, WAIT, m.Rejected(reason=Reason.NOT_SELECTED)], "-", "rejected"),
        ([_refused(Reason.DEVICE_ALREADY_IN_SESSION)], "-", "rejected"),
        ([WAIT, _refused(Reason.ROUND_OVER)], "-", "rejected"),
        ([WAIT, _refused(Reason.UNKNOWN_SESSION)], "-*", "rejected"),
        ([_refused(Reason.UNKNOWN_POPULATION)], "-*", "permanent"),
        ([_refused(Reason.UNSUPPORTED_PROTOCOL)], "-*", "permanent"),
        (_lost(), "-*", "rejected"),
        ([WAIT, m.GateClosed(), ABORTED], "-!", "rejected"),
        ([m.ContactLost(), m.GateClosed()], "-!", "rejected"),
        ([WAIT, ASSIGNED, m.Failed(reason=AbortReason.DOWNLOAD_FAILED), ABORTED], "-*", "accepted"),
        ([WAIT, ASSIGNED, _refused(Reason.UNKNOWN_BLOB), ABORTED], "-*", "accepted"),
        (
            [*FETCHED[:3], m.Failed(reason=AbortReason.UNSUPPORTED_PLAN), ABORTED],
            "-*",
            "permanent",
        ),
        ([*FETCHED, m.TooFewExamples(), ABORTED], "-v", "accepted"),
        ([*FETCHED, m.GateClosed(), ABORTED], "-v!", "accepted"),
        ([*STARTED, m.GateClosed(), ABORTED], "-v[!", "accepted"),
        ([*STARTED, m.DeadlinePassed(), m.ContactLost()], "-v[!", "accepted"),
        (
            [*STARTED, m.Failed(reason=AbortReason.COMPUTATION_FAILED), ABORTED],
            "-v[*",
            "accepted",
        ),
        ([*REPORTED, m.ReportAnswered(upload=False)], "-v[]#", "accepted"),
        ([*REPORTED, _refused(Reason.ROUND_OVER)], "-v[]#", "accepted"),
        ([*REPORTED, _refused(Reason.UNKNOWN_SESSION)], "-v[]*", "accepted"),
        ([*REPORTED, m.DeadlinePassed(), ABORTED], "-v[]!", "accepted"),
        ([*UPLOADING, _refused(Reason.ROUND_OVER)], "-v[]+#", "accepted"),
        ([*UPLOADING, _refused(Reason.TOO_LARGE)], "-v[]+#", "accepted"),
        ([*UPLOADING, *_lost()], "-v[]+*", "accepted"),
        ([*UPLOADING, m.GateClosed(), ABORTED], "-v[]+!", "accepted"),
        ([*UPLOADING, _refused(Reason.ALREADY_SUBMITTED)], "-v[]+^", "accepted"),
        ([*SENT, m.SubmitAnswered()], "-v[]+^", "accepted"),
        ([*SENT, m.ContactLost(), _refused(Reason.ALREADY_SUBMITTED)], "-v[]+^", "accepted"),
        ([*SENT, _refused(Reason.NOT_FINITE)], "-v[]+#", "accepted"),
        ([*SENT, _refused(Reason.GOAL_REACHED)], "-v[]+#", "accepted"),
        ([*SENT, m.GateClosed(), m.DeadlinePassed(), m.SubmitAnswered()], "-v[]+^", "accepted"),
    ],
)
def test_every_ending_has_its_shape_and_its_way_back(events, shape, comeback):
    session = _play(events)
    assert session.ended
    assert session.shape == shape
    assert SHAPE.fullmatch(shape)
    assert isinstance(session.action, m.End)
    assert session.action.comeback.value == comeback


def test_actions_follow_the_protocol_in_order():
    session = Session()
    actions = [session.action]
    actions += [session.handle(event) for event in [*SENT, m.SubmitAnswered()]]
    assert actions == [
        m.CheckIn(),
        m.Poll(after_s=1.0),
        m.FetchPlan(),
        m.FetchCheckpoint(),
        m.Compute(),
        m.Compute(),
        m.Report(examples=5, batches=2, compute_ms=7),
        m.UploadChunk(offset=0, length=40, total=100),
        m.UploadChunk(offset=40, length=40, total=100),
        m.UploadChunk(offset=80, length=20, total=100),
        m.Submit(),
        m.End(comeback=m.Comeback.ACCEPTED),
    ]


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (m.GateClosed(), AbortReason.CONDITIONS_CHANGED),
        (m.DeadlinePassed(), AbortReason.OUT_OF_TIME),
        (m.Failed(reason=AbortReason.COMPUTATION_FAILED), AbortReason.COMPUTATION_FAILED),
    ],
)
def test_the_server_learns_why_a_computation_stopped(event, reason):
    assert _play([*STARTED, event]).action == m.Abort(reason=reason)


def test_lost_contact_is_retried_later_each_time_and_then_given_up():
    session = _play(UPLOADING)
    delays = [session.handle(m.ContactLost()).after_s for _ in RETRY_DELAYS_S]
    assert delays == list(RETRY_DELAYS_S)
    assert session.action == m.UploadChunk(
        offset=0, length=40, total=100, after_s=RETRY_DELAYS_S[-1]
    )
    session.handle(m.ContactLost())
    assert session.ended


def test_progress_gives_new_patience():
    session = _play([*UPLOADING, *_lost(5), m.ChunkArrived(received=40), *_lost(5)])
    assert session.phase is Phase.UPLOADING
    assert session.shape == "-v[]+"


def test_an_upload_resumes_where_the_server_says():
    session = _play([*UPLOADING, m.ChunkArrived(received=40)])
    action = session.handle(_refused(Reason.CHUNK_OUT_OF_ORDER, 15))
    assert action == m.UploadChunk(offset=15, length=40, total=100, after_s=0.5)


def test_an_incomplete_upload_is_completed():
    action = _play([*SENT, _refused(Reason.UPLOAD_INCOMPLETE, 60)]).action
    assert action == m.UploadChunk(offset=60, length=40, total=100, after_s=0.5)


def test_a_pool_that_never_selects_is_left():
    session = Session()
    for _ in range(20):
        session.handle(m.Waiting(poll_after_s=MAX_WAITING_S / 10))
        session.handle(m.Waiting(poll_after_s=float("inf")))
    assert session.shape == "-!"


def test_an_update_larger_than_the_server_takes_is_an_error():
    session = _play([*STARTED, m.Computed(examples=1, batches=1, compute_ms=1, update_bytes=1001)])
    assert session.shape == "-v[*"


_EVENTS = st.one_of(
    st.builds(m.Waiting, poll_after_s=st.floats(0, 1e4)),
    st.just(ASSIGNED),
    st.builds(m.Rejected, reason=st.sampled_from(Reason.values())),
    st.builds(
        m.Refused, reason=st.sampled_from(Reason.values()), upload_offset=st.integers(0, 300)
    ),
    st.builds(m.ReportAnswered, upload=st.booleans()),
    st.builds(m.ChunkArrived, received=st.integers(0, 300)),
    st.builds(m.Failed, reason=st.sampled_from(AbortReason.values())),
    st.sampled_from(
        [
            m.PlanReady(),
            m.CheckpointReady(),
            m.ComputationStarted(),
            m.TooFewExamples(),
            COMPUTED,
            m.SubmitAnswered(),
            m.AbortAnswered(),
            m.ContactLost(),
            m.GateClosed(),
            m.DeadlinePassed(),
        ]
    ),
)
_EXPECTED_NEXT = {
    m.CheckIn: WAIT,
    m.Poll: ASSIGNED,
    m.FetchPlan: m.PlanReady(),
    m.FetchCheckpoint: m.CheckpointReady(),
    m.Report: m.ReportAnswered(upload=True),
    m.Submit: m.SubmitAnswered(),
    m.Abort: ABORTED,
}


@st.composite
def _histories(draw):
    """Events of any kind, sprinkled among those that advance the session."""
    session = Session(chunk_bytes=draw(st.integers(1, 200)))
    shapes = [session.shape]
    for _ in range(draw(st.integers(0, 40))):
        action = session.action
        if draw(st.integers(0, 3)) == 0:
            event = draw(_EVENTS)
        elif isinstance(action, m.Compute):
            event = COMPUTED if session.shape.endswith("[") else m.ComputationStarted()
        elif isinstance(action, m.UploadChunk):
            event = m.ChunkArrived(received=action.offset + action.length)
        else:
            event = _EXPECTED_NEXT.get(type(action), m.ContactLost())
        session.handle(event)
        shapes.append(session.shape)
    return session, shapes


@given(_histories())
def test_any_order_of_events_can_end_and_ends_in_a_shape_of_the_grammar(history):
    session, shapes = history
    for before, after in itertools.pairwise(shapes):
        assert after.startswith(before)
        assert len(after) <= len(before) + 2
    if isinstance(session.action, m.Compute):
        session.handle(m.Failed(reason=AbortReason.COMPUTATION_FAILED))
    for _ in range(len(RETRY_DELAYS_S) + 2):
        session.handle(m.ContactLost())
    assert session.ended
    assert SHAPE.fullmatch(session.shape)
    assert isinstance(session.action, m.End)


@given(_histories(), st.lists(_EVENTS, max_size=5))
def test_after_the_end_nothing_changes(history, more):
    session, _ = history
    session.handle(m.Failed(reason=AbortReason.COMPUTATION_FAILED))
    for _ in range(len(RETRY_DELAYS_S) + 2):
        session.handle(m.ContactLost())
    last = (session.shape, session.action)
    for event in more:
        session.handle(event)
    assert (session.shape, session.action) == last


@given(st.lists(st.integers(0, 300), min_size=1, max_size=60))
def test_chunks_stay_inside_the_update_whatever_the_server_claims(claims):
    session = _play(UPLOADING)
    for claim in claims:
        if isinstance(session.action, m.UploadChunk):
            assert session.action.offset >= 0
            assert 1 <= session.action.length <= 40
            assert session.action.offset + session.action.length <= 100
            session.handle(m.ChunkArrived(received=claim))
