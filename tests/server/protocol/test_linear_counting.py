"""Counting recent devices in constant memory."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.protocol.linear_counting import RecentDevices


def hashes(count: int, seed: int = 1) -> list[int]:
    chance = random.Random(seed)
    return [chance.getrandbits(64) for _ in range(count)]


@pytest.mark.parametrize("devices", [0, 1, 10, 300, 4096, 20_000])
def test_the_estimate_is_within_four_standard_errors(devices: int) -> None:
    counter = RecentDevices(horizon_s=100.0, slots_log2=12)
    for value in hashes(devices):
        counter.mark(value, 50.0)
    slots, load = 4096, devices / 4096
    error = (slots * (math.exp(load) - load - 1)) ** 0.5
    assert abs(counter.estimate() - devices) <= 4 * error + 0.01 * max(devices, 1)


def test_a_device_counts_once_however_often_it_comes() -> None:
    counter = RecentDevices(horizon_s=100.0)
    for now in range(90):
        counter.mark(12345, float(now))
    assert counter.estimate() == pytest.approx(1.0, abs=1e-3)


def test_a_full_table_still_has_a_finite_estimate() -> None:
    counter = RecentDevices(horizon_s=100.0, slots_log2=4)
    for value in range(16):
        counter.mark(value, 0.0)
    assert 16 < counter.estimate() < 100


def test_devices_are_forgotten_after_the_horizon_and_kept_within_it() -> None:
    counter = RecentDevices(horizon_s=80.0)
    for value in hashes(1000):
        counter.mark(value, 1000.0)
    assert counter.estimate(1080.0) == pytest.approx(1000, rel=0.01)
    assert counter.estimate(1000.0 + 80.0 * 9 / 8 + 1) == 0.0


def test_a_long_silence_forgets_everything() -> None:
    counter = RecentDevices(horizon_s=80.0)
    for value in hashes(1000):
        counter.mark(value, 1000.0)
    counter.mark(7, 1e9)
    assert counter.estimate() == pytest.approx(1.0, abs=1e-3)


@given(st.lists(st.tuples(st.integers(0, 15), st.floats(0, 40)), max_size=60), st.floats(-1e6, 1e6))
def test_exactly_the_slots_marked_within_the_window_are_full(marks, start) -> None:
    counter = RecentDevices(horizon_s=80.0, slots_log2=4)
    seen: dict[int, float] = {}
    now = start
    for place, delay in marks:
        now += delay
        counter.mark(place, now)
        seen[place] = now
    filled = [place for place, at in seen.items() if now // 10 - at // 10 <= 8]
    empty_share = max(16 - len(filled), 1) / 16
    assert counter.estimate(now) == pytest.approx(-16 * math.log(empty_share))


@pytest.mark.parametrize("wrong", [{"horizon_s": 0.0}, {"horizon_s": 1.0, "slots_log2": 40}])
def test_a_table_that_makes_no_sense_is_refused(wrong) -> None:
    with pytest.raises(ValueError):
        RecentDevices(**wrong)
