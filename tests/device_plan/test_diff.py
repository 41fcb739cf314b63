"""`nightshift plan diff` on a plan and altered copies of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from device_plan import checkpoint, signing
from device_plan.archive import DevicePart, PlanArchive, write_archive
from device_plan.commands import plan
from device_plan.plan_pb2 import PlanManifest, Runtime, ServerPart
from tests.device_plan.graphs import convert


def diff(*arguments: object) -> Result:
    runner = CliRunner(env={"COLUMNS": "80"})
    return runner.invoke(plan, ["diff", *map(str, arguments)])


def compared(old: Path, new: Path) -> dict[str, Any]:
    result = diff(old, new, "--json")
    assert result.exit_code in (0, 1), result.output
    found = json.loads(result.output)
    assert result.exit_code == (0 if found["same"] else 1)
    return found


def places(changes: list[dict[str, Any]]) -> list[str]:
    return [change["where"] for change in changes]


Write = Callable[..., Path]


@pytest.fixture
def content(digits_plan: Path) -> dict[str, Any]:
    archive = PlanArchive.open(digits_plan)
    return {
        "variants": list(archive.variants[:1]),
        "training": archive.server_part("training"),
        "evaluation": archive.server_part("evaluation"),
        "initial_state": archive.initial_state,
        "initial_checkpoint": archive.initial_checkpoint,
        "checks": archive.checks,
        "schedule": archive.schedule,
        "provenance": {"author": "Ada", "commit": "0123"},
    }


@pytest.fixture
def write(content: dict[str, Any], tmp_path: Path) -> Write:
    def written(name: str, **changes: Any) -> Path:
        path = tmp_path / f"{name}.plan"
        path.write_bytes(write_archive(**{**content, **changes}))
        return path

    return written


@pytest.fixture
def old(write: Write) -> Path:
    return write("old")


def manifest_of(part: DevicePart) -> PlanManifest:
    copy = PlanManifest()
    copy.CopyFrom(part.manifest)
    return copy


def test_a_plan_is_the_same_as_itself(old: Path):
    result = diff(old, old)
    assert result.exit_code == 0
    assert result.output == "The plans are the same.\n"
    assert compared(old, old)["same_computation"] is True


def test_evidence_alone_leaves_the_same_computation(old: Path, tmp_path: Path):
    archive = PlanArchive.open(old)
    known = tmp_path / "known.plan"
    known.write_bytes(
        archive.with_evidence(
            runtimes={
                "modern": [
                    *archive.manifest.runtimes,
                    Runtime(name="tf.lite 2.16.2", relative_difference=2e-7),
                ]
            },
            checks={"passed": True, "checks": [*archive.checks["checks"][:-1]]},
            provenance={"author": "Ada", "commit": "4567"},
        )
    )
    found = compared(old, known)
    assert found["same"] is False
    assert found["same_computation"] is True
    assert found["computation"] == []
    assert found["task"] == []
    evidence = {change["where"]: change for change in found["evidence"]}
    assert evidence["provenance/commit"]["old"] == "0123"
    assert evidence["provenance/commit"]["new"] == "4567"
    runtime = evidence["runtimes/modern/tf.lite 2.16.2"]
    assert (runtime["old"], runtime["new"]) == (None, "passed, relative difference 2.0e-07")
    (check,) = (change for where, change in evidence.items() if where.startswith("checks/"))
    assert check["old"].startswith("passed: ")
    assert check["new"] is None
    said = diff(old, known)
    assert said.exit_code == 1
    assert "The same computation: only what is known of it differs." in said.output


def test_a_signature_is_evidence(old: Path, tmp_path: Path):
    key = signing.create_key(tmp_path / "key")
    signed = tmp_path / "signed.plan"
    signed.write_bytes(signing.sign(PlanArchive.open(old), key))
    found = compared(old, signed)
    assert found["same_computation"] is True
    changed = {change["where"]: change["new"] for change in found["evidence"]}
    assert changed["signature/signed"] is True
    assert changed["signature/key"] == signing.key_id(key.public_key())


def test_another_schedule_is_the_same_computation_for_another_task(
    old: Path, write: Write, content: dict[str, Any]
):
    new = write("new", schedule={**content["schedule"], "rounds": 33})
    found = compared(old, new)
    assert found["same_computation"] is True
    assert found["task"] == [
        {"where": "schedule/rounds", "old": 20, "new": 33, "relative_difference": None}
    ]
    assert "The same computation for another task" in diff(old, new).output


def test_another_selector_is_another_task(old: Path, write: Write, content: dict[str, Any]):
    part = content["variants"][0]
    manifest = manifest_of(part)
    manifest.example_selector.max_examples = 50
    new = write("new", variants=[DevicePart(manifest=manifest, graph=part.graph)])
    found = compared(old, new)
    assert places(found["task"]) == ["examples/max_examples"]
    assert found["same_computation"] is True


def test_other_initial_weights_differ_by_how_far_they_are(
    old: Path, write: Write, content: dict[str, Any]
):
    weights = checkpoint.decode(content["initial_checkpoint"])
    # One and a half times a tensor is half of it away.
    weights["hidden/kernel"] = weights["hidden/kernel"] * np.float32(1.5)
    new = write("new", initial_checkpoint=checkpoint.encode(weights))
    found = compared(old, new)
    assert found["same_computation"] is False
    (change,) = found["computation"]
    assert change["where"] == "initial weights/hidden/kernel"
    assert change["relative_difference"] == pytest.approx(0.5, rel=1e-6)
    result = diff(old, new)
    assert result.exit_code == 1
    assert "The plans compute different things." in result.output
    assert "difference 0.5" in " ".join(result.output.split())


def test_weights_that_were_zero_have_no_relative_difference(
    old: Path, write: Write, content: dict[str, Any]
):
    weights = checkpoint.decode(content["initial_checkpoint"])
    assert not weights["logits/bias"].any()
    weights["logits/bias"] = np.ones_like(weights["logits/bias"])
    found = compared(old, write("new", initial_checkpoint=checkpoint.encode(weights)))
    (change,) = found["computation"]
    assert change["relative_difference"] is None
    assert change["new"] == "float32 [10], norm 3.16228"


def test_a_reshaped_tensor_is_named_with_both_shapes(
    old: Path, write: Write, content: dict[str, Any]
):
    part = content["variants"][0]
    manifest = manifest_of(part)
    manifest.update[0].shape.extend([3, 2])
    name = manifest.update[0].name
    del manifest.metrics[0]
    new = write("new", variants=[DevicePart(manifest=manifest, graph=part.graph)])
    changes = {change["where"]: change for change in compared(old, new)["computation"]}
    reshaped = changes[f"tensors/update/{name}"]
    assert (reshaped["old"], reshaped["new"]) == ("float32 []", "float32 [3, 2]")
    (removed,) = (change for where, change in changes.items() if "tensors/metrics/" in where)
    assert removed["new"] is None


def test_another_graph_differs_in_operations_bytes_and_work(
    old: Path, write: Write, content: dict[str, Any]
):
    graph = convert(batch=(lambda x: {"y": x @ x}, {"x": (7, 7)}))
    manifest = manifest_of(content["variants"][0])
    new = write("new", variants=[DevicePart(manifest=manifest, graph=graph)])
    found = compared(old, new)
    assert places(found["computation"]) == ["variants/modern/graph"]
    figures = {change["where"]: change for change in found["figures"]}
    work = figures["variants/modern/work/batch/multiply_adds"]
    assert (work["old"], work["new"]) == (101_120, 7 * 7 * 7)
    assert figures["variants/modern/bytes/graph"]["new"] == len(graph)
    sign = figures["variants/modern/ops/SIGN 1"]
    assert (sign["old"], sign["new"]) == (1, None)


@pytest.mark.parametrize("computation", ["training", "evaluation"])
@pytest.mark.parametrize("graph", ["prepare", "report", "update"])
def test_another_graph_of_the_server_is_named(
    computation: str, graph: str, old: Path, write: Write, content: dict[str, Any]
):
    part = ServerPart()
    part.CopyFrom(content[computation])
    getattr(part, graph).initialize_op = "another"
    found = compared(old, write("new", **{computation: part}))
    assert places(found["computation"]) == [f"server/{computation}/{graph}"]
    assert found["same_computation"] is False


def test_a_further_variant_is_named_once(old: Path, write: Write, content: dict[str, Any]):
    modern = content["variants"][0]
    manifest = manifest_of(modern)
    manifest.variant = "legacy"
    new = write("new", variants=[modern, DevicePart(manifest=manifest, graph=modern.graph)])
    found = compared(old, new)
    assert places(found["computation"]) == ["variants", "variants/legacy/graph"]
    said = diff(old, new).output
    assert "modern, legacy" in said
    assert max(map(len, said.splitlines())) <= 80


def test_the_order_of_the_plans_decides_what_is_new(
    old: Path, write: Write, content: dict[str, Any]
):
    new = write("new", schedule={**content["schedule"], "rounds": 33})
    (change,) = compared(new, old)["task"]
    assert (change["old"], change["new"]) == (33, 20)


def test_what_is_no_plan_is_wrong_input(old: Path, tmp_path: Path):
    other = tmp_path / "other.plan"
    other.write_bytes(b"no plan")
    for pair in ((old, other), (other, old), (old, tmp_path / "missing.plan")):
        result = diff(*pair)
        assert result.exit_code == 2
        assert "Traceback" not in result.output


def test_a_plan_with_a_damaged_part_is_wrong_input(
    old: Path, write: Write, content: dict[str, Any]
):
    part = content["variants"][0]
    damaged = [
        write("checkpoint", initial_checkpoint=b"no checkpoint"),
        write("graph", variants=[DevicePart(manifest=part.manifest, graph=b"no graph")]),
    ]
    for path in damaged:
        result = diff(old, path)
        assert result.exit_code == 2, result.output
        assert f"cannot compare {old}" in " ".join(result.output.split())
