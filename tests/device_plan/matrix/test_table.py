"""The table of runtimes: Nightshift's own, a user's, and what is wrong with a table."""

import re
from pathlib import Path

import pytest

from device_plan.matrix.table import InvalidTable, read_table, select
from device_plan.runtimes import parse
from tests.house import ROOT

ENTRY = {
    "name": '"tflite-runtime 2.14.0"',
    "family": '"tflite"',
    "python": '"3.11"',
    "requirements": '["tflite-runtime==2.14.0"]',
    "interpreter": '"tflite_runtime.interpreter"',
    "install": '"light"',
}


def text(**changes: str | None) -> str:
    entry = {key: value for key, value in {**ENTRY, **changes}.items() if value is not None}
    return "[[runtime]]\n" + "".join(f"{key} = {value}\n" for key, value in entry.items())


def written(directory: Path, content: str) -> Path:
    path = directory / "table.toml"
    path.write_text(content)
    return path


def test_the_table_spans_both_families_and_the_versions_in_the_field() -> None:
    versions = {parse(runtime.name) for runtime in read_table()}
    known = {str(version) for version in versions}
    assert {f"tflite 2.{minor}" for minor in range(7, 15)} <= known
    assert {"tflite 2.16", "tflite 2.18", "litert 1.1", "litert 2.0", "litert 2.3"} <= known


def test_every_entry_installs_the_version_that_it_names() -> None:
    for runtime in read_table():
        version = runtime.name.partition(" ")[2]
        assert runtime.requirements[0].endswith(f"=={version}"), runtime.name
        family = parse(runtime.name)
        assert family is not None
        assert family.family == runtime.family


def test_a_users_table_is_read_like_ours(tmp_path: Path) -> None:
    (runtime,) = read_table(written(tmp_path, text()))
    assert runtime.name == "tflite-runtime 2.14.0"
    assert runtime.requirements == ("tflite-runtime==2.14.0",)


def test_the_entry_in_the_documentation_is_a_table(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "runtimes.md").read_text()
    (shown,) = re.findall(r"^```toml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (runtime,) = read_table(written(tmp_path, shown))
    assert runtime in read_table()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "expected one or more [[runtime]] and nothing else"),
        ("runtime = 1", "expected one or more [[runtime]]"),
        ("runtime = [1]", "runtime 1 is not a table"),
        ("a = 1\n" + text(), "expected one or more [[runtime]] and nothing else"),
        ("[[runtime", "table.toml: "),
        (text(python=None), "runtime 1 (tflite-runtime 2.14.0) lacks 'python'"),
        (text(pyhton='"3.9"'), "has 'pyhton', which is not one of name, family, python"),
        (text(python="3.9"), 'python must be a version such as "3.11", not 3.9'),
        (text(name='"tflite-runtime"'), 'name must be "<distribution> <version>"'),
        (text(family='"tensorflow"'), "family must be tflite or litert, not 'tensorflow'"),
        (text(family='"litert"'), "name and family must agree"),
        (text(name='"tflight 2.14.0"'), "name and family must agree"),
        (text(install='"fast"'), "install must be light or heavy"),
        (text(interpreter='"no module"'), "interpreter must be a module's dotted name"),
        (text(requirements='"numpy"'), "requirements must be a list"),
        (text(requirements='["--pre"]'), "requirements must be a list"),
        (text() + text(), "'tflite-runtime 2.14.0' is there twice"),
    ],
)
def test_a_mistake_in_a_table_is_told(content: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidTable) as caught:
        read_table(written(tmp_path, content))
    assert told in str(caught.value)


def test_a_table_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidTable, match=r"cannot read the table .*: No such file"):
        read_table(tmp_path / "none.toml")


def test_runtimes_are_selected_by_group_name_and_distribution() -> None:
    table = read_table()
    assert select(table, "all") == table
    assert select(table, "none") == ()
    assert {runtime.install for runtime in select(table, "light")} == {"light"}
    chosen = select(table, "ai-edge-litert, tflite-runtime  2.9.1")
    assert chosen[0].name == "tflite-runtime 2.9.1"
    assert len(chosen) > 2
    assert {runtime.family for runtime in chosen[1:]} == {"litert"}
    with pytest.raises(InvalidTable, match=r"no runtime 'tflite-runtime 9\.9' in the table"):
        select(table, "tflite-runtime 9.9")
