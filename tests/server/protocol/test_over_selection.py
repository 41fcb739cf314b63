"""Over-selection that follows the drop-out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from device_plan.cohort import CohortPolicy
from server.protocol.over_selection import OverSelection

FIXED = CohortPolicy(goal_count=100, adaptive_over_selection=False)
ADAPTIVE = CohortPolicy(goal_count=100, adaptive_over_selection=True)


def after(*rounds: tuple[int, int]) -> OverSelection:
    """Rounds of so many accepted and dropped devices have been observed."""
    observed = OverSelection()
    for accepted, dropped in rounds:
        observed.observe({"accepted": accepted, "dropped": dropped})
    return observed


def test_the_author_s_over_selection_is_used_until_something_was_observed() -> None:
    assert OverSelection().target(ADAPTIVE) == 130
    assert after((0, 0)).target(ADAPTIVE) == 130


def test_a_policy_that_does_not_adapt_selects_what_its_author_says() -> None:
    assert after(*[(100, 0)] * 50).target(FIXED) == 130


def test_rounds_without_statistics_say_nothing() -> None:
    observed = OverSelection()
    observed.observe({})
    assert observed.target(ADAPTIVE) == 130


@given(
    goal=st.sampled_from([1, 2, 7, 100, 1500]),
    rounds=st.lists(st.tuples(st.integers(0, 900), st.integers(0, 300)), min_size=1, max_size=8),
)
def test_the_target_is_the_fewest_devices_that_are_likely_to_be_enough(goal, rounds) -> None:
    policy = CohortPolicy(goal_count=goal, adaptive_over_selection=True, over_selection_max=10.0)
    observed = after((90, 10), *rounds)
    target, reports = observed.target(policy), 1.0 - observed.drop_out(policy)

    def likely(devices: int) -> float:
        return float(stats.binom.sf(goal - 1, devices, reports))

    assert goal <= target
    assert target == 10 * goal or likely(target) >= 0.95 - 1e-9
    assert target == goal or likely(target - 1) < 0.95 + 1e-9


def test_the_estimated_drop_out_approaches_the_true_one() -> None:
    chance = stats.binom(130, 0.08)
    drops = chance.rvs(size=60, random_state=3)
    estimate = after(*[(130 - int(dropped), int(dropped)) for dropped in drops])
    assert estimate.drop_out(ADAPTIVE) == pytest.approx(0.08, abs=0.025)


@pytest.mark.parametrize(("drop_out", "seed"), [(0.06, 1), (0.1, 2), (0.3, 3)])
def test_rounds_reach_their_goal_about_as_often_as_promised(drop_out: float, seed: int) -> None:
    observed, reached, rounds = OverSelection(), 0, 400
    uniform = stats.uniform.rvs(size=rounds, random_state=seed)
    for number in range(rounds):
        target = observed.target(ADAPTIVE)
        reports = int(stats.binom.ppf(uniform[number], target, 1 - drop_out))
        reached += reports >= 100
        observed.observe({"accepted": reports, "dropped": target - reports})
    # Less certain than with a drop-out that is known: the estimate wavers too.
    assert reached / rounds > 0.85


def test_an_outage_is_forgotten() -> None:
    calm = after(*[(120, 10)] * 30).target(ADAPTIVE)
    assert after(*[(120, 10)] * 30, (5, 125)).target(ADAPTIVE) > calm + 20
    assert after(*[(120, 10)] * 30, (5, 125), *[(120, 10)] * 40).target(ADAPTIVE) == calm


def test_the_target_keeps_within_the_author_s_bounds() -> None:
    bounded = CohortPolicy(
        goal_count=100,
        adaptive_over_selection=True,
        over_selection_min=1.2,
        over_selection_max=1.5,
    )
    assert after(*[(500, 0)] * 20).target(bounded) == 120
    assert after(*[(10, 490)] * 20).target(bounded) == 150
