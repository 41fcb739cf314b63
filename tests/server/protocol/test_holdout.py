"""The held-out assignment."""

import hashlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.protocol.holdout import is_held_out

SALT = b"sixteen bytes!!!"


def test_the_assignment_is_the_salted_sha256_below_the_fraction() -> None:
    for device in (b"a", b"b", b"c", b"d"):
        digest = hashlib.sha256((16).to_bytes(8, "big") + SALT + device).hexdigest()
        share = int(digest[:13], 16) / 16**13
        assert is_held_out(device, SALT, share + 1e-9)
        assert not is_held_out(device, SALT, share - 1e-9)


def test_about_the_wanted_fraction_is_held_out() -> None:
    devices = 20_000
    held_out = sum(is_held_out(f"device-{number}", SALT, 0.15) for number in range(devices))
    assert abs(held_out - 0.15 * devices) < 5 * math.sqrt(devices * 0.15 * 0.85)


def test_another_salt_gives_an_independent_assignment() -> None:
    both = sum(
        is_held_out(f"device-{number}", SALT, 0.5) and is_held_out(f"device-{number}", b"x", 0.5)
        for number in range(10_000)
    )
    assert abs(both - 2_500) < 5 * math.sqrt(10_000 * 0.25 * 0.75)


@given(st.binary(), st.binary(), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_fraction_holds_out_the_same_devices_and_more(device, salt, one, other) -> None:
    smaller, larger = sorted((one, other))
    assert is_held_out(device, salt, smaller) <= is_held_out(device, salt, larger)


@given(st.binary())
def test_nobody_at_zero_and_everybody_at_one(device) -> None:
    assert not is_held_out(device, SALT, 0.0)
    assert is_held_out(device, SALT, 1.0)


def test_text_counts_as_its_bytes() -> None:
    assert [is_held_out(text, SALT, 0.5) for text in "abcdefgh"] == [
        is_held_out(text.encode(), SALT, 0.5) for text in "abcdefgh"
    ]


@pytest.mark.parametrize("fraction", [-0.1, 1.1, math.nan])
def test_a_fraction_outside_zero_to_one_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        is_held_out("a", SALT, fraction)
