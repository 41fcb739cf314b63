import math
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_plan.limits import ResourceLimits

NAMES = [field.name for field in fields(ResourceLimits)]


def test_the_defaults_leave_room_for_the_models_of_the_paper_and_of_gboard() -> None:
    limits = ResourceLimits()
    # Hard et al. 2018: 1.4 million parameters, float32 here.
    assert limits.checkpoint_bytes >= 4 * 1_400_000
    # A plan is as large as its model at most (Bonawitz et al. 2019, §9).
    assert limits.download_bytes >= limits.checkpoint_bytes + limits.graph_bytes


@given(
    st.fixed_dictionaries(
        {
            name: st.floats(1e-6, 1e3) if name == "seconds_per_example" else st.integers(1, 2**40)
            for name in NAMES
        }
    )
)
def test_limits_survive_json(values: dict[str, float]) -> None:
    limits = ResourceLimits(**values)  # type: ignore[arg-type]
    assert ResourceLimits.from_json(limits.to_json()) == limits


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0, -1, True, "8 MB", None, math.inf, math.nan])
def test_a_limit_that_is_no_positive_number_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"the limit {name} must be a positive"):
        ResourceLimits(**{name: value})  # type: ignore[arg-type]


def test_bytes_are_whole() -> None:
    with pytest.raises(ValueError, match=r"graph_bytes must be a positive whole number, not 1\.5"):
        ResourceLimits(graph_bytes=1.5)  # type: ignore[arg-type]


def test_an_unknown_limit_in_json_is_named() -> None:
    with pytest.raises(ValueError, match="unknown limit 'ram'; known: download_bytes, "):
        ResourceLimits.from_json({"ram": 1})
