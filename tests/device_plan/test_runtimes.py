import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_plan.runtimes import FAMILIES, RuntimeVersion, choose, parse, summary

VARIANTS = (
    ("modern", ("tflite-runtime 2.14.0", "ai-edge-litert 2.0.3")),
    ("legacy", ("tflite-runtime 2.7.0", "tf.lite 2.9.3", "tflite-runtime 2.14.0")),
)


@pytest.mark.parametrize(
    ("reported", "variant"),
    [
        ("tflite-runtime 2.14.0", "modern"),
        ("tflite-runtime 2.14.1", "modern"),
        ("tf.lite 2.14.1", "modern"),
        ("tensorflow-lite 2.14.0", "modern"),
        ("litert 2.0.9", "modern"),
        ("tflite-runtime 2.7.0", "legacy"),
        ("tensorflow-lite 2.9.0-rc1", "legacy"),
        ("tflite-runtime 2.15.0", None),
        ("tflite-runtime 2.1.0", None),
        ("litert 2.14.0", None),
        ("tflite-runtime 2.0.3", None),
        ("", None),
        ("curl", None),
        ("tflite-runtime", None),
        ("tflite-runtime 2", None),
        ("tflite-runtime 2.14 ", None),
        ("TFLite-Runtime 2.14.0", None),
        ("tflite-runtime \N{ARABIC-INDIC DIGIT TWO}.14.0", None),
    ],
)
def test_a_device_gets_the_first_variant_that_passed_on_its_family_and_version(
    reported: str, variant: str | None
) -> None:
    assert choose(VARIANTS, reported) == variant


def test_a_plan_that_passed_nowhere_serves_nobody() -> None:
    assert choose([("modern", ())], "tflite-runtime 2.14.0") is None
    assert choose([], "tflite-runtime 2.14.0") is None


@given(st.text(max_size=80), st.lists(st.text(max_size=40), max_size=3))
def test_no_name_however_strange_is_an_error(reported: str, passed: list[str]) -> None:
    chosen = choose([("modern", passed)], reported)
    assert chosen is None or parse(reported) is not None
    assert summary([reported, *passed])


@given(
    st.sampled_from(sorted(FAMILIES)),
    st.sampled_from(sorted(FAMILIES)),
    st.tuples(st.integers(0, 3), st.integers(0, 20), st.integers(0, 9)),
    st.tuples(st.integers(0, 3), st.integers(0, 20), st.integers(0, 9)),
)
def test_runtimes_match_exactly_if_family_major_and_minor_do(
    one: str, other: str, first: tuple[int, int, int], second: tuple[int, int, int]
) -> None:
    reported = f"{one} {'.'.join(map(str, first))}"
    passed = f"{other} {'.'.join(map(str, second))}"
    same = FAMILIES[one] == FAMILIES[other] and first[:2] == second[:2]
    assert (choose([("modern", [passed])], reported) == "modern") is same


def test_a_summary_names_each_family_and_version_once_in_order() -> None:
    passed = ["litert 2.0.3", "tflite-runtime 2.14.0", "tf.lite 2.14.1", "tflite-runtime 2.7.0"]
    assert summary([*passed, "nonsense"]) == "tflite 2.7, tflite 2.14, litert 2.0"
    assert summary([]) == "none"


def test_versions_are_ordered_as_numbers() -> None:
    assert RuntimeVersion("tflite", 2, 7) < RuntimeVersion("tflite", 2, 14)
