import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_plan.archive import DevicePart, MalformedPlan, PlanArchive, write_archive
from device_plan.checkpoint import encode
from device_plan.plan_pb2 import PlanManifest, Runtime, ServerPart, TensorSpec

GRAPH = b"TFL3 graph"


def variant(name: str, graph: bytes = GRAPH, **fields: Any) -> DevicePart:
    described: dict[str, Any] = {
        "name": "digits",
        "population": "digits/demo",
        "checkpoint": [TensorSpec(name="w", dtype="float32", shape=[2])],
        "batch_size": 20,
        "variant": name,
    }
    return DevicePart(manifest=PlanManifest(**(described | fields)), graph=graph)


def archive_bytes(**changes: Any) -> bytes:
    parts: dict[str, Any] = {
        "variants": [variant("")],
        "training": ServerPart(model_weights={"w": "state/0", "b": "state/1", "a": "state/2"}),
        "evaluation": ServerPart(sums=[TensorSpec(name="loss", dtype="float32")]),
        "initial_state": encode({"state/0": np.zeros(2, np.float32)}),
        "initial_checkpoint": encode({"w": np.zeros(2, np.float32)}),
        "checks": {"equality": {"relative_difference": 1e-7}},
        "schedule": {"name": "digits", "rounds": 20, "evaluation": None},
    }
    return write_archive(**(parts | changes))


def rewritten(data: bytes, changes: dict[str, bytes | None], compression: int = 0) -> bytes:
    """The archive with some entries replaced, or removed where the change is None."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in (entries | changes).items():
            if content is not None:
                archive.writestr(name, content)
    return buffer.getvalue()


def test_an_archive_gives_back_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "digits.plan"
    path.write_bytes(archive_bytes())
    plan = PlanArchive.open(path)
    assert plan.data == path.read_bytes()
    assert plan.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert plan.manifest.name == "digits"
    assert plan.manifest.checkpoint[0].shape == [2]
    assert plan.graph == GRAPH
    assert plan.server_part("training").model_weights["b"] == "state/1"
    assert plan.server_part("evaluation").sums[0].name == "loss"
    assert plan.initial_state == encode({"state/0": np.zeros(2, np.float32)})
    assert plan.initial_checkpoint == encode({"w": np.zeros(2, np.float32)})
    assert plan.checks == {"equality": {"relative_difference": 1e-7}}
    assert plan.schedule == {"name": "digits", "rounds": 20, "evaluation": None}


def test_the_same_parts_give_the_same_bytes() -> None:
    reordered = ServerPart()
    for name, tensor in (("a", "state/2"), ("w", "state/0"), ("b", "state/1")):
        reordered.model_weights[name] = tensor
    schedule = {"evaluation": None, "rounds": 20, "name": "digits"}
    assert archive_bytes(training=reordered, schedule=schedule) == archive_bytes()


def test_the_authors_manifest_is_not_changed_by_writing() -> None:
    manifest = PlanManifest(name="digits")
    archive_bytes(variants=[DevicePart(manifest=manifest, graph=GRAPH)])
    assert manifest == PlanManifest(name="digits")


def test_an_ordinary_zip_program_reads_the_entries_that_the_format_names() -> None:
    with zipfile.ZipFile(io.BytesIO(archive_bytes())) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [
            "manifest.pb",
            "training.tflite",
            "server/training.pb",
            "server/evaluation.pb",
            "server/state.safetensors",
            "server/checkpoint.safetensors",
            "checks.json",
            "schedule.json",
        ]
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert json.loads(archive.read("schedule.json"))["rounds"] == 20


def test_the_device_part_holds_the_manifest_and_the_graph_and_nothing_else() -> None:
    plan = PlanArchive.from_bytes(archive_bytes())
    data = plan.device_part()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.namelist() == ["manifest.pb", "training.tflite"]
    part = DevicePart.from_bytes(data)
    assert part.manifest == plan.manifest
    assert part.graph == GRAPH
    assert part.to_bytes() == data


def test_the_device_part_does_not_depend_on_the_server_part() -> None:
    first = PlanArchive.from_bytes(archive_bytes()).device_part()
    second = PlanArchive.from_bytes(archive_bytes(checks={}, schedule={})).device_part()
    assert first == second


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"checks.json": None}, "no entry 'checks.json'"),
        ({"training.tflite": b"another graph"}, "it was altered"),
        ({"manifest.pb": b"\xff"}, "manifest cannot be decoded"),
        ({"manifest.pb": b""}, "format version 0"),
        ({"checks.json": b"{"}, "checks.json cannot be read"),
        ({"checks.json": b"\xff"}, "checks.json cannot be read"),
        ({"schedule.json": b"[]"}, "schedule.json is not a JSON object"),
        ({"schedule.json": b"[" * 100_000}, "schedule.json cannot be read"),
    ],
)
def test_a_damaged_entry_is_named(changes: dict[str, bytes | None], complaint: str) -> None:
    with pytest.raises(MalformedPlan, match=complaint):
        PlanArchive.from_bytes(rewritten(archive_bytes(), changes))


def test_a_damaged_server_part_is_named_when_it_is_asked_for() -> None:
    plan = PlanArchive.from_bytes(rewritten(archive_bytes(), {"server/training.pb": b"\xff"}))
    assert plan.server_part("evaluation").sums[0].name == "loss"
    with pytest.raises(MalformedPlan, match="training server part"):
        plan.server_part("training")


def test_compressed_entries_are_refused() -> None:
    with pytest.raises(MalformedPlan, match="is compressed"):
        PlanArchive.from_bytes(rewritten(archive_bytes(), {}, zipfile.ZIP_DEFLATED))


def test_a_plan_of_a_later_format_says_what_to_do() -> None:
    manifest = PlanManifest(
        format_version=3, name="digits", graph_sha256=hashlib.sha256(GRAPH).hexdigest()
    )
    data = rewritten(archive_bytes(), {"manifest.pb": manifest.SerializeToString()})
    with pytest.raises(MalformedPlan, match="build the plan again"):
        PlanArchive.from_bytes(data)


def two_variants(**changes: Any) -> bytes:
    newest = variant("modern", b"TFL3 modern")
    return archive_bytes(variants=[newest, variant("legacy", b"TFL3 legacy")], **changes)


def test_a_plan_holds_its_variants_the_best_first() -> None:
    plan = PlanArchive.from_bytes(two_variants())
    assert [part.variant for part in plan.variants] == ["modern", "legacy"]
    assert [part.graph for part in plan.variants] == [b"TFL3 modern", b"TFL3 legacy"]
    assert plan.graph == b"TFL3 modern"
    assert plan.manifest is plan.variants[0].manifest
    with zipfile.ZipFile(io.BytesIO(plan.data)) as archive:
        assert archive.namelist()[:4] == [
            "manifest.pb",
            "training.tflite",
            "variants/legacy/manifest.pb",
            "variants/legacy/training.tflite",
        ]


def test_each_variant_makes_its_own_device_part() -> None:
    modern, legacy = PlanArchive.from_bytes(two_variants()).variants
    assert DevicePart.from_bytes(modern.to_bytes()).graph == b"TFL3 modern"
    assert DevicePart.from_bytes(legacy.to_bytes()).graph == b"TFL3 legacy"
    assert DevicePart.from_bytes(legacy.to_bytes()).manifest == legacy.manifest


def test_a_variant_without_a_name_is_the_modern_one() -> None:
    assert PlanArchive.from_bytes(archive_bytes()).variants[0].variant == "modern"


@pytest.mark.parametrize(
    ("variants", "complaint"),
    [
        ([], "at least one variant"),
        ([variant(""), variant("modern")], "two variants 'modern'"),
        ([variant(""), variant("old"), variant("old")], "two variants 'old'"),
        ([variant("../../etc")], "no name for a variant"),
        ([variant(""), variant("a/b")], "no name for a variant"),
        ([variant(""), variant("old", population="others")], "their population differs"),
        ([variant(""), variant("old", checkpoint=[])], "their checkpoint differs"),
    ],
)
def test_variants_that_do_not_belong_together_are_refused(
    variants: list[DevicePart], complaint: str
) -> None:
    with pytest.raises(MalformedPlan, match=complaint):
        archive_bytes(variants=variants)


def test_a_variant_in_a_place_that_is_not_its_own_is_refused() -> None:
    with zipfile.ZipFile(io.BytesIO(two_variants())) as archive:
        manifest = archive.read("variants/legacy/manifest.pb")
    moved = {
        "variants/old/manifest.pb": manifest,
        "variants/old/training.tflite": b"TFL3 legacy",
    }
    with pytest.raises(MalformedPlan, match="the manifest of the variant 'legacy'"):
        PlanArchive.from_bytes(rewritten(two_variants(), moved))


def test_a_variant_without_its_graph_is_refused() -> None:
    without = {"variants/legacy/training.tflite": None}
    with pytest.raises(MalformedPlan, match=r"no entry 'variants/legacy/training\.tflite'"):
        PlanArchive.from_bytes(rewritten(two_variants(), without))


def test_a_plan_says_where_it_comes_from_if_it_knows() -> None:
    assert PlanArchive.from_bytes(archive_bytes()).provenance is None
    plan = PlanArchive.from_bytes(archive_bytes(provenance={"author": "ada"}))
    assert plan.provenance == {"author": "ada"}


def test_evidence_is_added_to_each_variant_and_nothing_else_changes() -> None:
    plan = PlanArchive.from_bytes(two_variants(provenance={"author": "ada"}))
    passed = [Runtime(name="tflite-runtime 2.7.0", relative_difference=1e-7)]
    after = PlanArchive.from_bytes(
        plan.with_evidence(runtimes={"legacy": passed}, checks={"x": 1}, provenance=None)
    )
    assert [list(part.manifest.runtimes) for part in after.variants] == [[], passed]
    assert after.checks == {"x": 1}
    assert after.provenance == {"author": "ada"}
    assert [part.graph for part in after.variants] == [part.graph for part in plan.variants]
    changed = {name for name, digest in plan.contents().items() if after.contents()[name] != digest}
    assert changed == {"variants/legacy/manifest.pb", "checks.json"}
    again = after.with_evidence(runtimes={}, checks=plan.checks, provenance={"author": "ada"})
    assert again == plan.data


def test_evidence_for_a_variant_that_does_not_exist_is_refused() -> None:
    plan = PlanArchive.from_bytes(two_variants())
    with pytest.raises(ValueError, match="no variant 'old': it has modern, legacy"):
        plan.with_evidence(runtimes={"old": []}, checks={}, provenance=None)


def test_a_plan_of_the_first_format_is_still_read() -> None:
    manifest = PlanManifest(
        format_version=1, name="digits", graph_sha256=hashlib.sha256(GRAPH).hexdigest()
    )
    data = rewritten(archive_bytes(), {"manifest.pb": manifest.SerializeToString()})
    assert [part.variant for part in PlanArchive.from_bytes(data).variants] == ["modern"]


def test_an_archive_with_an_entry_twice_is_refused() -> None:
    buffer = io.BytesIO(archive_bytes())
    with (
        pytest.warns(UserWarning, match="Duplicate name"),
        zipfile.ZipFile(buffer, "a") as archive,
    ):
        archive.writestr("checks.json", b"{}")
    with pytest.raises(MalformedPlan, match=r"two entries 'checks\.json'"):
        PlanArchive.from_bytes(buffer.getvalue())


@given(st.binary(max_size=64))
def test_bytes_that_are_no_archive_raise_nothing_else(data: bytes) -> None:
    for read in (PlanArchive.from_bytes, DevicePart.from_bytes):
        with pytest.raises(MalformedPlan):
            read(data)


@given(st.data())
def test_a_damaged_archive_is_read_or_refused(data: st.DataObject) -> None:
    original = archive_bytes()
    damaged = bytearray(original)
    directory = original.index(b"PK\x01\x02")
    for _ in range(data.draw(st.integers(1, 4))):
        # Half of the damage goes where the zip format keeps its own fields.
        at = data.draw(st.integers(0, len(damaged) - 1) | st.integers(directory, len(damaged) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.just(len(damaged)) | st.integers(0, len(damaged)))
    for read in (PlanArchive.from_bytes, DevicePart.from_bytes):
        try:
            plan = read(bytes(damaged[:cut]))
        except MalformedPlan:
            continue
        assert plan.graph == GRAPH
