"""`nightshift plan show` as a mobile engineer meets it: text, JSON and a page."""

import html.parser
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from device_plan import signing
from device_plan.archive import DevicePart, PlanArchive, write_archive
from device_plan.commands import plan
from device_plan.report import quantity
from tests.device_plan.graphs import convert
from tests.house import ROOT


def show(*arguments: object, width: int = 80) -> Result:
    runner = CliRunner(env={"COLUMNS": str(width)})
    return runner.invoke(plan, ["show", *map(str, arguments)])


def shown(*arguments: object) -> dict[str, Any]:
    result = show(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def rewritten(plan_file: Path, to: Path, **changes: Any) -> Path:
    """A copy of the plan with other content."""
    archive = PlanArchive.open(plan_file)
    content: dict[str, Any] = {
        "variants": archive.variants,
        "training": archive.server_part("training"),
        "evaluation": archive.server_part("evaluation"),
        "initial_state": archive.initial_state,
        "initial_checkpoint": archive.initial_checkpoint,
        "checks": archive.checks,
        "schedule": archive.schedule,
    }
    to.write_bytes(write_archive(**{**content, **changes}))
    return to


def test_the_text_fits_80_columns(digits_plan: Path):
    result = show(digits_plan)
    assert result.exit_code == 0, result.output
    assert max(map(len, result.output.splitlines())) <= 80
    # No word is broken to fit.
    for text in ("delta/hidden/kernel", "BATCH_MATMUL", "multiply-adds", "2.11.0"):
        assert text in result.output


def test_the_text_says_what_a_mobile_team_asks_first(digits_plan: Path):
    said = " ".join(show(digits_plan).output.split())
    archive = PlanArchive.open(digits_plan)
    assert "all TFLite builtins: no Flex delegate, no custom operation" in said
    assert f"TFLite {archive.manifest.min_runtime_version} or newer, for SIGN" in said
    assert f"device part {quantity.size(len(archive.device_part()))}" in said
    assert "by an op-rate estimate: an assumed core, not a measured one" in said
    assert "digits.plan.report.json does not stand beside the plan" in said
    assert "not signed" in said


def test_the_json_has_the_work_of_a_session(digits_plan: Path):
    session = shown(digits_plan, "--examples", 13)["variants"][0]["session"]
    assert (session["examples"], session["epochs"], session["steps"]) == (13, 5, 15)
    # By hand: two products forward, three backward; every example in every epoch.
    per_example = 2 * (64 * 128 + 128 * 10) + 128 * 10
    assert session["work"]["multiply_adds"] == 13 * 5 * per_example
    assert session["work_per_example"]["multiply_adds"] == 5 * per_example
    work = session["work"]
    assert work["bytes_moved"] == work["bytes_read"] + work["bytes_written"]
    parameters = 64 * 128 + 128 + 128 * 10 + 10
    # With the learning rate; and with the weight and the metrics, two of them int64.
    assert session["bytes_downloaded"] == 4 * (parameters + 1)
    assert session["bytes_uploaded"] == 4 * (parameters + 1 + 4) + 2 * 8


def test_by_default_a_session_has_as_many_examples_as_the_plan_uses(digits_plan: Path):
    assert shown(digits_plan)["session_examples"] == 200


def test_the_json_lists_operations_by_signature(digits_plan: Path):
    from device_plan.compiler.flatbuffer import TrainingGraph

    variant = shown(digits_plan)["variants"][0]
    expected = TrainingGraph(PlanArchive.open(digits_plan).graph)
    assert [(op["name"], op["version"], op["count"]) for op in variant["ops"]] == [
        (op.name, op.version, op.count) for op in expected.ops()
    ]
    for op in variant["ops"]:
        assert sum(op["by_signature"].values()) == op["count"]
    assert variant["min_runtime_version"] == expected.min_runtime_version()
    assert variant["only_builtin_ops"] is True


def test_the_json_keeps_the_keys_that_programs_use(digits_plan: Path):
    keys = (
        "name population digest bytes batch_size epochs examples tensors signatures weight_tensor "
        "max_weight ops min_runtime_version runtimes server_state model_weights schedule checks"
    )
    assert set(keys.split()) <= set(shown(digits_plan))


def test_the_documentation_names_every_key_of_the_json(digits_plan: Path):
    documented = set(re.findall(r"`([a-z_]+)`", (ROOT / "docs" / "mobile-report.md").read_text()))
    description = shown(digits_plan)
    variant = description["variants"][0]
    parts = [description, description["bytes"], variant, variant["session"], variant["memory"]]
    parts += [variant["signatures"]["batch"], variant["session"]["work"], variant["ops"][0]]
    parts += [variant["session"]["seconds"][0], description["signature"]]
    for part in parts:
        assert set(part) <= documented, set(part) - documented


def test_a_graph_with_flex_operations_is_said_to_have_them(digits_plan: Path, tmp_path: Path):
    import tensorflow as tf

    graph = convert(
        batch=(lambda x: {"y": tf.linalg.inv(x)}, {"x": (3, 3)}), select_tensorflow=True
    )
    manifest = PlanArchive.open(digits_plan).manifest
    flexible = rewritten(
        digits_plan, tmp_path / "flex.plan", variants=[DevicePart(manifest=manifest, graph=graph)]
    )
    said = " ".join(show(flexible).output.split())
    assert "NOT all builtin: the runtime must be given FlexMatrixInverse" in said
    assert "batch: the arithmetic of FlexMatrixInverse, executed 1 times" in said
    variant = shown(flexible)["variants"][0]
    assert variant["custom_ops"] == ["FlexMatrixInverse"]
    assert variant["only_builtin_ops"] is False


def with_measurements(plan_file: Path, results: list[dict[str, Any]], digest: str = "") -> None:
    digest = digest or PlanArchive.open(plan_file).digest
    beside = plan_file.with_name(plan_file.name + ".report.json")
    beside.write_text(json.dumps({"plan": "digits", "digest": digest, "results": results}))


def result_of(runtime: str, status: str = "passed", **measured: Any) -> dict[str, Any]:
    from device_plan.matrix.result import Measurement, Result

    found = Result(
        runtime=runtime,
        variant="modern",
        status=status,  # type: ignore[arg-type]
        reason="" if status == "passed" else "SIGN is missing",
        measured={"default": Measurement(**measured)} if measured else {},
    )
    return found.to_json()


MEASURED = {
    "differences": {"one batch": 2e-7, "two": 3e-7},
    "seconds_per_step": 0.25,
    "rss_bytes": 48_000_000,
}


@pytest.fixture
def measured_plan(digits_plan: Path, tmp_path: Path) -> Path:
    # One variant, so that everything shown of it is measured.
    variants = PlanArchive.open(digits_plan).variants[:1]
    copy = rewritten(digits_plan, tmp_path / "digits.plan", variants=variants)
    results = [
        result_of("tflite-runtime 2.14.0", **MEASURED),
        result_of("tflite-runtime 2.7.0", "failed", rss_bytes=1_000_000),
    ]
    with_measurements(copy, results)
    return copy


def test_measured_seconds_replace_the_estimate(measured_plan: Path):
    description = shown(measured_plan, "--examples", 12)
    variant = description["variants"][0]
    # Three batches of at most 5 in each of 5 epochs.
    assert variant["session"]["seconds"] == [
        {
            "basis": "measured",
            "runtime": "tflite-runtime 2.14.0",
            "seconds_per_step": 0.25,
            "seconds": 15 * 0.25,
        }
    ]
    assert variant["session"]["assumption"] == ""
    assert variant["memory"]["measured_rss"] == [
        {"runtime": "tflite-runtime 2.14.0", "bytes": 48_000_000}
    ]
    assert [one["status"] for one in variant["measured"]] == ["passed", "failed"]
    assert variant["measured"][0]["relative_difference"] == 3e-7


def test_the_text_says_on_which_runtime_it_was_measured(measured_plan: Path):
    said = " ".join(show(measured_plan, "--examples", 12).output.split())
    assert "3.75 s for 12 examples, 250 ms a step on tflite-runtime 2.14.0, one thread" in said
    assert "Measured peak of a whole Python process: 48.0 MB (tflite-runtime 2.14.0)" in said
    assert "tflite-runtime 2.7.0 failed" in said
    assert "tflite-runtime 2.7.0: SIGN is missing" in said
    assert "op-rate" not in said


def test_of_several_runtimes_the_fastest_and_the_slowest_are_named(measured_plan: Path):
    slow = {**MEASURED, "seconds_per_step": 0.5, "rss_bytes": 500_000_000}
    results = [result_of("tf.lite 2.16.2", **slow), result_of("tflite-runtime 2.14.0", **MEASURED)]
    with_measurements(measured_plan, results)
    said = " ".join(show(measured_plan, "--examples", 12).output.split())
    assert "measured on 2 runtimes" in said
    assert "250 ms a step on tflite-runtime 2.14.0, to 7.50 s on tf.lite 2.16.2" in said
    assert "48.0 MB (tflite-runtime 2.14.0) to 500 MB (tf.lite 2.16.2)" in said
    page = measured_plan.with_name("digits.html")
    show(measured_plan, "--examples", 12, "--page", page)
    assert "3.75 s to 7.50 s" in page.read_text()


def test_a_signature_does_not_make_measurements_another_plans(measured_plan: Path, tmp_path: Path):
    key = signing.create_key(tmp_path / "key")
    measured_plan.write_bytes(signing.sign(PlanArchive.open(measured_plan), key))
    # The report was written for the plan before it was signed, in the format of today.
    unsigned = rewritten(measured_plan, tmp_path / "unsigned.plan")
    with_measurements(
        measured_plan,
        [result_of("tflite-runtime 2.14.0", **MEASURED)],
        PlanArchive.open(unsigned).digest,
    )
    description = shown(measured_plan)
    assert description["variants"][0]["session"]["seconds"][0]["basis"] == "measured"
    assert description["signature"] == {"signed": True, "key": signing.key_id(key.public_key())}


def test_measurements_of_another_plan_are_not_shown(measured_plan: Path):
    with_measurements(measured_plan, [result_of("tflite-runtime 2.14.0", **MEASURED)], "ab" * 32)
    description = shown(measured_plan)
    assert description["not_measured"].endswith("is of another plan, digest abababababab…")
    assert description["variants"][0]["measured"] == []
    assert description["variants"][0]["session"]["seconds"][0]["basis"] == "assumed"


@pytest.mark.parametrize("text", ["", "[]", '{"results": 1, "digest": ""}', "\x00"])
def test_measurements_that_cannot_be_read_are_one_clear_error(measured_plan: Path, text: str):
    measured_plan.with_name("digits.plan.report.json").write_text(text)
    result = show(measured_plan)
    assert result.exit_code == 2
    assert "is not what `nightshift plan check` writes" in result.output
    assert "Traceback" not in result.output


def test_every_variant_is_described(digits_plan: Path, tmp_path: Path):
    modern = PlanArchive.open(digits_plan).variants[0]
    legacy = DevicePart(manifest=type(modern.manifest)(), graph=modern.graph)
    legacy.manifest.CopyFrom(modern.manifest)
    legacy.manifest.variant = "legacy"
    both = rewritten(digits_plan, tmp_path / "both.plan", variants=[modern, legacy])
    assert [variant["name"] for variant in shown(both)["variants"]] == ["modern", "legacy"]
    said = show(both).output
    assert "Variant modern" in said
    assert "Variant legacy" in said


def test_provenance_is_shown(digits_plan: Path, tmp_path: Path):
    told = {
        "author": "Ada <ada@example.org>",
        "reviewer": "",
        "commit": "0123abcd",
        "sources": {"task.py": "5f" * 32},
        "uncommitted": [],
        "versions": {"tensorflow": "2.14.1"},
    }
    known = rewritten(digits_plan, tmp_path / "known.plan", provenance=told)
    said = " ".join(show(known).output.split())
    for text in (
        "author Ada <ada@example.org>",
        "reviewer unknown",
        "task.py",
        "tensorflow 2.14.1",
    ):
        assert text in said
    assert shown(known)["provenance"] == told


class Page(html.parser.HTMLParser):
    """Collects what a page consists of, and checks that every element is closed."""

    VOID = ("meta", "link", "img", "br", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def written(measured_plan: Path, tmp_path: Path) -> str:
    out = tmp_path / "digits.html"
    result = show(measured_plan, "--page", out)
    assert result.exit_code == 0, result.output
    assert "Wrote" in result.output
    return out.read_text()


def test_the_page_is_whole_and_loads_nothing(written: str):
    page = Page(written)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed"}
    assert not any(
        name in attributes for _, attributes in page.elements for name in ("src", "href")
    )
    assert not re.search(r"https?://|url\(|@import", written)
    assert re.match(r"<!doctype html>\n<html lang=\"en\">", written)


def test_the_page_is_made_for_phones_dark_rooms_and_screen_readers(written: str):
    page = Page(written)
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in (
        page.elements
    )
    assert "prefers-color-scheme: dark" in written
    headers = [attributes for tag, attributes in page.elements if tag == "th"]
    assert headers
    assert all(attributes.get("scope") in ("row", "col") for attributes in headers)
    regions = [a for _, a in page.elements if a.get("role") == "region"]
    assert len(regions) == sum(tag == "table" for tag, _ in page.elements)
    assert all(a["aria-label"] and a["tabindex"] == "0" for a in regions)


def test_the_page_says_what_the_text_says(written: str, measured_plan: Path):
    said = " ".join(Page(written).text.split())
    variant = shown(measured_plan)["variants"][0]
    for op in variant["ops"]:
        assert op["name"] in said
    assert "no Flex delegate" in said
    assert "SIGN is missing" in said
    assert PlanArchive.open(measured_plan).digest in said
    assert quantity.count(variant["session"]["work"]["multiply_adds"]) in said


def test_the_page_shows_names_as_text_whatever_they_are(digits_plan: Path, tmp_path: Path):
    modern = PlanArchive.open(digits_plan).variants[0]
    modern.manifest.name = "<script>alert(1)</script>"
    odd = rewritten(
        digits_plan,
        tmp_path / "odd.plan",
        variants=[DevicePart(manifest=modern.manifest, graph=modern.graph)],
    )
    out = tmp_path / "odd.html"
    assert show(odd, "--page", out).exit_code == 0
    assert "<script" not in out.read_text()
    assert "<script>alert(1)</script>" in Page(out.read_text()).text


def test_the_page_can_be_written_beside_the_json(digits_plan: Path, tmp_path: Path):
    out = tmp_path / "digits.html"
    assert shown(digits_plan, "--page", out)["name"] == "digits"
    assert out.exists()


def test_a_page_that_cannot_be_written_is_an_error(digits_plan: Path, tmp_path: Path):
    result = show(digits_plan, "--page", tmp_path / "no" / "where.html")
    assert result.exit_code == 2
    assert "cannot write" in result.output


def test_showing_a_plan_needs_no_tensorflow(digits_plan: Path, tmp_path: Path):
    code = (
        "import sys; from click.testing import CliRunner; from device_plan.commands import plan;"
        f"done = CliRunner().invoke(plan, ['show', {str(digits_plan)!r}, '--page',"
        f" {str(tmp_path / 'p.html')!r}]);"
        "sys.exit(done.exit_code or 'tensorflow' in sys.modules or 'tflite_runtime' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.00 k"),
        (101_120, "101 k"),
        (999_960, "1.00 M"),
        (9.996e9, "10.0 G"),
    ],
)
def test_counts_have_three_digits_and_a_unit(value: float, text: str):
    assert quantity.count(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(3e-5, "30 µs"), (2.9e-4, "290 µs"), (0.25, "250 ms"), (4.1, "4.10 s"), (200, "3 min 20 s")],
)
def test_seconds_have_the_unit_that_suits_them(value: float, text: str):
    assert quantity.seconds(value) == text


def test_bytes_are_in_decimal_units():
    assert quantity.size(512) == "512 B"
    assert quantity.size(30_659) == "30.7 kB"
