"""Whole simulations, small enough to take a few seconds each."""

from dataclasses import replace

import pytest

from device_plan.cohort import CohortPolicy
from server.protocol.pace_steering import PacePolicy
from server.simulation.run import run
from server.simulation.scenario import Habits, Scenario

COHORT = CohortPolicy(
    goal_count=20, selection_window_s=60, selection_timeout_s=600, reporting_window_s=300
)
SMALL = Scenario(
    devices=6000,
    days=0.3,
    cohort=COHORT,
    pace=PacePolicy(slots_log2=16),
    rollout_s=3600.0,
    step_s=5.0,
)


def test_batches_agree_with_one_call_for_each_device() -> None:
    batched = run(SMALL)["summary"]
    single = run(SMALL, one_by_one=True)["summary"]
    for name in ("check_ins", "turned_away", "selected", "uploaded", "in_the_sum"):
        assert batched[f"sum_of_{name}"] == pytest.approx(single[f"sum_of_{name}"], rel=0.04), name
    assert batched["drop_out_rate"] == pytest.approx(single["drop_out_rate"], abs=0.015)
    assert batched["rounds"]["committed"] == pytest.approx(single["rounds"]["committed"], rel=0.04)
    for phase in ("whole", "selecting", "reporting"):
        ours, theirs = (found["rounds"]["seconds"][phase]["p50"] for found in (batched, single))
        assert ours == pytest.approx(theirs, rel=0.05)


@pytest.mark.parametrize("steered", [True, False])
@pytest.mark.parametrize("selectors", [1, 3])
def test_every_check_in_ends_in_one_way(steered: bool, selectors: int) -> None:
    scenario = replace(SMALL, devices=2000, steered=steered, selectors=selectors, days=0.15)
    summary = run(scenario)["summary"]
    ends = ("no_answer", "unsupported", "turned_away", "withdrawn", "selected")
    waiting = summary["sum_of_check_ins"] - sum(summary[f"sum_of_{end}"] for end in ends)
    # Who still waits when the simulation ends: in one pool, or chosen and not configured.
    assert 0 <= waiting <= 2 * COHORT.selection_target
    fates = ("uploaded", "interrupted", "failed", "vanished")
    # Sessions that would end after the simulation are counted in its last hour.
    assert sum(summary[f"sum_of_{fate}"] for fate in fates) == summary["sum_of_selected"]
    assert summary["rounds"]["accepted_over_goal"] <= 1.0


def test_a_seed_gives_the_same_figures_and_another_seed_others() -> None:
    tiny = replace(SMALL, devices=1000, days=0.1)
    assert run(tiny) == run(tiny)
    assert run(tiny) != run(replace(tiny, seed=8))


def test_a_herd_is_dissolved_by_the_pace_and_echoes_without() -> None:
    # Where it is evening when the simulation begins, and all devices are idle.
    scenario = replace(
        SMALL,
        devices=10_000,
        days=0.35,
        habits=Habits(night_share=1.0, night_begins_sd=0.0, night_hours=10.0, night_hours_sd=0.0),
        time_zones={-3.0: 1.0},
        wake_at_s=6 * 3600.0,
        wake_share=0.9,
    )
    steered = run(scenario)["summary"]["after_the_wake"]
    unsteered = run(replace(scenario, steered=False))["summary"]["after_the_wake"]
    assert unsteered["peak_per_s"] > 5 * steered["peak_per_s"]


def test_a_fleet_too_small_for_its_rounds_meets_and_fills_some() -> None:
    few = replace(
        SMALL,
        devices=60,
        days=1.0,
        time_zones={0.0: 1.0},
        habits=Habits(night_share=1.0),
        rollout_s=60.0,
    )
    summary = run(few)["summary"]
    assert summary["rounds"]["committed"] > 50
    assert summary["arrivals"]["peak_over_mean"] > 20


def test_without_drop_out_every_selected_device_uploads() -> None:
    perfect = replace(
        SMALL,
        loss=0.0,
        failures=0.0,
        unsupported=0.0,
        pickups_per_hour_night=0.0,
        pickups_per_hour_day=0.0,
        session_s=1.0,
        days=0.2,
    )
    summary = run(perfect)["summary"]
    assert summary["drop_out_rate"] < 0.002
    assert summary["sum_of_no_answer"] == summary["sum_of_unsupported"] == 0


def test_adaptive_over_selection_follows_the_drop_out() -> None:
    cohort = replace(COHORT, goal_count=100, adaptive_over_selection=True)
    fleet = replace(SMALL, cohort=cohort, days=0.1, rollout_s=600.0)
    careful = run(replace(fleet, failures=0.25))["summary"]["rounds"]
    easy = run(replace(fleet, failures=0.0))["summary"]["rounds"]
    assert careful["selected_over_goal"] > 1.3 > easy["selected_over_goal"]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"devices": 0}, "devices"),
        ({"days": 30}, "days"),
        ({"loss": 1.0}, "loss"),
        ({"own_retry_s": 0.0}, "own_retry_s"),
        ({"time_zones": {15.0: 1.0}}, "time_zones"),
        ({"step_s": 100.0}, "step_s"),
    ],
)
def test_a_scenario_that_makes_no_sense_is_refused_by_name(wrong, named) -> None:
    with pytest.raises(ValueError, match=named):
        replace(SMALL, **wrong)
