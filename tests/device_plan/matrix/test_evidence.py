"""What a plan says after the matrix has run."""

import pytest

from device_plan.matrix.evidence import check, evidence, merged
from device_plan.matrix.result import Measurement, Result, judge
from device_plan.plan_pb2 import Runtime


def passed(runtime: str, variant: str = "modern", difference: float = 1.234e-7) -> Result:
    return judge(
        runtime, variant, {"default": Measurement(differences={"a": difference})}, {"a": 1e-5}
    )


def failed(runtime: str, variant: str = "modern") -> Result:
    return judge(runtime, variant, {"default": Measurement(reason="no SIGN")}, {})


def absent(runtime: str, variant: str = "modern") -> Result:
    return Result(runtime=runtime, variant=variant, status="not run", reason="needs Python 3.9")


def names(runtimes: list[Runtime]) -> list[str]:
    return [runtime.name for runtime in runtimes]


def test_a_plan_lists_what_each_variant_passed_on_in_the_order_of_versions() -> None:
    results = [
        passed("tflite-runtime 2.14.0"),
        passed("tflite-runtime 2.9.1", "legacy"),
        failed("tflite-runtime 2.9.1"),
        passed("ai-edge-litert 1.2.0"),
        passed("tflite-runtime 2.9.1", "modern"),
    ]
    found = evidence({"modern": [], "legacy": []}, results)
    assert names(found["modern"]) == [
        "ai-edge-litert 1.2.0",
        "tflite-runtime 2.9.1",
        "tflite-runtime 2.14.0",
    ]
    assert names(found["legacy"]) == ["tflite-runtime 2.9.1"]
    # Two digits.
    assert found["modern"][0].relative_difference == 1.2e-7


def test_what_was_not_run_keeps_its_evidence_and_what_fails_loses_it() -> None:
    before = {
        "modern": [
            Runtime(name="tensorflow-lite 2.16.1", relative_difference=3e-7),
            Runtime(name="tflite-runtime 2.13.0", relative_difference=3e-7),
            Runtime(name="tflite-runtime 2.14.0", relative_difference=3e-7),
        ]
    }
    results = [absent("tflite-runtime 2.13.0"), failed("tflite-runtime 2.14.0")]
    found = evidence(before, results)["modern"]
    assert names(found) == ["tensorflow-lite 2.16.1", "tflite-runtime 2.13.0"]


def test_the_larger_difference_of_both_ways_to_run_is_listed() -> None:
    measured = {
        "default": Measurement(differences={"a": 1e-7, "b": 2e-7}),
        "none": Measurement(differences={"a": 4e-7, "b": 1e-7}),
    }
    result = judge("tflite-runtime 2.14.0", "modern", measured, {"a": 1e-5, "b": 1e-5})
    assert result.passed
    assert evidence({"modern": []}, [result])["modern"][0].relative_difference == 4e-7


def test_the_check_says_who_is_served_by_which_variant() -> None:
    results = [
        failed("tflite-runtime 2.9.1"),
        passed("tflite-runtime 2.9.1", "legacy"),
        passed("tflite-runtime 2.14.0"),
        passed("tflite-runtime 2.14.0", "legacy"),
        failed("tflite-runtime 2.7.0"),
        failed("tflite-runtime 2.7.0", "legacy"),
        absent("ai-edge-litert 2.0.3"),
        absent("ai-edge-litert 2.0.3", "legacy"),
    ]
    entry = check(results)
    assert entry["passed"]
    assert entry["figures"]["served"] == {
        "tflite-runtime 2.9.1": "legacy",
        "tflite-runtime 2.14.0": "modern",
        "tflite-runtime 2.7.0": None,
        "ai-edge-litert 2.0.3": "not run",
    }
    assert entry["summary"] == (
        "passes on 2 of 3 runtimes; not on tflite-runtime 2.7.0; 1 was not run"
    )


@pytest.mark.parametrize(
    ("result", "why"),
    [
        (failed("tflite-runtime 2.7.0"), "does not run the plan (modern failed: no SIGN)"),
        (absent("tflite-runtime 2.7.0"), "was not run: needs Python 3.9"),
    ],
)
def test_a_required_runtime_that_does_not_pass_fails_the_check(result: Result, why: str) -> None:
    entry = check([result], ["tflite-runtime 2.7.0"])
    assert not entry["passed"]
    assert f"required, but tflite-runtime 2.7.0 {why}" in entry["summary"]


def test_a_required_runtime_that_one_variant_serves_passes() -> None:
    results = [failed("tflite-runtime 2.7.0"), passed("tflite-runtime 2.7.0", "legacy")]
    assert check(results, ["tflite-runtime 2.7.0"])["passed"]


def test_checks_of_now_take_the_place_of_their_namesakes() -> None:
    before = [{"name": "a", "passed": True, "summary": "old"}, {"name": "b", "passed": True}]
    now = [{"name": "c", "passed": True}, {"name": "a", "passed": True, "summary": "new"}]
    assert merged(before, now) == [now[1], before[1], now[0]]
