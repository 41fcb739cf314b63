"""A setting is declared once; options, environment, file, bounds and documentation agree."""

import dataclasses
import re
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest

from nightshift.cli import COMMANDS, cli, main
from nightshift.lazy_group import LazyCommand
from server.commands import serve
from server.configuration import ServerConfiguration
from server.settings import SettingsCommand, given, markdown_table, options, settings
from tests.house import ROOT

SETTINGS = settings(ServerConfiguration)


@pytest.fixture(autouse=True)
def no_settings_of_whoever_runs_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in os.environ:
        if name.startswith("NIGHTSHIFT_"):
            monkeypatch.delenv(name)


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    """What `--print-config` says, line by line: name, value as TOML, source."""

    def run(*arguments: str, code: int = 0) -> dict[str, tuple[Any, str]]:
        assert main([*arguments, "serve", "--print-config"]) == code
        out = capsys.readouterr().out
        values = tomllib.loads(out)["serve"]
        sources = dict(re.findall(r"^(\w+) = .*  # (.*)$", out, re.MULTILINE))
        return {name: (values[name], sources[name]) for name in values}

    return run


def test_every_field_is_a_setting() -> None:
    fields = [field.name for field in dataclasses.fields(ServerConfiguration)]
    assert [known.name for known in SETTINGS] == fields


def test_the_documentation_has_the_declared_table() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    expected = markdown_table(ServerConfiguration)
    assert expected in page, f"the table of docs/configuration.md should be:\n{expected}"


def test_the_command_has_an_option_for_each_setting_and_its_help_says_so() -> None:
    options = {option.name: option for option in serve.params}
    for known in SETTINGS:
        option = options[known.name]
        assert known.option in option.opts
        assert option.envvar == known.variable
        assert option.to_info_dict()["help"] == known.meaning.help


def test_the_command_line_comes_before_the_environment_and_that_before_the_file(
    printed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "my.toml"
    path.write_text("[serve]\nport = 2\nthreads = 9\ndrain-s = 7.5\n")
    config = f"--config={path}"
    assert printed()["port"] == (8750, "default")
    assert printed(config)["port"] == (2, str(path))
    assert printed(config)["drain_s"] == (7.5, str(path))
    monkeypatch.setenv("NIGHTSHIFT_SERVE_PORT", "3")
    assert printed(config)["port"] == (3, "NIGHTSHIFT_SERVE_PORT")
    monkeypatch.setenv("NIGHTSHIFT_PORT", "4")
    assert printed(config)["port"] == (4, "NIGHTSHIFT_PORT")
    assert printed(config)["threads"] == (9, str(path))
    monkeypatch.setenv("NIGHTSHIFT_CONFIG", str(path))
    assert printed()["threads"] == (9, str(path))


def test_an_option_is_named_as_where_a_value_is_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--port", "5", "--print-config"]) == 0
    assert "port = 5  # --port\n" in capsys.readouterr().out


def test_what_is_printed_is_a_file_that_gives_the_same_configuration(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_PLAN_KEYS", "/keys/a.pub:/keys/ö.pub")
    options = ["--data-dir", str(tmp_path / 'a "quoted" one'), "--selector-id", "s-1"]
    assert main(["serve", *options, "--holdout-fraction", "0.25", "--print-config"]) == 0
    first = capsys.readouterr().out
    monkeypatch.delenv("NIGHTSHIFT_PLAN_KEYS")
    path = tmp_path / "printed.toml"
    path.write_text(first)
    assert main([f"--config={path}", "serve", "--print-config"]) == 0
    second = capsys.readouterr().out
    assert tomllib.loads(first) == tomllib.loads(second)
    assert tomllib.loads(first)["serve"]["plan_keys"] == ["/keys/a.pub", "/keys/ö.pub"]


def test_a_password_is_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    url = "postgresql+psycopg://me:hunter2@db/nightshift"
    assert main(["serve", "--database-url", url, "--print-config"]) == 0
    out = capsys.readouterr().out
    assert "hunter2" not in out
    assert "postgresql+psycopg://me:***@db/nightshift" in out


@pytest.mark.parametrize(
    ("text", "near"),
    [("[serve]\nthreds = 9", "threads"), ("[srve]\nport = 1", "serve")],
)
def test_an_unknown_key_of_the_file_is_an_error_that_names_the_nearest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, near: str
) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    assert main([f"--config={path}", "serve", "--print-config"]) == 2
    assert f"did you mean '{near}'?" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["NIGHTSHIFT_LEASE_TTL", "NIGHTSHIFT_SERVE_THREDS"])
def test_a_variable_that_is_nearly_ours_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.setenv(name, "1")
    assert main(["serve", "--print-config"]) == 2
    assert f"{name} is no setting; did you mean NIGHTSHIFT_" in capsys.readouterr().err


def test_variables_of_others_are_left_alone(printed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTHONS", "PORT_8750_TCP_ADDR", "SERVICE_HOST", "TASK_CREATE_SERVER"):
        monkeypatch.setenv(f"NIGHTSHIFT_{name}", "x")
    printed()


def beyond() -> list[tuple[str, Any]]:
    """A value just outside of each bound that is declared."""
    found: list[tuple[str, Any]] = []
    for known in SETTINGS:
        meaning = known.meaning
        if meaning.least is not None:
            found.append((known.name, known.type(meaning.least - 1)))
        if meaning.above is not None:
            found.append((known.name, known.type(meaning.above)))
        if meaning.most is not None:
            found.append((known.name, known.type(meaning.most + 1)))
        if meaning.below is not None:
            found.append((known.name, known.type(meaning.below)))
        if known.choices:
            found.append((known.name, "something else"))
    return found


@pytest.mark.parametrize(("name", "value"), beyond())
def test_a_value_out_of_bounds_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be "):
        ServerConfiguration(**{name: value})


def test_bounds_among_settings_are_kept() -> None:
    with pytest.raises(ValueError, match="max_chunk_bytes must be at most max_upload_bytes"):
        ServerConfiguration(max_chunk_bytes=8192, max_upload_bytes=4096)
    with pytest.raises(ValueError, match="min_retry_s must be at most max_retry_s"):
        ServerConfiguration(min_retry_s=9.0, max_retry_s=8.0)


def test_a_configuration_reaches_the_worker_process_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_SERVER_CONFIGURATION", "")
    sent = ServerConfiguration(
        data_dir=tmp_path, plan_keys=(tmp_path / "a",), selector_id="s", drain_s=1.5
    )
    sent.to_environment()
    assert ServerConfiguration.from_environment() == sent


def test_database_and_blobs_are_in_the_data_directory_unless_told_otherwise(
    tmp_path: Path,
) -> None:
    configuration = ServerConfiguration(data_dir=tmp_path)
    assert configuration.database_url == f"sqlite:///{tmp_path}/nightshift.db"
    assert configuration.blobs == f"{tmp_path}/blobs"
    elsewhere = ServerConfiguration(data_dir=tmp_path, blobs="gs://bucket/prefix")
    assert elsewhere.blobs == "gs://bucket/prefix"


def test_another_command_with_server_settings_finds_them_in_the_same_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command(cls=SettingsCommand)
    @options(ServerConfiguration, shown=("port",))
    @click.pass_context
    def selector(context: click.Context, /, **_settings: Any) -> None:
        values = given(context, ServerConfiguration)
        click.echo(f"{values['port']} {values['threads']} {values['host']}")

    monkeypatch.setitem(cli.commands, "selector", selector)
    monkeypatch.setitem(cli._lazy, "selector", selector)
    monkeypatch.setitem(COMMANDS, "selector", LazyCommand("nowhere:selector", ""))
    path = tmp_path / "my.toml"
    path.write_text("[serve]\nport = 2\nthreads = 9\n[selector]\nport = 3\n")
    monkeypatch.setenv("NIGHTSHIFT_HOST", "::1")
    assert main([f"--config={path}", "selector"]) == 0
    assert capsys.readouterr().out == "3 9 ::1\n"
    path.write_text("[serve]\nthreds = 9\n")
    assert main([f"--config={path}", "selector"]) == 2
    assert "did you mean 'threads'?" in capsys.readouterr().err
