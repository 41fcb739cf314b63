"""The matrix with a fake runtime: what passes, and every way in which a runtime can fail."""

from pathlib import Path

import numpy as np
import pytest

from device_plan.matrix.case import Case, Cases
from device_plan.matrix.environment import Environments, Unavailable
from device_plan.matrix.matrix import run
from device_plan.matrix.result import Result, served
from tests.device_plan.matrix.runtimes_here import FAKE, with_fake

WEIGHTS = {"w": np.array([1, 2, 3], np.float32)}
BATCHES = [{"x": np.ones((2, 3), np.float32)}, {"x": np.full((1, 3), 4, np.float32)}]


def training(draw: int = 0, *, epochs: int = 1, seed: int | None = None) -> Case:
    # Two rows of 1 and one of 4 in each epoch.
    lost = 6 * epochs + (seed or 0)
    return Case(
        name="training",
        computation="training",
        draw=draw,
        batches=BATCHES,
        epochs=epochs,
        seed=None if seed is None else np.array([seed, 1, 1], np.int32),
        reference={"delta/w": np.full(3, lost, np.float32)},
    )


EVALUATION = Case(
    name="evaluation",
    computation="evaluation",
    draw=0,
    batches=BATCHES,
    reference={"rows": np.array(3, np.int32)},
)
CASES = Cases(WEIGHTS, [training(), training(1, epochs=2), EVALUATION])


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Environments:
    return with_fake(tmp_path_factory.mktemp("fake") / "environment")


def result(fake: Environments, word: str, cases: Cases = CASES, timeout_s: float = 60) -> Result:
    (found,) = run({"modern": word.encode()}, cases, [FAKE], fake, timeout_s=timeout_s)
    return found


def test_a_graph_that_gives_the_reference_passes_with_its_figures(fake: Environments) -> None:
    found = result(fake, "right")
    assert found.passed
    assert found.reason == ""
    assert found.differences == {"training": 0, "evaluation": 0}
    assert found.largest == 0
    assert set(found.measured) == {"default", "none"}
    for measured in found.measured.values():
        assert measured.seconds_per_step is not None
        assert measured.seconds_per_step > 0
        assert measured.import_s is not None
        assert measured.rss_import_bytes is not None
        assert measured.rss_bytes is not None
        # numpy alone needs more than 10 MB, and nothing here a gigabyte.
        assert 1e7 < measured.rss_import_bytes <= measured.rss_bytes < 1e9


def test_a_seeded_session_begins_with_its_seed(fake: Environments) -> None:
    assert result(fake, "seeded", Cases(WEIGHTS, [training(seed=7)])).passed


def test_the_figure_is_the_relative_difference_to_the_reference(fake: Environments) -> None:
    found = result(fake, "wrong")
    assert found.status == "failed"
    # Every step is a thousandth too large.
    assert found.differences["training"] == pytest.approx(1e-3, rel=1e-3)
    assert found.reason == "training differs from TFF by 1.0e-03, above 1e-05"


def test_the_median_over_the_draws_decides(fake: Environments) -> None:
    off = {"delta/w": np.full(3, 7, np.float32)}
    draws = [training(0), training(1), training(2)]
    one_off = Case(name="training", computation="training", draw=3, batches=BATCHES, reference=off)
    assert result(fake, "right", Cases(WEIGHTS, [*draws[:2], one_off])).passed
    assert not result(fake, "right", Cases(WEIGHTS, [draws[0], one_off, one_off])).passed


def test_what_is_wrong_only_without_delegates_fails_and_says_so(fake: Environments) -> None:
    found = result(fake, "wrong when plain")
    assert found.status == "failed"
    assert found.differences["training"] == 0
    assert found.largest == pytest.approx(1e-3, rel=1e-3)
    assert found.reason.startswith("without delegates: training differs from TFF by 1.0e-03")


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("crash", "crashes (SIGSEGV)"),
        ("babble", "gives no usable answer: '[1, 2, 3]'"),
        ("say nothing", "gives no usable answer: ''"),
        ("exit", "does not work here (exit code 3): first line / no such instruction"),
        ("refuse", "the graph does not load: Op builtin_code out of range: 158."),
        ("ask for more", "a training step fails: Failed to allocate memory."),
        ("nan", "training differs from TFF by inf, above 1e-05"),
    ],
)
def test_a_runtime_that_misbehaves_fails_with_the_reason(
    word: str, reason: str, fake: Environments
) -> None:
    found = result(fake, word)
    assert found.status == "failed"
    assert found.reason == reason


def test_a_runtime_that_hangs_is_stopped(fake: Environments) -> None:
    found = result(fake, "hang", timeout_s=1)
    assert found.status == "failed"
    assert found.reason == "hangs: not done after 1 s"


def test_a_tensor_of_another_shape_is_an_infinite_difference(fake: Environments) -> None:
    case = Case(
        name="training",
        computation="training",
        draw=0,
        batches=BATCHES,
        reference={"delta/w": np.zeros(4, np.float32)},
    )
    found = result(fake, "right", Cases(WEIGHTS, [case]))
    assert found.largest == np.inf
    assert found.to_json()["measured"]["default"]["differences"] == {"training": None}


class Nothing(Environments):
    def installed(self, runtime: object) -> bool:  # noqa: ARG002
        return False

    def get(self, runtime: object) -> None:  # type: ignore[override]  # noqa: ARG002
        raise Unavailable("needs Python 3.9")


def test_a_runtime_that_cannot_be_had_is_not_run_and_never_passes(tmp_path: Path) -> None:
    variants = {"modern": b"right", "legacy": b"right"}
    found = run(variants, CASES, [FAKE], Nothing(tmp_path))
    assert [(one.variant, one.status, one.reason) for one in found] == [
        ("modern", "not run", "needs Python 3.9"),
        ("legacy", "not run", "needs Python 3.9"),
    ]
    assert not any(one.passed for one in found)
    assert served(found) == {}


def test_a_runtime_is_served_the_first_variant_that_passes(fake: Environments) -> None:
    found = run({"modern": b"refuse", "legacy": b"right"}, CASES, [FAKE], fake)
    assert [one.status for one in found] == ["failed", "passed"]
    assert served(found) == {FAKE.name: "legacy"}
    found = run({"modern": b"right", "legacy": b"right"}, CASES, [FAKE], fake)
    assert served(found) == {FAKE.name: "modern"}
    found = run({"modern": b"refuse", "legacy": b"wrong"}, CASES, [FAKE], fake)
    assert served(found) == {FAKE.name: None}


def test_progress_counts_every_step(fake: Environments) -> None:
    steps: list[tuple[int, int, str]] = []
    run({"modern": b"right"}, CASES, [FAKE], fake, lambda *step: steps.append(step))
    assert [(done, total) for done, total, _ in steps] == [(0, 2), (1, 2), (2, 2)]
    assert steps[1][2] == f"{FAKE.name}: modern"


def test_a_matrix_without_cases_proves_nothing_and_is_refused(fake: Environments) -> None:
    with pytest.raises(ValueError, match="no case"):
        run({"modern": b"right"}, Cases(WEIGHTS), [FAKE], fake)
