"""How often a device may take part in a task."""

from dataclasses import dataclass

import pytest

from device_plan.cohort import CohortPolicy, Participation
from server.protocol.participation import eligible


@dataclass
class Past:
    count: int
    last_at: float


POLICY = Participation(min_separation_s=3600.0, max_participations=5)


@pytest.mark.parametrize(
    ("past", "now", "refusal"),
    [
        (Past(1, 1000.0), 1000.0, "recent"),
        (Past(1, 1000.0), 4599.9, "recent"),
        (Past(1, 1000.0), 4600.0, None),
        (Past(4, 1000.0), 4600.0, None),
        (Past(5, 1000.0), 1e9, "enough"),
        (Past(6, 1000.0), 1000.0, "enough"),
    ],
)
def test_a_device_takes_part_seldom_and_not_too_often(past, now, refusal) -> None:
    assert eligible(POLICY, past, now) == refusal


def test_each_bound_may_be_absent() -> None:
    often = Participation(min_separation_s=3600.0, max_participations=0)
    soon = Participation(min_separation_s=0.0, max_participations=2)
    assert eligible(often, Past(10**6, 0.0), 3600.0) is None
    assert eligible(soon, Past(1, 1000.0), 1000.0) is None
    assert eligible(soon, Past(2, 1000.0), 1e9) == "enough"


def test_a_clock_that_was_set_back_keeps_nobody_out() -> None:
    assert eligible(POLICY, Past(1, 1e9), 1000.0) is None


def test_a_cohort_without_bounds_has_no_participation_policy() -> None:
    assert CohortPolicy(goal_count=1).participation is None
    bounded = CohortPolicy(goal_count=1, max_participations=5, min_separation_s=3600)
    assert bounded.participation == POLICY
