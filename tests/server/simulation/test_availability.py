"""When devices are available: as asked, whoever asks and whenever."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.simulation.availability import DAY_MS, HOUR_MS, Availability
from server.simulation.scenario import TIME_ZONES, Habits, parse_time_zones

COUNT = 500
FLEET = Availability(count=COUNT, zones=TIME_ZONES["world"], habits=Habits(), seed=3)


def stretch(device: int, at: int, fleet: Availability = FLEET) -> tuple[int, int]:
    begin, end = fleet.next_stretch(np.array([device], np.int32), np.array([at], np.int32))
    return int(begin[0]), int(end[0])


@given(st.integers(0, COUNT - 1), st.integers(0, 15 * DAY_MS), st.floats(0, 0.999))
def test_a_stretch_is_the_same_from_wherever_in_it_one_looks(device, at, part) -> None:
    begin, end = stretch(device, at)
    assert at <= begin < end
    inside = begin + int(part * (end - begin))
    assert stretch(device, inside) == (inside, end)
    assert stretch(device, end)[0] >= end


@given(st.integers(0, COUNT - 1), st.integers(0, 10 * DAY_MS), st.integers(0, 5 * DAY_MS))
def test_no_stretch_is_passed_over(device, at, later) -> None:
    begin, end = stretch(device, at)
    other, _ = stretch(device, at + later)
    if at + later <= begin:
        assert other == begin
    elif at + later < end:
        assert other == at + later


def test_nights_are_at_night_where_the_device_lives() -> None:
    habits = Habits(night_share=1.0, day_share=0.0, night_begins_sd=0.5, night_hours_sd=0.2)
    for name, offset in (("india", 5.5), ("one", 0.0)):
        fleet = Availability(count=2000, zones=TIME_ZONES[name], habits=habits, seed=1)
        devices = np.arange(2000, dtype=np.int32)

        def share(hour: float, fleet=fleet, offset=offset, devices=devices) -> float:
            at = round((24 + hour - offset) * HOUR_MS)
            begin, _ = fleet.next_stretch(devices, np.full(2000, at, np.int32))
            return float((begin == at).mean())

        assert share(2.0) > 0.98
        assert share(15.0) == 0.0


def test_the_fleet_of_the_united_states_has_about_four_times_as_many_by_night() -> None:
    fleet = Availability(count=20_000, zones=TIME_ZONES["us"], habits=Habits(), seed=7)
    devices = np.arange(20_000, dtype=np.int32)
    shares = []
    for hour in range(24, 48):
        at = np.full(20_000, hour * HOUR_MS, np.int32)
        shares.append((fleet.next_stretch(devices, at)[0] == at).mean())
    assert 3.5 < max(shares) / min(shares) < 5.5


def test_who_never_charges_is_never_available() -> None:
    habits = Habits(night_share=0.0, day_share=1e-9)
    fleet = Availability(count=1, zones={0.0: 1.0}, habits=habits, seed=1)
    assert stretch(0, 0, fleet) == (np.iinfo(np.int32).max,) * 2


def test_time_zones_are_named_or_given() -> None:
    assert parse_time_zones("us") == TIME_ZONES["us"]
    assert parse_time_zones("-5:0.6,1:0.4") == {-5.0: 0.6, 1.0: 0.4}
    for wrong in ("mars", "1:2:3", "1:-1", ""):
        with pytest.raises(ValueError, match="europe"):
            parse_time_zones(wrong)
