import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from android_stub.randomness import SeededDraws
from android_stub.schedule import MAX_DELAY_S, DueTimes, KnownDelays, Pace
from device_plan.wire_pb2 import RetryWindow, RetryWindows


@given(
    low=st.integers(0, 2**63),
    width=st.integers(0, 2**62),
    seed=st.integers(0, 1000),
    scale=st.floats(0.1, 1e6),
)
def test_a_draw_lies_in_the_window_whatever_the_time_scale(low, width, seed, scale):
    pace = Pace(draws=random.Random(seed), time_scale=scale)
    delay = pace.inside(RetryWindow(min_delay_ms=low, max_delay_ms=low + width))
    assert min(low / 1000, MAX_DELAY_S) <= delay <= min((low + width) / 1000, MAX_DELAY_S)


def test_an_empty_or_inverted_window_is_its_lower_end():
    pace = Pace(draws=random.Random(1))
    assert pace.inside(RetryWindow()) == 0.0
    assert pace.inside(RetryWindow(min_delay_ms=5000, max_delay_ms=1000)) == 5.0


def test_draws_are_uniform_in_the_window():
    pace = Pace(draws=SeededDraws("uniform"))
    window = RetryWindow(min_delay_ms=10_000, max_delay_ms=20_000)
    tenths = [0] * 10
    for _ in range(5000):
        tenths[min(9, int(pace.inside(window) - 10))] += 1
    # Chi-square with 9 degrees of freedom: 27.9 is the 0.1 % point.
    assert sum((seen - 500) ** 2 / 500 for seen in tenths) < 27.9


@pytest.mark.parametrize(("permanent", "middle"), [(False, 900.0), (True, 14_400.0)])
@pytest.mark.parametrize("scale", [1.0, 960.0])
def test_without_a_window_the_default_is_drawn_within_a_fifth(permanent, middle, scale):
    pace = Pace(draws=SeededDraws("default"), time_scale=scale)
    delays = [scale * pace.default(permanent=permanent) for _ in range(2000)]
    assert 0.8 * middle <= min(delays) < 0.81 * middle
    assert 1.19 * middle < max(delays) <= 1.2 * middle


def test_a_time_scale_must_be_positive():
    with pytest.raises(ValueError, match="time_scale"):
        Pace(draws=random.Random(1), time_scale=0.0)


def test_a_window_counts_from_when_it_was_heard():
    delays = KnownDelays()
    pace = Pace(draws=random.Random(1))
    window = RetryWindow(min_delay_ms=1000, max_delay_ms=2000)
    delays.learn(RetryWindows(if_rejected=window), pace=pace, now=100.0)
    assert delays.accepted_at is None
    first = delays.rejected_at
    assert first is not None
    assert 101.0 <= first <= 102.0
    delays.learn(RetryWindows(if_accepted=window), pace=pace, now=200.0)
    assert delays.rejected_at == first
    assert delays.accepted_at is not None
    assert 201.0 <= delays.accepted_at <= 202.0


def test_seeded_draws_repeat_and_differ_between_devices():
    first = SeededDraws("device", 7, 1)
    again = SeededDraws("device", 7, 1)
    other = SeededDraws("device", 7, 2)
    values = [first.random() for _ in range(20)]
    assert values == [again.random() for _ in range(20)]
    assert values != [other.random() for _ in range(20)]
    assert all(0 <= value < 1 for value in values)


def test_due_times_outlive_a_restart(tmp_path: Path):
    path = tmp_path / "schedule.json"
    DueTimes(path).set("a/b", 500.0)
    assert DueTimes(path).get("a/b", 100.0) == 500.0
    assert DueTimes(path).get("never seen", 100.0) == 100.0


def test_a_clock_set_back_does_not_lose_the_device():
    due = DueTimes()
    due.set("p", 10 * MAX_DELAY_S)
    assert due.get("p", 0.0) == 0.0


def test_a_damaged_schedule_costs_one_early_check_in(tmp_path: Path):
    path = tmp_path / "schedule.json"
    path.write_text('{"p": [')
    assert DueTimes(path).get("p", 3.0) == 3.0
