"""Pace steering, by rule and in small simulated crowds."""

import heapq
import math
import random
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.protocol.pace_steering import PacePolicy, PaceSteering, Windows

NIGHTS = PacePolicy(slots_log2=14)
#: What a demonstration uses: hundreds of milliseconds.
DEMO = PacePolicy(
    min_delay_s=0.3, max_delay_s=120.0, rendezvous_period_s=1.0, surplus=1.0, slots_log2=14
)


def crowd(
    pace: PaceSteering,
    devices: int,
    *,
    seconds: float,
    windows: Callable[[float], Windows],
    herd_s: float = 2.0,
    latency_s: float = 0.005,
    seed: int = 1,
) -> list[float]:
    """Arrivals of devices that come first within ``herd_s``, and then as they are told."""
    chance = random.Random(seed)
    due = [(chance.uniform(0, herd_s), chance.getrandbits(64)) for _ in range(devices)]
    heapq.heapify(due)
    arrivals = []
    while due[0][0] < seconds:
        now, device = due[0]
        arrivals.append(now)
        pace.observe(device, now)
        low, high = windows(now).if_rejected
        back = now + chance.uniform(0, latency_s) + chance.uniform(low, high)
        heapq.heapreplace(due, (back, device))
    return arrivals


@pytest.mark.parametrize("demand", [30.0, 50.0, 200.0])
def test_the_arrivals_of_a_large_population_match_demand(demand: float) -> None:
    pace = PaceSteering(policy=DEMO)
    pace.steer(demand_per_s=demand, round_period_s=2.0)
    arrivals = crowd(pace, 1500, seconds=300.0, windows=pace.current)
    late = [now for now in arrivals if now >= 200.0]
    assert len(late) / 100.0 == pytest.approx(demand, rel=0.1)
    # Spread: the fullest second is not far above the mean, although all began as a herd.
    seconds = Counter(int(now) for now in late)
    assert max(seconds.values()) < demand + 6 * math.sqrt(demand)


def test_a_small_population_meets_at_the_rendezvous() -> None:
    pace = PaceSteering(policy=DEMO)
    pace.steer(demand_per_s=13.0, round_period_s=2.0)
    arrivals = crowd(pace, 60, seconds=30.0, windows=pace.current)
    late = [now for now in arrivals if now >= 5.0]
    assert all(now % 1.0 <= 0.13 for now in late)
    # Everybody comes to every one of them.
    assert set(Counter(int(now) for now in late).values()) == {60}


def test_an_unknown_demand_lets_devices_meet_but_never_floods_the_server() -> None:
    policy = PacePolicy(
        min_delay_s=0.3,
        max_delay_s=60.0,
        rendezvous_period_s=1.0,
        peak_per_s=200.0,
        slots_log2=14,
    )
    few = PaceSteering(policy=policy)
    arrivals = crowd(few, 15, seconds=20.0, windows=few.current)
    assert all(now % 1.0 <= 0.13 for now in arrivals if now >= 5.0)
    many = PaceSteering(policy=policy)
    arrivals = crowd(many, 2000, seconds=80.0, windows=many.current)
    seconds = Counter(int(now) for now in arrivals if now >= 40.0)
    assert max(seconds.values()) < 200 + 6 * math.sqrt(200)
    assert sum(seconds.values()) / 40 == pytest.approx(200, rel=0.1)


def test_without_demand_devices_come_back_as_late_as_the_policy_allows() -> None:
    pace = PaceSteering(policy=NIGHTS)
    windows = pace.windows(0.0, demand_per_s=0.0, round_period_s=120.0)
    assert windows.if_rejected == (8 * 3600.0, 24 * 3600.0)


def test_real_nights_spread_a_large_population_over_hours() -> None:
    pace = PaceSteering(policy=PacePolicy())
    chance = random.Random(2)
    for _ in range(200_000):
        pace.observe(chance.getrandbits(64), 1e6)
    windows = pace.windows(1e6, demand_per_s=10.0, round_period_s=150.0)
    mean_s = 200_000 / 12.0
    assert windows.if_rejected == pytest.approx((mean_s / 2, mean_s * 1.5), rel=0.02)


def test_more_devices_are_asked_back_later_and_more_demand_sooner() -> None:
    def mean_s(devices: int, demand: float) -> float:
        pace = PaceSteering(policy=NIGHTS)
        chance = random.Random(3)
        for _ in range(devices):
            pace.observe(chance.getrandbits(64), 0.0)
        low, high = pace.windows(0.0, demand_per_s=demand, round_period_s=100.0).if_rejected
        return (low + high) / 2

    assert mean_s(20_000, 1.0) > mean_s(10_000, 1.0) > mean_s(10_000, 2.0)


@pytest.mark.parametrize("devices", [10, 20_000])
def test_a_device_that_took_part_is_not_asked_back_before_its_separation(devices: int) -> None:
    pace = PaceSteering(policy=NIGHTS)
    chance = random.Random(4)
    for _ in range(devices):
        pace.observe(chance.getrandbits(64), 0.0)
    windows = pace.windows(
        0.0, demand_per_s=50.0, round_period_s=100.0, accepted_after_s=4 * 3600.0
    )
    assert windows.if_accepted[0] >= 4 * 3600.0
    assert windows.if_rejected[0] < 4 * 3600.0


def test_the_current_windows_are_computed_only_now_and_then() -> None:
    pace = PaceSteering(policy=NIGHTS)
    first = pace.current(1000.0)
    assert pace.current(1000.5) is first
    assert pace.current(1002.0) is not first
    pace.steer(demand_per_s=0.0, round_period_s=100.0)
    assert pace.current(1002.0) == pace.windows(1002.0, demand_per_s=0.0, round_period_s=100.0)


def test_a_scaled_policy_paces_the_same_on_another_clock() -> None:
    slow, fast = PaceSteering(policy=NIGHTS), PaceSteering(policy=NIGHTS.scaled(0.001))
    for device in range(1000):
        slow.observe(device, 500_000.0)
        fast.observe(device, 500.0)
    slowly = slow.windows(500_000.0, demand_per_s=1.0, round_period_s=100.0)
    quickly = fast.windows(500.0, demand_per_s=1000.0, round_period_s=0.1)
    assert [1000 * value for value in quickly.if_rejected] == pytest.approx(slowly.if_rejected)


delays = st.floats(0.01, 1e5)


@given(
    delays,
    delays,
    delays,
    st.floats(0.01, 0.25),
    st.integers(0, 300),
    st.one_of(st.just(math.nan), st.just(0.0), st.floats(1e-6, 1e6)),
    delays,
    st.floats(0, 1e6),
    st.floats(-1e6, 1e6),
)
def test_windows_stay_within_the_policy(
    one, other, period, jitter, devices, demand, round_period, accepted_after, now
) -> None:
    low, high = sorted((one, other))
    policy = PacePolicy(
        min_delay_s=low,
        max_delay_s=high,
        rendezvous_period_s=period,
        jitter=jitter,
        peak_per_s=10.0,
        slots_log2=10,
    )
    pace = PaceSteering(policy=policy)
    for device in range(devices):
        pace.observe(device, now)
    windows = pace.windows(
        now,
        demand_per_s=demand,
        round_period_s=round_period,
        accepted_after_s=accepted_after,
    )
    for begin, end in (windows.if_accepted, windows.if_rejected):
        assert low <= begin <= end <= high


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"min_delay_s": 10.0, "max_delay_s": 5.0}, "min_delay_s"),
        ({"min_delay_s": 0.0}, "min_delay_s"),
        ({"jitter": 0.9}, "jitter"),
        ({"surplus": 0.5}, "surplus"),
        ({"peak_per_s": 0.0}, "peak_per_s"),
        ({"horizon_s": math.inf}, "horizon_s"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused_by_name(wrong, named) -> None:
    with pytest.raises(ValueError, match=named):
        PacePolicy(**wrong)
