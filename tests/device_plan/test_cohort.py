import json
import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_plan.cohort import CohortPolicy, Strata

hundredths = st.integers(1, 100)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=3,
)

strata = st.builds(
    Strata,
    attribute=st.text(min_size=1, max_size=64),
    shares=st.dictionaries(
        st.text(min_size=1, max_size=64), st.floats(0.01, 0.25), min_size=1, max_size=4
    ),
    strict=st.booleans(),
)
policies = st.builds(
    CohortPolicy,
    goal_count=st.integers(1, 100_000),
    over_selection=st.floats(1.0, 10.0),
    minimum_fraction=st.floats(0.01, 1.0),
    selection_window_s=st.floats(0.01, 100.0),
    selection_timeout_s=st.floats(100.0, 1e6),
    reporting_window_s=st.floats(0.01, 1e6),
    straggler_grace_s=st.floats(0.0, 1e6),
    pipelined=st.booleans(),
    strata=st.none() | strata,
    min_separation_s=st.floats(0.0, 1e9),
    max_participations=st.integers(0, 10**9),
    weight=st.floats(0.001, 1000.0),
)


@given(policies)
def test_a_policy_survives_json(policy: CohortPolicy) -> None:
    assert CohortPolicy.from_json(json.loads(json.dumps(policy.to_json()))) == policy


@given(goal=st.integers(1, 100_000), extra=hundredths, fraction=hundredths)
def test_counts_are_the_exact_products_rounded_up(goal: int, extra: int, fraction: int) -> None:
    policy = CohortPolicy(
        goal_count=goal, over_selection=1 + extra / 100, minimum_fraction=fraction / 100
    )
    assert policy.selection_target == math.ceil(goal * (1 + Fraction(extra, 100)))
    assert policy.minimum_count == math.ceil(goal * Fraction(fraction, 100))
    assert 1 <= policy.minimum_count <= goal <= policy.selection_target


def test_the_paper_selects_130_percent_of_the_goal() -> None:
    assert CohortPolicy(goal_count=100).selection_target == 130
    assert CohortPolicy(goal_count=100).minimum_count == 80


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({}, "needs a goal_count"),
        ({"goal_count": 0}, "goal_count must be from 1"),
        ({"goal_count": 1.5}, "whole number"),
        ({"goal_count": True}, "must be a number"),
        ({"goal_count": "10"}, "must be a number"),
        ({"goal_count": math.nan}, "goal_count is out of range"),
        ({"goal_count": math.inf}, "goal_count is out of range"),
        ({"goal_count": 10, "over_selection": 0.9}, "over_selection must be from 1.0"),
        ({"goal_count": 10, "over_selection": math.nan}, "over_selection must be from 1.0"),
        ({"goal_count": 10, "over_selection": 10**400}, "over_selection is out of range"),
        ({"goal_count": 10, "minimum_fraction": 0}, "minimum_fraction must be above 0"),
        ({"goal_count": 10, "reporting_window_s": 0}, "reporting_window_s must be a positive"),
        ({"goal_count": 10, "selection_window_s": math.inf}, "selection_window_s must be"),
        ({"goal_count": 10, "selection_timeout_s": 1}, "must not be shorter"),
        ({"goal_count": 10, "goal": 3}, "unknown cohort setting 'goal'"),
        ({"goal_count": 10, "pipelined": 1}, "pipelined must be true or false"),
        ({"goal_count": 10, "straggler_grace_s": -1}, "straggler_grace_s must be 0 or"),
        ({"goal_count": 10, "min_separation_s": math.nan}, "min_separation_s must be 0 or"),
        ({"goal_count": 10, "max_participations": 0.5}, "max_participations must be a whole"),
        ({"goal_count": 10, "max_participations": -1}, "max_participations must be from 0"),
        ({"goal_count": 10, "weight": 0}, "weight must be from 0.001"),
        ({"goal_count": 10, "over_selection_max": 11}, "over_selection_max must be from 1.0"),
        (
            {"goal_count": 10, "over_selection_min": 2.4},
            "must be at most over_selection_max",
        ),
        ({"goal_count": 10, "strata": [0.5]}, "strata must be an object"),
        ({"goal_count": 10, "strata": {"attribute": "os"}}, "strata need shares"),
        ({"goal_count": 10, "strata": {"by": "os"}}, "unknown setting 'by' of strata"),
        ({"goal_count": 10, "strata": {"attribute": "", "shares": {"a": 1}}}, "1 to 64 char"),
        ({"goal_count": 10, "strata": {"attribute": "os", "shares": {}}}, "1 to 100 values"),
        ({"goal_count": 10, "strata": {"attribute": "os", "shares": {"": 0.5}}}, "1 to 64 char"),
        ({"goal_count": 10, "strata": {"attribute": "os", "shares": {"a": 0}}}, "above 0"),
        ({"goal_count": 10, "strata": {"attribute": "os", "shares": {"a": "x"}}}, "a number"),
        (
            {"goal_count": 10, "strata": {"attribute": "os", "shares": {"a": 0.6, "b": 0.5}}},
            "at most 1 together",
        ),
    ],
)
def test_a_wrong_value_is_named(values: dict, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        CohortPolicy.from_json(values)


@given(
    st.dictionaries(
        st.sampled_from([*CohortPolicy(goal_count=1).to_json(), "other"]), json_values, max_size=4
    )
)
def test_any_json_object_gives_a_policy_or_a_value_error(values: dict) -> None:
    try:
        policy = CohortPolicy.from_json(values)
    except ValueError:
        return
    assert policy.goal_count == values["goal_count"]


def test_a_device_belongs_to_the_stratum_of_its_value_or_to_the_others() -> None:
    strata = Strata(attribute="country", shares={"de": 0.5, "fr": 0.2})
    assert strata.of({"country": "fr", "os": "14"}) == "fr"
    assert strata.of({"country": "it"}) == strata.of({}) == ""
    assert strata.all_shares == pytest.approx({"de": 0.5, "fr": 0.2, "": 0.3})


def test_shares_that_are_one_together_leave_the_others_nothing() -> None:
    shares = {str(number): 0.1 for number in range(10)}
    assert Strata(attribute="os", shares=shares).share("") == 0.0


@given(strata)
def test_all_shares_are_one_together(drawn: Strata) -> None:
    assert math.fsum(drawn.all_shares.values()) == pytest.approx(1.0)
