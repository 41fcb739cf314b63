import pytest
from hypothesis import given
from hypothesis import strategies as st

from android_stub.gate import Gate
from android_stub.misfortune import Misfortune, MisfortuneRates, Vanishing
from android_stub.night import Night
from android_stub.randomness import SeededDraws
from android_stub.session_messages import Compute, Submit, UploadChunk


def _open_times(night: Night, until: float, step: float) -> list[float]:
    gate = Gate(source=night)
    return [i * step for i in range(int(until / step)) if gate.check(i * step) is None]


def test_the_same_seed_gives_the_same_nights_and_another_device_others():
    first, again = (Night(seed=3, index=5, night_s=10.0) for _ in range(2))
    other = Night(seed=3, index=6, night_s=10.0)
    mine = _open_times(first, 120.0, 0.5)
    assert mine == _open_times(again, 120.0, 0.5)
    assert mine != _open_times(other, 120.0, 0.5)


def test_a_fleet_is_awake_for_somewhat_less_than_a_night_a_day():
    # Of 8 hours in 24: what plugging in late, looks and Wi-Fi leave.
    nights = [Night(seed=1, index=i, night_s=10.0) for i in range(100)]
    share = sum(len(_open_times(n, 60.0, 0.5)) for n in nights) / (100 * 120)
    assert 0.2 < share < 1 / 3


def test_phases_spread_over_the_day():
    nights = [Night(seed=1, index=i, night_s=10.0) for i in range(300)]
    for at in (0.0, 10.0, 20.0):
        awake = sum(Gate(source=night).check(at) is None for night in nights)
        assert 50 < awake < 120


@given(
    index=st.integers(0, 10**6),
    at=st.floats(0, 1e5),
    night_s=st.floats(0.5, 100),
    fraction=st.floats(0.05, 1.0),
)
def test_conditions_hold_until_the_next_change(index, at, night_s, fraction):
    night = Night(seed=2, index=index, night_s=night_s, fraction=fraction)
    change = night.next_change(at)
    assert change > at
    before = night.conditions(at)
    for part in (0.25, 0.5, 0.75):
        assert night.conditions(at + part * (change - at) * 0.999) == before


@pytest.mark.parametrize("changes", [{"night_s": 0}, {"night_s": 5, "fraction": 1.5}])
def test_impossible_nights_are_refused(changes):
    with pytest.raises(ValueError, match="night"):
        Night(seed=1, index=1, **changes)


def test_misfortunes_come_at_their_rates():
    rates = MisfortuneRates(interrupt=0.2, vanish=0.1)
    fates = [Misfortune(rates=rates, draws=SeededDraws("fate", i)) for i in range(4000)]
    interrupted = sum(fate.interrupted_at is not None for fate in fates) / 4000
    vanishing = sum(fate.vanishing is not None for fate in fates) / 4000
    # Four standard deviations of the binomial.
    assert abs(interrupted - 0.2) < 4 * (0.16 / 4000) ** 0.5
    assert abs(vanishing - 0.1) < 4 * (0.09 / 4000) ** 0.5
    assert {fate.vanishing for fate in fates} == {None, *Vanishing}


def test_an_interruption_always_comes_before_the_last_batch_ends():
    rates = MisfortuneRates(interrupt=1.0)
    for i in range(50):
        fate = Misfortune(rates=rates, draws=SeededDraws("fate", i))
        assert fate.interrupts(9, 10)
        assert fate.interrupts(0, 1)


def test_a_device_vanishes_once_at_its_place():
    rates = MisfortuneRates(vanish=1.0, vanish_s=10.0)
    for i in range(50):
        fate = Misfortune(rates=rates, draws=SeededDraws("fate", i))
        middle = UploadChunk(offset=50, length=50, total=100)
        place = Compute() if fate.vanishing is Vanishing.AFTER_DOWNLOAD else middle
        assert fate.silence_before(Submit()) == 0.0
        assert fate.silence_before(UploadChunk(offset=0, length=50, total=100)) == 0.0
        assert 5.0 <= fate.silence_before(place) <= 15.0
        assert fate.silence_before(place) == 0.0


@pytest.mark.parametrize(
    "rates", [{"interrupt": -0.1}, {"vanish": 1.1}, {"interrupt": 0.6, "vanish": 0.6}]
)
def test_impossible_rates_are_refused(rates):
    with pytest.raises(ValueError, match="rates must be"):
        MisfortuneRates(**rates)
