"""What the documentation tells people to type and to read exists."""

import re
import shlex
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from nightshift.cli import cli, read_configuration
from tests.house import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

named = pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])


def blocks(page: Path, language: str = "") -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [text for kind, text in found if kind == language or not language]


def commands(page: Path) -> Iterator[str]:
    """The `nightshift …` command lines of a page, in code blocks and in the text."""
    for block in blocks(page):
        for line in block.replace("\\\n", " ").splitlines():
            match = re.match(r"\s*(?:\$ )?(?:\.venv/bin/)?nightshift (.+)", line)
            if match:
                yield match[1].partition("  #")[0]
    for match in re.finditer(r"`nightshift ([^`\n]+)`", page.read_text()):
        yield match[1]


def assert_exists(line: str) -> None:
    """Walks from group to group, then looks every option up in the last command."""
    words = shlex.split(line)
    command: click.Command = cli
    context = click.Context(cli)
    options: set[str] = set()
    for word in words:
        if word == "COMMAND":
            return
        if word.startswith("-"):
            options.add(word.partition("=")[0])
        elif isinstance(command, click.Group):
            found = command.get_command(context, word)
            if found is None and options:
                continue  # the value of an option of the group
            assert found is not None, f"{line!r}: {command.name} has no command {word!r}"
            assert_options(line, command, options)
            command, options = found, set()
    assert_options(line, command, options)


def assert_options(line: str, command: click.Command, options: set[str]) -> None:
    known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
    unknown = options - known - {"--help", "-h"}
    assert not unknown, f"{line!r}: {command.name} has no {unknown}"


@named
def test_every_command_that_a_page_names_exists(page: Path) -> None:
    for line in commands(page):
        assert_exists(line)


@named
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@named
def test_every_make_target_that_a_page_names_exists(page: Path) -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for line in re.findall(r"(?:^|`)make ([a-z ]+?)(?:`|  |$)", page.read_text(), re.MULTILINE):
        for target in line.split():
            assert target in targets, f"make {line}"


def test_the_readmes_configuration_file_is_one(tmp_path: Path) -> None:
    (text,) = blocks(ROOT / "README.md", "toml")
    path = tmp_path / "my.toml"
    path.write_text(text)
    context = click.Context(cli)
    context.default_map = read_configuration(path)
    for name in context.default_map:
        assert cli.get_command(context, name) is not None


def test_the_readmes_task_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    (text,) = blocks(ROOT / "README.md", "python")
    model = types.ModuleType("my_model")
    model.model_fn = model.process_fn = lambda *_: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_model", model)
    names: dict[str, object] = {}
    exec(text, names)
    assert names["task"].population == "digits/demo"  # type: ignore[attr-defined]
