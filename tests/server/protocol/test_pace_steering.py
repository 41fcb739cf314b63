"""Pace steering, by rule and in small simulated crowds."""

import heapq
import math
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.protocol.pace_steering import SLICES, PacePolicy, PaceSteering, Windows

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


DAY_S = 86_400.0


def learnt(policy: PacePolicy, *, devices: int, demand: float, days: float) -> PaceSteering:
    """A selector that has watched a fleet of which 60 % are about at midnight, 15 % at noon."""
    pace = PaceSteering(policy=policy)
    pace.steer(demand_per_s=demand, round_period_s=100.0)
    chance = random.Random(6)
    hashes = [chance.getrandbits(64) for _ in range(devices)]
    due = [(chance.uniform(0, 3600.0), number) for number in range(devices)]
    heapq.heapify(due)
    while due[0][0] < days * DAY_S:
        now, number = due[0]
        # Who is not about then tries again until it is.
        share = 0.375 + 0.225 * math.cos(2 * math.pi * now / DAY_S)
        if number / devices >= share:
            heapq.heapreplace(due, (now + 900.0, number))
            continue
        pace.observe(hashes[number], now)
        low, high = pace.current(now).if_rejected
        heapq.heapreplace(due, (now + chance.uniform(low, high), number))
    return pace


def test_devices_are_asked_back_sooner_when_few_are_about() -> None:
    pace = learnt(NIGHTS, devices=1500, demand=0.1, days=2)

    def mean_s(hour: float) -> float:
        now = 2 * DAY_S + hour * 3600
        windows = pace.windows(now, demand_per_s=0.1, round_period_s=100.0)
        return sum(windows.if_rejected) / 2

    # As many are about as at midnight four times over: 1500 * 0.6 / (1.2 * 0.1) s = 7500 s.
    assert 2 < mean_s(23.0) / mean_s(11.0) < 6
    assert mean_s(23.0) == pytest.approx(7500, rel=0.3)
    assert pace.about(2 * DAY_S) == pytest.approx(0.6 * 1500, rel=0.2)


def test_those_who_ask_together_are_sent_to_all_slices_of_the_window() -> None:
    pace = learnt(NIGHTS, devices=1500, demand=0.2, days=0.2)
    now = 0.2 * DAY_S
    whole = pace.windows(now, demand_per_s=0.2, round_period_s=100.0).if_rejected
    slices = sorted({pace.current(now).if_rejected for _ in range(50)})
    assert len(slices) == SLICES
    assert (slices[0][0], slices[-1][1]) == pytest.approx(whole)
    assert all(one[1] == other[0] for one, other in pairwise(slices))


def test_the_days_course_can_be_left_alone() -> None:
    pace = learnt(replace(NIGHTS, by_time_of_day=False), devices=1500, demand=0.2, days=1)
    windows = [
        pace.windows(DAY_S + hour * 3600, demand_per_s=0.2, round_period_s=100.0)
        for hour in range(0, 24, 6)
    ]
    assert len(set(windows)) == 1


def test_several_observations_and_answers_at_once_are_as_many_single_ones() -> None:
    single, batched = PaceSteering(policy=NIGHTS), PaceSteering(policy=NIGHTS)
    chance = random.Random(8)
    for now in range(0, 40_000, 30):
        hashes = [chance.getrandbits(64) for _ in range(chance.randrange(1, 5))]
        for each in hashes:
            single.observe(each, float(now))
        batched.observe_all(iter(hashes), float(now))
        windows, first = batched.answers(float(now), len(hashes))
        for place in range(len(hashes)):
            assert single.current(float(now)) == windows[(first + place) % len(windows)]
        for pace in (single, batched):
            if now == 9000:
                pace.steer(demand_per_s=0.01, round_period_s=100.0)
    assert single.estimate == batched.estimate
    assert single.about(40_000.0) == batched.about(40_000.0)


def test_a_selector_that_answers_half_of_the_check_ins_asks_back_as_if_there_were_half() -> None:
    alone, one_of_two = PaceSteering(policy=NIGHTS), PaceSteering(policy=NIGHTS)
    chance = random.Random(9)
    for _ in range(10_000):
        device = chance.getrandbits(64)
        alone.observe(device, 0.0)
        # Devices go to either selector, so both come to know all of them.
        one_of_two.observe(device, 0.0)
    alone.steer(demand_per_s=1.0, round_period_s=100.0)
    one_of_two.steer(demand_per_s=0.5, round_period_s=100.0, share=0.5)
    assert one_of_two.current(0.0) == alone.current(0.0)
    with pytest.raises(ValueError, match="share"):
        alone.steer(demand_per_s=1.0, round_period_s=100.0, share=0.0)


def test_a_permanent_refusal_costs_hours_and_has_a_wide_window() -> None:
    low, high = PacePolicy().permanent.if_rejected
    assert low >= 4 * 3600
    assert high - low >= low
    assert PacePolicy(permanent_delay_s=100.0).permanent.if_rejected == (100.0, 200.0)
    assert PacePolicy(permanent_delay_s=100.0).scaled(0.1).permanent.if_rejected == (10.0, 20.0)


@given(
    st.lists(
        st.tuples(st.floats(1.0, 40_000.0), st.integers(0, 3000), st.floats(0, 20.0)),
        min_size=5,
        max_size=30,
    ),
    st.floats(1.0, 7200.0),
    st.floats(1.0, 100.0),
    st.floats(0, 1e6),
)
def test_slices_follow_each_other_within_the_policy_whatever_was_observed(
    visits, least, ratio, accepted_after
) -> None:
    policy = PacePolicy(min_delay_s=least, max_delay_s=least * ratio, slots_log2=10)
    pace = PaceSteering(policy=policy)
    chance = random.Random(10)
    now = 0.0
    for wait, count, demand in visits:
        now += wait
        pace.observe_all((chance.getrandbits(64) for _ in range(count)), now)
        pace.steer(demand_per_s=demand, round_period_s=60.0, accepted_after_s=accepted_after)
        windows, first = pace.answers(now, count)
        assert 0 <= first < len(windows)
        for one, other in pairwise(windows):
            assert one.if_rejected[1] == other.if_rejected[0]
            assert one.if_accepted[1] == other.if_accepted[0]
        for each in windows:
            for begin, end in (each.if_accepted, each.if_rejected):
                assert policy.min_delay_s <= begin <= end <= policy.max_delay_s


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
        ({"day_s": 0.0}, "day_s"),
        ({"permanent_delay_s": -1.0}, "permanent_delay_s"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused_by_name(wrong, named) -> None:
    with pytest.raises(ValueError, match=named):
        PacePolicy(**wrong)
