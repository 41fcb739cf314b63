"""What holds for a round whatever happens, in whatever order."""

from hypothesis import given
from hypothesis import strategies as st

from device_plan.cohort import CohortPolicy
from server.protocol.round import (
    Abandon,
    ApplyUpdate,
    Cancelled,
    CloseReporting,
    CloseSelection,
    Commit,
    CommitDone,
    CommitRefused,
    DevicesSelected,
    Effect,
    Event,
    Phase,
    PoolChanged,
    Released,
    Round,
    SessionEnded,
    SumsCollected,
    Tick,
    UpdateAccepted,
    UpdateApplied,
    UpdateFailed,
    WakeAt,
)

SESSIONS = [f"s{number}" for number in range(8)]

policies = st.builds(
    CohortPolicy,
    goal_count=st.integers(1, 5),
    over_selection=st.sampled_from([1.0, 1.3, 2.0]),
    minimum_fraction=st.sampled_from([0.1, 0.5, 0.8, 1.0]),
    selection_window_s=st.sampled_from([1.0, 10.0]),
    selection_timeout_s=st.sampled_from([10.0, 60.0]),
    reporting_window_s=st.sampled_from([1.0, 120.0]),
    straggler_grace_s=st.sampled_from([0.0, 0.5, 30.0]),
)
sessions = st.sampled_from(SESSIONS)
events: st.SearchStrategy[Event] = st.one_of(
    st.builds(PoolChanged, st.integers(0, 12)),
    st.just(Tick()),
    st.builds(DevicesSelected, st.lists(sessions, max_size=8).map(tuple)),
    st.builds(UpdateAccepted, sessions),
    st.just(Released()),
    st.builds(SessionEnded, sessions, st.sampled_from(["aborted", "expired", "rejected", "lost"])),
    st.builds(SumsCollected, st.integers(0, 8)),
    st.just(UpdateApplied()),
    st.builds(UpdateFailed, st.just("broken")),
    st.just(CommitDone()),
    st.builds(CommitRefused, st.just("fenced")),
    st.builds(Cancelled, st.just("stopped")),
)
#: Clocks may also jump back.
steps = st.lists(st.tuples(events, st.floats(-5.0, 70.0)), max_size=60)
QUESTIONS = (CloseSelection, CloseReporting, ApplyUpdate, Commit)


class Observer:
    """Drives a round and checks after every event what must always hold."""

    def __init__(self, policy: CohortPolicy, released: bool = True) -> None:
        self.policy = policy
        self.released = released
        self.round = Round(round_id="r", policy=policy, opened_at=0.0, released=released)
        self.effects: list[Effect] = []
        self.wakes: list[float] = []
        self.sum = 0
        self._keep(self.round.start())

    def send(self, event: Event, now: float) -> None:
        before, over = self.round.phase, self.round.over
        if isinstance(event, SumsCollected) and before is Phase.COLLECTING:
            self.sum = event.accepted
        self.released |= isinstance(event, Released)
        if isinstance(event, Tick) and self.wakes:
            # The timer went off, whatever the clock says.
            self.wakes.remove(min(self.wakes))
        effects = self.round.handle(event, now)
        assert not (over and effects), "an effect after the end"
        self._keep(effects)

    def _keep(self, effects: list[Effect]) -> None:
        self.effects += effects
        self.wakes += [effect.at for effect in effects if isinstance(effect, WakeAt)]
        commits = sum(isinstance(effect, Commit) for effect in self.effects)
        abandons = sum(isinstance(effect, Abandon) for effect in self.effects)
        assert commits <= 1
        assert abandons <= 1
        if commits:
            assert self.sum >= self.policy.minimum_count
        if abandons:
            assert isinstance(self.effects[-1], Abandon)
        assert (abandons == 1) == (self.round.phase is Phase.ABANDONED)
        for kind in QUESTIONS:
            assert sum(isinstance(effect, kind) for effect in self.effects) <= 1
        if not self.released:
            assert self.round.phase in (Phase.SELECTING, Phase.ABANDONED)
        elif not self.round.over and self.round.phase is not Phase.COMMITTING:
            assert self.wakes, "the round could wait for ever"
        statistics = self.round.statistics
        without = sum(statistics["ended"].values()) + statistics["unfinished"]
        if "collecting" not in statistics["seconds"]:
            assert statistics["accepted"] == statistics["selected"] - without
        assert 0 <= statistics["dropped"] <= statistics["selected"]


@given(policies, st.booleans(), steps)
def test_no_order_of_events_breaks_a_round(policy, released, steps) -> None:
    observer = Observer(policy, released)
    now = 0.0
    for event, delay in steps:
        now += delay
        observer.send(event, now)


#: For each phase, something that may carry the round on.
likely: dict[Phase, st.SearchStrategy[Event]] = {
    Phase.SELECTING: st.one_of(
        st.builds(PoolChanged, st.integers(0, 12)), st.just(Tick()), st.just(Released())
    ),
    Phase.CHOOSING: st.builds(DevicesSelected, st.just(tuple(SESSIONS))),
    Phase.REPORTING: st.one_of(
        st.builds(UpdateAccepted, sessions),
        st.builds(UpdateAccepted, sessions),
        st.builds(SessionEnded, sessions, st.sampled_from(["aborted", "lost"])),
        st.just(Tick()),
    ),
    Phase.COLLECTING: st.builds(SumsCollected, st.integers(0, 8)),
    Phase.UPDATING: st.sampled_from([UpdateApplied(), UpdateFailed("broken")]),
    Phase.COMMITTING: st.sampled_from([CommitDone(), CommitRefused("fenced")]),
}


@given(policies, st.booleans(), st.data())
def test_no_course_of_a_round_breaks_it(policy, released, data) -> None:
    observer = Observer(policy, released)
    now = 0.0
    for _ in range(40):
        now += data.draw(st.floats(0.0, 20.0))
        phase = observer.round.phase
        usual = likely.get(phase, events)
        observer.send(data.draw(usual if data.draw(st.integers(0, 9)) else events), now)
        if observer.round.over:
            break
    event = data.draw(events)
    over = observer.round.over
    observer.send(event, now)
    assert over <= observer.round.over


@given(policies, st.booleans(), steps)
def test_a_round_left_to_its_wakes_comes_to_an_end(policy, released, steps) -> None:
    observer = Observer(policy, released)
    now = 0.0
    for event, delay in steps:
        now += abs(delay)
        observer.send(event, now)
    observer.send(Released(), now)
    for _ in range(12):
        if observer.round.over:
            break
        if observer.round.phase is Phase.COMMITTING:
            observer.send(CommitDone(), now)
            break
        now = max(now, min(observer.wakes))
        observer.send(Tick(), now)
    assert observer.round.over


@given(policies, st.booleans(), steps, st.data())
def test_repeating_any_event_changes_nothing(policy, released, steps, data) -> None:
    once, twice = Observer(policy, released), Observer(policy, released)
    now = 0.0
    for event, delay in steps:
        now += delay
        once.send(event, now)
        twice.send(event, now)
        for _ in range(data.draw(st.integers(0, 2))):
            twice.send(event, now)
    kinds = [effect for effect in once.effects if not isinstance(effect, WakeAt)]
    assert kinds == [effect for effect in twice.effects if not isinstance(effect, WakeAt)]
    assert once.round.statistics == twice.round.statistics
