"""Which plans may be published, and what is said of the others."""

from pathlib import Path
from typing import Any

import pytest
from click import ClickException

from device_plan.archive import DevicePart, PlanArchive, write_archive
from device_plan.commands.publish import publishable
from device_plan.plan_pb2 import PlanManifest, Runtime, ServerPart
from device_plan.provenance import Provenance
from device_plan.signing import create_key, verify_archive

PASSED = {"name": "equality", "passed": True, "summary": "equal to TFF"}
FAILED = {"name": "download", "passed": False, "summary": "9 MB, at most 5 MB are allowed"}

PROVENANCE = Provenance(
    author="Ada",
    reviewer="Grace",
    sources={"task.py": "ab" * 32},
    commit="c" * 40,
    uncommitted=[],
).to_json()


def written(
    path: Path,
    *,
    checks: Any = (PASSED,),
    runtimes: tuple[str, ...] = ("tflite-runtime 2.14.0",),
    provenance: dict[str, Any] | None = None,
) -> Path:
    parts = [
        DevicePart(
            manifest=PlanManifest(
                name="a", variant=name, runtimes=[Runtime(name=runtime) for runtime in passed]
            ),
            graph=name.encode(),
        )
        for name, passed in (("modern", ()), ("legacy", runtimes))
    ]
    path.write_bytes(
        write_archive(
            variants=parts,
            training=ServerPart(),
            evaluation=ServerPart(),
            initial_state=b"",
            initial_checkpoint=b"",
            checks={"checks": list(checks)},
            schedule={},
            provenance=provenance,
        )
    )
    return path


def refusal(path: Path, *, require_provenance: bool = False) -> ClickException:
    with pytest.raises(ClickException) as refused:
        publishable(path, key_file=None, require_provenance=require_provenance)
    return refused.value


def test_a_plan_that_passed_is_published_as_it_is(tmp_path: Path) -> None:
    path = written(tmp_path / "a.plan")
    archive = publishable(path, key_file=None, require_provenance=False)
    assert archive.data == path.read_bytes()


def test_a_plan_that_passed_is_signed_if_there_is_a_key(tmp_path: Path) -> None:
    key = create_key(tmp_path / "release.pem")
    path = written(tmp_path / "a.plan")
    before = path.read_bytes()
    archive = publishable(path, key_file=tmp_path / "release.pem", require_provenance=False)
    assert verify_archive(archive, [key.public_key()])
    assert archive.contents() == PlanArchive(before).contents()
    assert path.read_bytes() == before


def test_a_check_that_failed_is_named_with_what_it_found_and_where_to_see_more(
    tmp_path: Path,
) -> None:
    refused = refusal(written(tmp_path / "a.plan", checks=[PASSED, FAILED, FAILED]))
    assert refused.exit_code == 1
    assert "fails the check 'download': 9 MB, at most 5 MB are allowed" in refused.message
    assert "1 more" in refused.message
    assert f"`nightshift plan show {tmp_path / 'a.plan'}`" in refused.message


@pytest.mark.parametrize("checks", [[], ["nonsense"]])
def test_a_plan_without_checks_is_not_published(tmp_path: Path, checks: list[Any]) -> None:
    refused = refusal(written(tmp_path / "a.plan", checks=checks))
    assert "no release checks: build it with `nightshift plan build`" in refused.message


@pytest.mark.parametrize("passed", [None, "yes", 1])
def test_a_check_passed_only_if_it_says_true(tmp_path: Path, passed: Any) -> None:
    refused = refusal(written(tmp_path / "a.plan", checks=[{**PASSED, "passed": passed}]))
    assert "fails the check 'equality'" in refused.message


def test_a_plan_that_passed_on_no_runtime_is_not_published(tmp_path: Path) -> None:
    refused = refusal(written(tmp_path / "a.plan", runtimes=()))
    assert "no variant of it passed on any TFLite runtime" in refused.message


def test_provenance_is_asked_for_only_if_it_is_required(tmp_path: Path) -> None:
    path = written(tmp_path / "a.plan")
    assert publishable(path, key_file=None, require_provenance=False)
    refused = refusal(path, require_provenance=True)
    assert refused.exit_code == 1
    assert "does not say where it comes from" in refused.message


def test_a_plan_with_its_provenance_is_published_if_that_is_required(tmp_path: Path) -> None:
    path = written(tmp_path / "a.plan", provenance=PROVENANCE)
    assert publishable(path, key_file=None, require_provenance=True)


@pytest.mark.parametrize(
    ("changed", "clause"),
    [
        ({"commit": ""}, "in no git commit"),
        ({"uncommitted": ["task.py"]}, "not committed: task.py"),
        ({"reviewer": ""}, "nobody is named as the reviewer"),
        ({"reviewer": "Ada"}, "author and reviewer are the same"),
        ({"nonsense": 1}, "cannot be read"),
    ],
)
def test_provenance_that_is_required_must_be_whole(
    tmp_path: Path, changed: dict[str, Any], clause: str
) -> None:
    path = written(tmp_path / "a.plan", provenance=PROVENANCE | changed)
    assert clause in refusal(path, require_provenance=True).message


def test_a_file_that_is_no_plan_is_wrong_input(tmp_path: Path) -> None:
    (tmp_path / "a.plan").write_text("Dear Sir or Madam")
    assert refusal(tmp_path / "a.plan").exit_code == 2
