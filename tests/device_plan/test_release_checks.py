"""A plan is checked against its task's provenance policy, predicates and limits."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from device_plan.archive import DevicePart
from device_plan.limits import ResourceLimits
from device_plan.matrix.case import Case, Cases
from device_plan.plan_pb2 import PlanManifest
from device_plan.predicates import Predicate
from tests.device_plan import proxies
from tests.device_plan.graphs import convert

BATCH_SIZE = 4
CHECKPOINT = {"w": np.ones((proxies.FEATURES, proxies.CLASSES), np.float32)}


def graph(wide: int) -> bytes:
    """A graph with a session's signatures, its step with a tensor of `wide` floats a row."""
    import tensorflow as tf

    w, x, y = [6, 4], [None, 6], ([None], "int64")

    def begin(**given: Any) -> dict[str, Any]:
        return {"state": given["w"] * 0.0}

    def batch(**given: Any) -> dict[str, Any]:
        broad = tf.tile(given["x"], [1, wide // 6])
        rows = tf.reduce_mean(broad * broad, axis=1, keepdims=True) * given["x"]
        counted = tf.reduce_sum(tf.cast(given["y"], tf.float32))
        step = tf.reduce_sum(rows) + counted + given["w"]
        return {"state": given["state"] + step}

    def finish(**given: Any) -> dict[str, Any]:
        return {"delta": given["state"] + given["w"]}

    def evaluate(**given: Any) -> dict[str, Any]:
        return {"loss": tf.reduce_sum(given["x"] @ given["w"])}

    return convert(
        begin=(begin, {"w": w}),
        batch=(batch, {"w": w, "state": w, "x": x, "y": y}),
        finish=(finish, {"w": w, "state": w}),
        eval=(evaluate, {"w": w, "x": x}),
    )


@pytest.fixture(scope="module")
def small_graph() -> bytes:
    return graph(6)


@pytest.fixture(scope="module")
def cases() -> Cases:
    rows = proxies.rows(BATCH_SIZE, 0)
    return Cases(
        CHECKPOINT,
        [
            Case(
                name="one batch",
                computation="training",
                draw=0,
                batches=[rows],
                reference={"delta": CHECKPOINT["w"]},
            ),
            Case(
                name="evaluation",
                computation="evaluation",
                draw=0,
                batches=[rows],
                reference={"loss": np.zeros((), np.float32)},
            ),
        ],
    )


def part(data: bytes, variant: str = "modern") -> DevicePart:
    digest = hashlib.sha256(data).hexdigest()
    return DevicePart(
        manifest=PlanManifest(format_version=2, variant=variant, graph_sha256=digest), graph=data
    )


def task(**changes: Any) -> Any:
    from tests.device_plan import tasks

    return tasks.task(batch_size=BATCH_SIZE, **changes)


def test_the_bytes_are_those_of_the_files_that_devices_exchange(
    small_graph: bytes, cases: Cases
) -> None:
    from device_plan.compiler.release_checks import size_checks

    model = len(safetensors.numpy.save(CHECKPOINT))
    variants = [part(small_graph), part(small_graph + bytes(1000), "legacy")]
    exact = ResourceLimits(
        graph_bytes=len(small_graph) + 1000,
        checkpoint_bytes=model,
        update_bytes=len(safetensors.numpy.save({"delta": CHECKPOINT["w"]})),
        download_bytes=len(variants[1].to_bytes()) + model,
    )
    found = {check.name: check for check in size_checks(task(limits=exact), variants, cases)}
    assert list(found) == [
        f"resources: {name}" for name in ("download", "graph", "checkpoint", "update")
    ]
    assert all(check.passed for check in found.values())
    assert found["resources: checkpoint"].figures == {"bytes": model, "limit": model}
    for name in ("graph", "checkpoint", "update", "download"):
        limits = {**exact.to_json(), f"{name}_bytes": getattr(exact, f"{name}_bytes") - 1}
        tight = task(limits=ResourceLimits(**limits))
        failed = [check for check in size_checks(tight, variants, cases) if not check.passed]
        assert [check.name for check in failed] == [f"resources: {name}"]
        assert "above the limit of" in failed[0].summary


def test_memory_is_that_of_the_process_that_runs_the_graph(
    small_graph: bytes, cases: Cases
) -> None:
    from device_plan.compiler.footprint import measure

    floats = 6 * (1 << 20)
    found = measure({"small": small_graph, "large": graph(floats)}, cases, BATCH_SIZE)
    assert not found["small"].reason, found
    # The wide intermediate alone has four rows of float32.
    more = found["large"].rss_bytes - found["small"].rss_bytes
    assert more >= BATCH_SIZE * floats * 4
    assert found["small"].rss_bytes >= found["small"].rss_idle_bytes > 0
    step = found["small"].seconds_per_step
    assert found["small"].seconds_per_example == pytest.approx(step / BATCH_SIZE)


def test_a_plan_beyond_its_limits_fails_with_what_was_measured() -> None:
    from device_plan.compiler.footprint import Footprint
    from device_plan.compiler.release_checks import footprint_checks

    measured = {
        "modern": Footprint(seconds_per_step=1.0, seconds_per_example=0.25, rss_bytes=100 << 20),
        "legacy": Footprint(seconds_per_step=2.0, seconds_per_example=0.5, rss_bytes=90 << 20),
    }
    tight = ResourceLimits(rss_bytes=99 << 20, seconds_per_example=0.4)
    memory, time = footprint_checks(task(limits=tight), measured)
    assert not memory.passed
    assert memory.summary == "100 MiB, above the limit of 99 MiB of resident memory"
    assert not time.passed
    assert time.summary == "0.5, above the limit of 0.4 seconds per example in training"
    wide = ResourceLimits(rss_bytes=100 << 20, seconds_per_example=0.5)
    assert all(check.passed for check in footprint_checks(task(limits=wide), measured))


def test_a_graph_that_does_not_run_fails_with_the_runtimes_words(cases: Cases) -> None:
    from device_plan.compiler.footprint import measure
    from device_plan.compiler.release_checks import footprint_checks

    (check,) = footprint_checks(task(), measure({"modern": b"no graph"}, cases, BATCH_SIZE))
    assert not check.passed
    assert "the graph does not load" in check.summary


@pytest.fixture(scope="module")
def release(small_graph: bytes, cases: Cases) -> Any:
    """Runs the release checks of a task on the small graph."""
    from device_plan.compiler.model import describe
    from device_plan.compiler.oracle import start_worker, tff_runtime
    from device_plan.compiler.release_checks import release_checks

    def run(checked: Any, **options: Any) -> Any:
        return release_checks(
            checked, model=describe(checked), variants=[part(small_graph)], cases=cases, **options
        )

    with tff_runtime():
        start_worker()
        yield run


def test_the_same_task_gives_the_same_checks(release: Any, tmp_path: Path) -> None:
    file = tmp_path / "task.py"
    file.write_text("")
    bound = Predicate(metric="loss", at_most=50.0, after_rounds=1)
    checked = task(predicates=(bound,), proxy_fn=proxies.data, author="Ada", reviewer="Grace")
    first, second = (release(checked, task_file=file) for _ in range(2))
    assert [check.name for check in first.checks] == [
        "provenance",
        "predicate: loss at most 50",
        *(f"resources: {name}" for name in ("download", "graph", "checkpoint", "update")),
        "resources: memory",
        "resources: time",
    ]
    assert all(check.passed for check in first.checks)
    assert first.checks == second.checks
    assert json.dumps(first.provenance.to_json()) == json.dumps(second.provenance.to_json())
    assert first.footprints["modern"].rss_bytes > 0


def test_a_predicate_that_does_not_hold_says_what_was_found(release: Any) -> None:
    bound = Predicate(metric="loss", at_most=0.01, after_rounds=2)
    found = release(task(predicates=(bound,), proxy_fn=proxies.data))
    (failed,) = [check for check in found.checks if not check.passed]
    assert failed.name == "predicate: loss at most 0.01"
    assert failed.summary.startswith("loss is ")
    assert failed.summary.endswith("after 2 simulated rounds, the predicate asks at most 0.01")


def test_a_predicate_that_was_not_simulated_does_not_pass(release: Any) -> None:
    bound = Predicate(metric="loss", at_most=50.0, after_rounds=1)
    found = release(task(predicates=(bound,), proxy_fn=proxies.data), simulate=False)
    (failed,) = [check for check in found.checks if not check.passed]
    assert "not judged" in failed.summary


def test_required_provenance_needs_a_commit_an_author_and_another_reviewer(
    release: Any, tmp_path: Path
) -> None:
    file = tmp_path / "task.py"
    file.write_text("")
    found = release(
        task(author="Ada", reviewer="Ada"), task_file=file, require_provenance=True
    ).checks[0]
    assert not found.passed
    assert "in no git commit" in found.summary
    assert "author and reviewer are the same" in found.summary
    assert release(task(author="Ada"), task_file=file).checks[0].passed
