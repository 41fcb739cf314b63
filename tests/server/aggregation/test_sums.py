"""Sums against numpy's in float64, and what may not enter them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_plan.checkpoint import encode
from device_plan.plan_pb2 import PlanManifest, TensorSpec
from device_plan.wire_pb2 import INVALID_UPDATE, NOT_FINITE, OUT_OF_RANGE
from server.actors.aggregator import Aggregator, merged
from server.aggregation.accumulator import Accumulator
from server.aggregation.admission import Admission, Inadmissible

SPECS = (
    TensorSpec(name="delta/kernel", dtype="float32", shape=[5, 3]),
    TensorSpec(name="delta/bias", dtype="float32", shape=[3]),
    TensorSpec(name="moment", dtype="float64", shape=[2]),
    TensorSpec(name="examples", dtype="int64", shape=[]),
    TensorSpec(name="batches", dtype="int32", shape=[]),
    TensorSpec(name="weight", dtype="float32", shape=[]),
)


def admission() -> Admission:
    manifest = PlanManifest(update=SPECS, weight_tensor="weight", max_weight=100.0)
    return Admission(manifest=manifest, training=True)


def update(seed: int, **changes: np.ndarray) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "delta/kernel": rng.normal(size=(5, 3)).astype(np.float32),
        "delta/bias": rng.normal(size=3).astype(np.float32),
        "moment": rng.normal(size=2),
        "examples": np.int64(rng.integers(100)),
        "batches": np.int32(rng.integers(10)),
        "weight": np.float32(rng.integers(100)),
        **changes,
    }


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=20), st.integers(1, 4))
def test_a_sum_over_any_grouping_is_the_sum_of_all_updates(seeds: list[int], groups: int) -> None:
    checks = admission()
    aggregators = [Aggregator(layout=checks.layout) for _ in range(groups)]
    for number, seed in enumerate(seeds):
        views = checks.admit(encode(update(seed)))
        assert aggregators[seed % groups].add(f"session-{number}", views)
    total = merged([aggregator.close() for aggregator in aggregators])
    assert total is not None
    sums, count = total.accumulator.tensors(), total.accumulator.count
    assert count == len(seeds)
    for spec in SPECS:
        wide = "float64" if spec.dtype.startswith("float") else "int64"
        expected = sum(np.asarray(update(seed)[spec.name], wide) for seed in seeds)
        assert sums[spec.name].dtype == spec.dtype
        np.testing.assert_allclose(sums[spec.name], expected, rtol=1e-5, atol=1e-4)


def test_an_update_added_twice_is_in_the_sum_once() -> None:
    checks = admission()
    aggregator = Aggregator(layout=checks.layout)
    views = checks.admit(encode(update(1)))
    assert aggregator.add("one", views)
    assert aggregator.add("one", views)
    total = merged([aggregator.close()])
    assert total is not None
    sums, count = total.accumulator.tensors(), total.accumulator.count
    assert count == 1
    np.testing.assert_array_equal(sums["delta/kernel"], update(1)["delta/kernel"])


def test_nothing_enters_a_closed_sum() -> None:
    checks = admission()
    aggregator = Aggregator(layout=checks.layout)
    part = aggregator.close()
    assert not aggregator.add("late", checks.admit(encode(update(1))))
    assert part.accumulator.count == 0
    assert not part.accumulator.tensors()["delta/kernel"].any()


def test_a_dtype_that_cannot_be_summed_is_refused() -> None:
    manifest = PlanManifest(update=[TensorSpec(name="flag", dtype="bool", shape=[2])])
    with pytest.raises(TypeError, match="bool"):
        Accumulator(layout=Admission(manifest=manifest, training=True).layout)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("name", ["delta/kernel", "delta/bias"])
def test_a_value_that_is_not_finite_is_refused_wherever_it_is(name: str, poison: float) -> None:
    bad = update(1)
    bad[name] = bad[name].copy()
    bad[name].flat[-1] = poison
    with pytest.raises(Inadmissible) as refused:
        admission().admit(encode(bad))
    assert refused.value.reason == NOT_FINITE


@pytest.mark.parametrize(
    "changes",
    [
        {"weight": np.float32(101)},
        {"weight": np.float32(-1)},
        {"examples": np.int64(-1)},
        {"examples": np.int64(1 << 62)},
        {"batches": np.int32(2**31 - 1)},
    ],
)
def test_a_count_or_weight_outside_the_limits_is_refused(changes: dict[str, np.ndarray]) -> None:
    with pytest.raises(Inadmissible) as refused:
        admission().admit(encode(update(1, **changes)))
    assert refused.value.reason == OUT_OF_RANGE


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_refused_as_an_invalid_update(data: bytes) -> None:
    with pytest.raises(Inadmissible) as refused:
        admission().admit(data)
    assert refused.value.reason == INVALID_UPDATE


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_damaged_update_is_refused_or_has_other_numbers_but_never_breaks(
    data: st.DataObject,
) -> None:
    good = bytearray(encode(update(1)))
    at = data.draw(st.integers(0, len(good) - 1))
    good[at] ^= data.draw(st.integers(1, 255))
    try:
        views = admission().admit(bytes(good))
    except Inadmissible:
        return
    assert [view.size for view in views] == [block.size for block in admission().layout.blocks]
