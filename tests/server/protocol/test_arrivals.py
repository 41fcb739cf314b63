"""The day's course, from arrivals whose cause is known."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.protocol.arrivals import BINS, Arrivals
from server.protocol.visits import LEAST_ABOUT, Visits

DAY_S = 86_400.0


def share_about(at: float) -> float:
    """Of a made-up fleet: 60 % at midnight, 15 % at noon."""
    return 0.375 + 0.225 * math.cos(2 * math.pi * at / DAY_S)


def learnt(*, devices: int, delay: float, days: int, width: float = 0.5) -> Arrivals:
    """A fleet in which each device that is about returns after the delay, on average."""
    arrivals = Arrivals(day_s=DAY_S, longest_s=DAY_S)
    chance = random.Random(1)
    step_s = 60.0
    window = ((1 - width) * delay, (1 + width) * delay)
    for step in range(int(days * DAY_S / step_s)):
        now = step * step_s
        mean = devices * share_about(now) * step_s / delay
        count = max(0, round(chance.gauss(mean, math.sqrt(mean))))
        arrivals.arrived(now, count, devices)
        arrivals.invited(now, window, count)
    return arrivals


def test_who_is_about_is_found_from_arrivals_and_delays() -> None:
    arrivals = learnt(devices=100_000, delay=1800.0, days=4)
    for hour in range(24):
        # The middle of a part of the day; an invitation is half an hour older than its arrival.
        at = 4 * DAY_S + (hour + 0.25) * 3600
        about = arrivals.about(at)
        assert about == pytest.approx(share_about(at), abs=0.06), hour


def test_the_estimate_does_not_depend_on_the_delay() -> None:
    short = learnt(devices=100_000, delay=600.0, days=3)
    long = learnt(devices=100_000, delay=3600.0, days=3)
    for hour in range(24):
        at = 3 * DAY_S + hour * 3600 + 1
        assert short.about(at) == pytest.approx(long.about(at), abs=0.1)


def test_nothing_is_known_before_the_first_part_of_a_day_is_over() -> None:
    arrivals = Arrivals(day_s=DAY_S, longest_s=DAY_S)
    assert arrivals.about(0.0) is None
    for now in range(0, 1700, 10):
        arrivals.arrived(float(now), 5, 100.0)
        arrivals.invited(float(now), (100.0, 300.0), 5)
    assert not arrivals.known
    arrivals.arrived(2000.0, 5, 100.0)
    assert arrivals.known


def test_devices_that_come_without_an_invitation_say_nothing() -> None:
    arrivals = Arrivals(day_s=DAY_S, longest_s=DAY_S)
    for now in range(0, 7200, 10):
        arrivals.arrived(float(now), 5, 100.0)
    assert not arrivals.known


def test_an_unknown_hour_is_taken_to_be_like_the_last_one() -> None:
    arrivals = learnt(devices=10_000, delay=1800.0, days=0.25)
    last = arrivals.about(0.25 * DAY_S - arrivals.bin_s - 1)
    assert arrivals.about(0.75 * DAY_S) == pytest.approx(last, rel=0.5)


@given(
    st.lists(
        st.tuples(
            st.floats(0, 5e4),
            st.integers(0, 10**6),
            st.floats(0, 2e5),
            st.floats(0, 2e5),
            st.floats(0, 1e7),
        ),
        max_size=15,
    ),
    st.floats(-1e6, 1e6),
)
def test_the_forecast_is_a_share_whatever_happens(events, start) -> None:
    arrivals = Arrivals(day_s=DAY_S, longest_s=DAY_S)
    now = start
    for wait, count, one, other, known in events:
        now += wait
        arrivals.arrived(now, count, known)
        arrivals.invited(now, (min(one, other), max(one, other)), count)
        for part in range(0, BINS, 7):
            about = arrivals.about(now + part * arrivals.bin_s)
            assert about is None or 0 <= about <= 1


@given(
    st.lists(st.tuples(st.floats(0, 5000), st.floats(0, 80_000), st.floats(0, 5000))),
    st.integers(1, 100),
)
def test_invitations_are_counted_in_the_parts_of_the_day_in_which_they_fall_due(
    invitations, later
) -> None:
    arrivals = Arrivals(day_s=DAY_S, longest_s=DAY_S)
    now = 0.0
    expected = [0.0] * 400
    arrivals.arrived(0.0, 0, 1.0)
    for wait, low, width in invitations:
        now += wait
        high = low + max(width, 2.0)
        arrivals.invited(now, (low, high), 3.0)
        for part in range(400):
            begin, end = part * arrivals.bin_s, (part + 1) * arrivals.bin_s
            overlap = min(end, now + high) - max(begin, now + low)
            expected[part] += 3.0 * max(0.0, overlap) / (high - low)
    arrivals.arrived(now + later * arrivals.bin_s, 0, 1.0)
    part = math.floor((now + later * arrivals.bin_s) / arrivals.bin_s)
    assert arrivals.due == pytest.approx(expected[part], abs=1e-6)


@pytest.mark.parametrize("wrong", [{"day_s": 0.0}, {"longest_s": math.inf}])
def test_times_that_make_no_sense_are_refused_by_name(wrong) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Arrivals(**{"day_s": DAY_S, "longest_s": DAY_S, **wrong})


def test_the_clock_of_visits_is_the_integral_of_the_need() -> None:
    arrivals = learnt(devices=100_000, delay=1800.0, days=3)
    now, speed = 3 * DAY_S + 1000.0, 1e-4
    clock = Visits(now, arrivals, longest_s=DAY_S, speed=speed)
    for delay in (500.0, 7200.0, 50_000.0, DAY_S):
        steps = 20_000
        integral = sum(
            speed / max(arrivals.about(now + (i + 0.5) * delay / steps), LEAST_ABOUT)
            for i in range(steps)
        )
        assert clock.until(delay) == pytest.approx(integral * delay / steps, rel=1e-3)
        assert clock.when(clock.until(delay)) == pytest.approx(delay, rel=1e-6)
