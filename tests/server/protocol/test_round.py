"""Rounds by example."""

import itertools
from dataclasses import replace

import pytest

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
    Configure,
    DevicesSelected,
    Effect,
    OpenSelection,
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

#: Target 13, minimum 8, window until 110, timeout at 160.
POLICY = CohortPolicy(goal_count=10, selection_window_s=10.0, selection_timeout_s=60.0)
SESSIONS = tuple(f"session-{number}" for number in range(13))


def opened() -> Round:
    round_ = Round(round_id="r", policy=POLICY, opened_at=100.0)
    round_.start()
    return round_


def reporting(sessions: tuple[str, ...] = SESSIONS) -> Round:
    """A round whose devices were configured at 111; its deadline is 231."""
    round_ = opened()
    round_.handle(PoolChanged(13), 110.5)
    round_.handle(DevicesSelected(sessions), 111.0)
    return round_


def updating() -> Round:
    round_ = reporting()
    for session in SESSIONS[:10]:
        round_.handle(UpdateAccepted(session), 150.0)
    round_.handle(SumsCollected(10), 151.0)
    return round_


def committing() -> Round:
    round_ = updating()
    round_.handle(UpdateApplied(), 152.0)
    return round_


def the_abandonment(effects: list[Effect]) -> str:
    [effect] = effects
    assert isinstance(effect, Abandon)
    return effect.reason


def test_a_round_begins_by_opening_selection_for_130_percent_of_its_goal() -> None:
    round_ = Round(round_id="r", policy=POLICY, opened_at=100.0)
    assert round_.phase is Phase.CREATED
    assert round_.handle(PoolChanged(99), 200.0) == []
    assert round_.start() == [OpenSelection(target=13, closes_at=110.0), WakeAt(110.0)]
    assert round_.start() == []


def test_a_full_pool_is_not_taken_before_the_window_has_ended() -> None:
    round_ = opened()
    assert round_.handle(PoolChanged(13), 101.0) == []
    assert round_.handle(Tick(), 110.0) == [CloseSelection(13), WakeAt(170.0)]


def test_a_pool_that_fills_after_the_window_is_taken_at_once() -> None:
    round_ = opened()
    assert round_.handle(PoolChanged(9), 105.0) == []
    assert round_.handle(Tick(), 110.0) == [WakeAt(160.0)]
    assert round_.handle(PoolChanged(12), 115.0) == []
    assert round_.handle(PoolChanged(14), 120.0)[0] == CloseSelection(13)


def test_a_pool_that_shrinks_counts_as_it_is_when_the_window_ends() -> None:
    round_ = opened()
    round_.handle(PoolChanged(13), 105.0)
    round_.handle(PoolChanged(7), 109.0)
    assert round_.handle(Tick(), 110.0) == [WakeAt(160.0)]


def test_at_the_timeout_the_minimum_is_enough() -> None:
    round_ = opened()
    round_.handle(PoolChanged(8), 105.0)
    round_.handle(Tick(), 110.0)
    assert round_.handle(Tick(), 160.0)[0] == CloseSelection(8)


def test_at_the_timeout_fewer_than_the_minimum_abandon_the_round() -> None:
    round_ = opened()
    round_.handle(PoolChanged(7), 105.0)
    round_.handle(Tick(), 110.0)
    assert the_abandonment(round_.handle(Tick(), 160.0)) == "too_few_devices"
    assert round_.phase is Phase.ABANDONED


def test_a_tick_that_comes_too_early_asks_for_another() -> None:
    assert opened().handle(Tick(), 109.9) == [WakeAt(110.0)]
    assert reporting().handle(Tick(), 230.9) == [WakeAt(231.0)]


def test_the_selected_devices_are_configured_with_the_reporting_deadline() -> None:
    round_ = opened()
    round_.handle(PoolChanged(13), 110.5)
    effects = round_.handle(DevicesSelected(SESSIONS), 111.0)
    assert effects == [Configure(SESSIONS, deadline_at=231.0), WakeAt(231.0)]


def test_a_selection_that_lost_devices_below_the_minimum_is_abandoned() -> None:
    round_ = opened()
    round_.handle(PoolChanged(13), 110.5)
    effects = round_.handle(DevicesSelected(SESSIONS[:7]), 111.0)
    assert the_abandonment(effects) == "too_few_devices"


def test_the_goal_closes_reporting_and_cuts_off_the_stragglers() -> None:
    round_ = reporting()
    for session in SESSIONS[:9]:
        assert round_.handle(UpdateAccepted(session), 150.0) == []
    effects = round_.handle(UpdateAccepted(SESSIONS[9]), 150.0)
    assert effects == [CloseReporting("goal_reached"), WakeAt(210.0)]
    assert round_.handle(SessionEnded(SESSIONS[10], "goal_reached"), 150.5) == []
    assert round_.handle(SumsCollected(10), 151.0)[0] == ApplyUpdate(10)


def test_the_window_closes_reporting_with_what_there_is() -> None:
    round_ = reporting()
    for session in SESSIONS[:8]:
        round_.handle(UpdateAccepted(session), 150.0)
    assert round_.handle(Tick(), 231.0)[0] == CloseReporting("window_elapsed")
    assert round_.handle(SumsCollected(8), 231.1)[0] == ApplyUpdate(8)


def test_reporting_closes_when_every_session_has_ended() -> None:
    round_ = reporting()
    for session in SESSIONS[:9]:
        round_.handle(UpdateAccepted(session), 150.0)
    for session in SESSIONS[9:12]:
        assert round_.handle(SessionEnded(session, "aborted"), 151.0) == []
    effects = round_.handle(SessionEnded(SESSIONS[12], "expired"), 152.0)
    assert effects[0] == CloseReporting("all_ended")


def test_reporting_closes_as_soon_as_the_minimum_is_out_of_reach() -> None:
    round_ = reporting()
    for session in SESSIONS[:5]:
        assert round_.handle(SessionEnded(session, "aborted"), 120.0) == []
    effects = round_.handle(SessionEnded(SESSIONS[5], "aborted"), 120.0)
    assert effects[0] == CloseReporting("minimum_out_of_reach")
    assert the_abandonment(round_.handle(SumsCollected(0), 121.0)) == "too_few_updates"


def test_one_device_reported_twice_counts_once() -> None:
    round_ = reporting()
    for _ in range(20):
        assert round_.handle(UpdateAccepted(SESSIONS[0]), 150.0) == []
    assert round_.statistics["accepted"] == 1


def test_devices_that_were_not_selected_count_for_nothing() -> None:
    round_ = reporting()
    for number in range(20):
        assert round_.handle(UpdateAccepted(f"stranger-{number}"), 150.0) == []
        assert round_.handle(SessionEnded(f"stranger-{number}", "aborted"), 150.0) == []
    assert round_.statistics["accepted"] == 0


def test_what_is_in_the_sum_decides_and_not_what_was_announced() -> None:
    round_ = reporting()
    for session in SESSIONS[:10]:
        round_.handle(UpdateAccepted(session), 150.0)
    assert the_abandonment(round_.handle(SumsCollected(7), 151.0)) == "too_few_updates"


def test_a_model_update_is_committed_once() -> None:
    round_ = updating()
    assert round_.handle(UpdateApplied(), 152.0) == [Commit()]
    assert round_.handle(UpdateApplied(), 152.0) == []
    assert round_.handle(CommitDone(), 153.0) == []
    assert round_.phase is Phase.COMMITTED
    assert round_.over


def test_a_failed_model_update_abandons_the_round() -> None:
    [effect] = updating().handle(UpdateFailed("no such tensor"), 152.0)
    assert effect == Abandon("update_failed", "no such tensor")


def test_a_refused_commit_abandons_the_round() -> None:
    [effect] = committing().handle(CommitRefused("fenced"), 153.0)
    assert effect == Abandon("commit_refused", "fenced")


@pytest.mark.parametrize("make", [opened, reporting, updating])
def test_a_cancelled_task_abandons_its_round_in_any_phase_before_the_commit(make) -> None:
    assert the_abandonment(make().handle(Cancelled("by the author"), 155.0)) == "cancelled"


def test_a_commit_under_way_is_neither_cancelled_nor_timed_out() -> None:
    round_ = committing()
    assert round_.handle(Cancelled("by the author"), 153.0) == []
    assert round_.handle(Tick(), 1e9) == []
    round_.handle(CommitDone(), 1e9)
    assert round_.phase is Phase.COMMITTED


def test_selectors_aggregators_and_updaters_that_never_answer_abandon_the_round() -> None:
    choosing = opened()
    choosing.handle(PoolChanged(13), 110.0)
    assert the_abandonment(choosing.handle(Tick(), 170.0)) == "selection_not_answered"
    collecting = reporting()
    collecting.handle(Tick(), 231.0)
    assert the_abandonment(collecting.handle(Tick(), 291.0)) == "sums_not_collected"
    assert the_abandonment(updating().handle(Tick(), 751.0)) == "update_timed_out"


def test_answers_to_questions_that_were_not_asked_change_nothing() -> None:
    answers = [
        DevicesSelected(SESSIONS),
        SumsCollected(13),
        UpdateApplied(),
        UpdateFailed("x"),
        CommitDone(),
        CommitRefused("x"),
    ]
    round_ = opened()
    for event in answers:
        assert round_.handle(event, 101.0) == []
    assert round_.phase is Phase.SELECTING


def waiting_for_its_model() -> Round:
    round_ = Round(round_id="r", policy=POLICY, opened_at=100.0, released=False)
    assert round_.start() == [OpenSelection(target=13, closes_at=110.0)]
    return round_


def test_a_round_selects_as_many_devices_as_it_is_told() -> None:
    round_ = Round(round_id="r", policy=POLICY, opened_at=100.0, target=11)
    assert round_.start()[0] == OpenSelection(target=11, closes_at=110.0)
    assert round_.handle(PoolChanged(40), 111.0)[0] == CloseSelection(11)
    assert round_.statistics["target"] == 11


def test_a_round_cannot_select_fewer_than_its_minimum() -> None:
    with pytest.raises(ValueError, match="fewer than its minimum of 8"):
        Round(round_id="r", policy=POLICY, opened_at=100.0, target=7)


def test_a_round_without_its_model_takes_nobody_and_does_not_time_out() -> None:
    round_ = waiting_for_its_model()
    for now in (105.0, 111.0, 1e6):
        assert round_.handle(PoolChanged(40), now) == []
        assert round_.handle(Tick(), now) == []
    assert round_.phase is Phase.SELECTING


def test_a_release_takes_a_pool_that_is_full_at_once() -> None:
    round_ = waiting_for_its_model()
    round_.handle(PoolChanged(13), 111.0)
    assert round_.handle(Released(), 300.0)[0] == CloseSelection(13)


def test_a_release_within_the_window_waits_for_its_end() -> None:
    round_ = waiting_for_its_model()
    round_.handle(PoolChanged(13), 103.0)
    assert round_.handle(Released(), 104.0) == [WakeAt(110.0)]
    assert round_.handle(Tick(), 110.0)[0] == CloseSelection(13)


def test_a_round_released_late_still_gets_a_window_to_fill() -> None:
    round_ = waiting_for_its_model()
    round_.handle(PoolChanged(9), 103.0)
    assert round_.handle(Released(), 300.0) == [WakeAt(310.0)]
    assert round_.handle(Released(), 305.0) == []
    assert round_.handle(Tick(), 310.0)[0] == CloseSelection(9)


def test_a_round_that_waits_for_its_model_can_be_cancelled() -> None:
    assert the_abandonment(waiting_for_its_model().handle(Cancelled("x"), 500.0)) == "cancelled"


def test_an_update_whose_aggregator_died_is_not_in_the_sum_any_more() -> None:
    round_ = reporting()
    for session in SESSIONS[:9]:
        round_.handle(UpdateAccepted(session), 150.0)
    for _ in range(3):
        assert round_.handle(SessionEnded(SESSIONS[0], "lost"), 151.0) == []
    assert round_.statistics["accepted"] == 8
    assert round_.statistics["ended"] == {"lost": 1}
    assert round_.handle(UpdateAccepted(SESSIONS[0]), 152.0) == []
    assert round_.handle(UpdateAccepted(SESSIONS[9]), 152.0) == []
    assert round_.handle(UpdateAccepted(SESSIONS[10]), 152.0)[0] == CloseReporting("goal_reached")


def test_losing_so_many_that_the_minimum_is_out_of_reach_closes_reporting() -> None:
    round_ = reporting()
    for session in SESSIONS[:5]:
        round_.handle(UpdateAccepted(session), 150.0)
        assert round_.handle(SessionEnded(session, "lost"), 151.0) == []
    effects = round_.handle(SessionEnded(SESSIONS[5], "expired"), 152.0)
    assert effects[0] == CloseReporting("minimum_out_of_reach")


def test_devices_that_the_goal_made_superfluous_did_not_drop_out() -> None:
    round_ = reporting()
    round_.handle(SessionEnded(SESSIONS[12], "aborted"), 140.0)
    for session in SESSIONS[:10]:
        round_.handle(UpdateAccepted(session), 150.0)
    round_.handle(SessionEnded(SESSIONS[10], "goal_reached"), 150.0)
    assert round_.statistics["unfinished"] == 1
    assert round_.statistics["dropped"] == 1


def with_grace() -> Round:
    """Its devices were configured at 111, its deadline is 231, its grace 20 seconds."""
    round_ = Round(round_id="r", policy=replace(POLICY, straggler_grace_s=20.0), opened_at=100.0)
    round_.start()
    round_.handle(PoolChanged(13), 110.5)
    round_.handle(DevicesSelected(SESSIONS), 111.0)
    return round_


def test_with_a_grace_silence_closes_reporting_once_the_minimum_is_in() -> None:
    round_ = with_grace()
    for session in SESSIONS[:7]:
        assert round_.handle(UpdateAccepted(session), 130.0) == []
    assert round_.handle(UpdateAccepted(SESSIONS[7]), 160.0) == [WakeAt(180.0)]
    assert round_.handle(Tick(), 180.0)[0] == CloseReporting("grace_elapsed")
    assert round_.statistics["dropped"] == 5


def test_each_update_begins_the_grace_anew() -> None:
    round_ = with_grace()
    for session in SESSIONS[:8]:
        round_.handle(UpdateAccepted(session), 160.0)
    assert round_.handle(UpdateAccepted(SESSIONS[8]), 175.0) == []
    assert round_.handle(Tick(), 180.0) == [WakeAt(195.0)]
    assert round_.handle(Tick(), 195.0)[0] == CloseReporting("grace_elapsed")


def test_below_the_minimum_silence_is_borne_until_the_window_ends() -> None:
    round_ = with_grace()
    for session in SESSIONS[:8]:
        round_.handle(UpdateAccepted(session), 160.0)
    round_.handle(SessionEnded(SESSIONS[0], "lost"), 165.0)
    assert round_.handle(Tick(), 180.0) == [WakeAt(231.0)]
    assert round_.handle(Tick(), 231.0)[0] == CloseReporting("window_elapsed")


def test_the_grace_does_not_outlast_the_window() -> None:
    round_ = with_grace()
    for session in SESSIONS[:8]:
        round_.handle(UpdateAccepted(session), 220.0)
    assert round_.handle(Tick(), 231.0)[0] == CloseReporting("window_elapsed")


def test_the_statistics_say_who_ended_how_and_how_long_each_phase_took() -> None:
    round_ = reporting()
    for session in SESSIONS[:9]:
        round_.handle(UpdateAccepted(session), 150.0)
    for session, how in zip(SESSIONS[9:12], itertools.repeat("aborted"), strict=False):
        round_.handle(SessionEnded(session, how), 151.0)
    round_.handle(Tick(), 231.0)
    round_.handle(SumsCollected(9), 231.5)
    round_.handle(UpdateApplied(), 233.0)
    round_.handle(CommitDone(), 233.25)
    assert round_.statistics == {
        "target": 13,
        "selected": 13,
        "accepted": 9,
        "ended": {"aborted": 3},
        "unfinished": 1,
        "dropped": 4,
        "seconds": {
            "selecting": 10.5,
            "choosing": 0.5,
            "reporting": 120.0,
            "collecting": 0.5,
            "updating": 1.5,
            "committing": 0.25,
        },
        "closed_by": "window_elapsed",
        "abandoned_for": None,
    }
