import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_plan.predicates import Predicate, Verdict, judge
from device_plan.proxy_data import ProxyData
from tests.device_plan import proxies

finite = st.floats(-1e9, 1e9)


@given(finite, st.none() | finite, st.none() | finite)
def test_a_value_holds_within_its_bounds_and_nowhere_else(
    value: float, at_least: float | None, at_most: float | None
) -> None:
    if at_least is None and at_most is None:
        at_least = 0.0
    low = -math.inf if at_least is None else at_least
    high = math.inf if at_most is None else at_most
    if low > high:
        return
    predicate = Predicate(metric="loss", at_least=at_least, at_most=at_most, after_rounds=1)
    assert predicate.holds(value) == (low <= value <= high)
    assert predicate.holds(low if math.isfinite(low) else high)
    assert not predicate.holds(math.nan)


def test_a_verdict_says_what_was_found_and_what_was_asked() -> None:
    predicate = Predicate(metric="accuracy", at_least=0.8, after_rounds=20)
    verdict = judge(predicate, {"accuracy": 0.61, "loss": 3.0})
    assert not verdict.holds
    assert str(verdict) == (
        "accuracy is 0.61 after 20 simulated rounds, the predicate asks at least 0.8"
    )
    # One that just fails must not look as if it held.
    assert str(judge(predicate, {"accuracy": 0.7996})).startswith("accuracy is 0.7996 after")


def test_what_holds_is_told_alike_whatever_its_last_bits_are() -> None:
    predicate = Predicate(metric="loss", at_most=1.0, after_rounds=1)
    sentences = {str(Verdict(predicate, value)) for value in (0.41200001, 0.41199999)}
    assert sentences == {"loss is 0.41 after 1 simulated round, the predicate asks at most 1"}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"metric": ""}, "needs the name of a metric"),
        ({"at_least": None}, "the predicate on 'accuracy' needs at_least or at_most"),
        ({"at_least": math.nan}, "needs a finite number as its bound, not nan"),
        ({"at_least": "80 %"}, "needs a finite number as its bound, not '80 %'"),
        ({"at_most": 0.5}, "can never hold: at least 0.8 and at most 0.5"),
        ({"after_rounds": 0}, "after_rounds must be a whole number of at least 1, not 0"),
        ({"clients_per_round": 2.5}, "clients_per_round must be a whole number"),
        ({"seed": -1}, "seed must be from 0"),
    ],
)
def test_a_predicate_that_cannot_be_judged_is_refused(
    changes: dict[str, Any], complaint: str
) -> None:
    settings = {"metric": "accuracy", "at_least": 0.8, "after_rounds": 20}
    with pytest.raises(ValueError) as caught:
        Predicate(**{**settings, **changes})
    assert complaint in str(caught.value)


def test_proxy_data_are_read_from_an_npz_file(tmp_path: Any) -> None:
    data = proxies.data()
    arrays = {
        f"{part}/{client}/{feature}": value
        for part in ("clients", "held_out")
        for client, examples in getattr(data, part).items()
        for feature, value in examples.items()
    }
    np.savez(tmp_path / "proxy.npz", **arrays)
    read = ProxyData.from_npz(tmp_path / "proxy.npz")
    assert read.clients.keys() == data.clients.keys()
    assert read.held_out.keys() == data.held_out.keys()
    for client, examples in data.clients.items():
        for feature, value in examples.items():
            np.testing.assert_array_equal(read.clients[client][feature], value)


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"x": np.zeros(1)}, "array 'x' should be named clients/NAME/FEATURE"),
        ({"clients/a/x": np.zeros(1)}, "held_out must map at least one client's name"),
        (
            {
                "clients/a/x": np.zeros((2, 3)),
                "clients/a/y": np.zeros(3),
                "held_out/b/x": np.zeros(1),
            },
            "clients, client 'a': features differ in their number of examples: 2 of 'x', 3 of 'y'",
        ),
        ({"clients/a/x": np.zeros(()), "held_out/b/x": np.zeros(1)}, "must be an array of"),
    ],
)
def test_a_file_that_holds_no_proxy_data_is_refused(
    arrays: dict[str, np.ndarray], complaint: str, tmp_path: Any
) -> None:
    np.savez(tmp_path / "proxy.npz", **arrays)
    with pytest.raises(ValueError) as caught:
        ProxyData.from_npz(tmp_path / "proxy.npz")
    assert complaint in str(caught.value)


def test_a_damaged_file_is_refused(tmp_path: Any) -> None:
    path = tmp_path / "proxy.npz"
    for damaged in (b"no zip", b"PK\x03\x04 almost", b""):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"proxy\.npz"):
            ProxyData.from_npz(path)
