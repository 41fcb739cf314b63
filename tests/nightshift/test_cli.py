import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from nightshift import __version__, cli
from nightshift.lazy_group import LazyCommand, LazyGroup
from tests.house import ROOT

Run = Callable[..., int]


@pytest.fixture(autouse=True)
def still_interruptible() -> Iterator[None]:
    """The command line ignores Ctrl-C once it is ending; the tests go on."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@click.command()
@click.option("--port", type=int, default=1)
@click.option("--data-directory", default="here")
def serve(port: int, data_directory: str) -> None:
    click.echo(f"serving {port} {data_directory}")


@click.group()
def task() -> None:
    pass


@task.command()
@click.option("--server", default="http://localhost")
def create(server: str) -> None:
    click.echo(f"creating at {server}")


@click.command()
@click.argument("kind")
def fail(kind: str) -> None:
    if kind == "refused":
        raise click.ClickException("the server refused it")
    if kind == "interrupted":
        raise KeyboardInterrupt
    if kind == "aborted":
        raise click.Abort
    if kind == "silent":
        click.get_current_context().exit(3)
    raise RuntimeError("a mistake of ours")


COMMANDS = {
    name: LazyCommand(f"{__name__}:{name}", f"Help of {name}.")
    for name in ("serve", "task", "fail")
}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs `nightshift` with the commands of this module in place of the real ones."""
    monkeypatch.setattr(cli, "COMMANDS", COMMANDS)
    monkeypatch.setattr(cli.cli, "_lazy", COMMANDS)
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def run(*arguments: str) -> int:
        return cli.main(arguments)

    return run


def configuration(tmp_path: Path, text: str) -> str:
    path = tmp_path / "nightshift.toml"
    path.write_text(text)
    return f"--config={path}"


def test_flag_comes_before_environment_before_file_before_default(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = configuration(tmp_path, "[serve]\nport = 2\n")

    def port(*arguments: str) -> str:
        assert run(*arguments) == 0
        return capsys.readouterr().out.split()[1]

    assert port("serve") == "1"
    assert port(file, "serve") == "2"
    monkeypatch.setenv("NIGHTSHIFT_SERVE_PORT", "3")
    assert port(file, "serve") == "3"
    assert port(file, "serve", "--port", "4") == "4"


def test_the_configuration_file_can_be_named_by_the_environment(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = configuration(tmp_path, "[serve]\nport = 2\n").removeprefix("--config=")
    monkeypatch.setenv("NIGHTSHIFT_CONFIG", path)
    assert run("serve") == 0
    assert capsys.readouterr().out == "serving 2 here\n"


def test_tables_nest_and_names_are_written_as_the_options_are(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = configuration(
        tmp_path, '[serve]\ndata-directory = "there"\n[task.create]\nserver = "http://far"\n'
    )
    assert run(file, "serve") == 0
    assert run(file, "task", "create") == 0
    assert capsys.readouterr().out == "serving 1 there\ncreating at http://far\n"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[serve", "is not TOML"),
        ("[sevre]\nport = 1", "no command 'sevre'; known tables: serve, task, fail"),
        ("serve = 1", "'serve' must be a table: [serve]"),
        ("[serve]\nprot = 1", "[serve] has no setting 'prot'; known: data_directory, port"),
        ("[serve.port]\nvalue = 1", "'port' in [serve] must be a value"),
        ("[serve]\nport = 'many'", "Invalid value for '--port'"),
    ],
)
def test_a_wrong_configuration_file_is_one_clear_error(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, complaint: str
) -> None:
    assert run(configuration(tmp_path, text), "serve") == 2
    assert complaint in capsys.readouterr().err


def test_a_wrong_setting_of_a_subcommand_is_named(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(configuration(tmp_path, "[task.create]\nsevrer = 1"), "task", "create") == 2
    assert "[task.create] has no setting 'sevrer'; known: server" in capsys.readouterr().err


def test_a_missing_configuration_file_is_named(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--config", str(tmp_path / "none.toml"), "serve") == 2
    assert "none.toml: No such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "code", "message"),
    [
        ("refused", 1, "Error: the server refused it\n"),
        ("interrupted", 130, "Interrupted.\n"),
        ("aborted", 130, "Interrupted.\n"),
        ("silent", 3, ""),
    ],
)
def test_exit_codes_tell_what_happened(
    run: Run, capsys: pytest.CaptureFixture[str], kind: str, code: int, message: str
) -> None:
    assert run("fail", kind) == code
    assert capsys.readouterr().err.endswith(message)


def test_an_unknown_command_is_a_usage_error(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("trian") == 2
    assert "No such command 'trian'" in capsys.readouterr().err


def test_our_own_mistake_is_one_sentence_and_a_file_with_the_traceback(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("fail", "badly") == 70
    message = capsys.readouterr().err
    assert "internal error: RuntimeError: a mistake of ours" in message
    assert "Traceback" not in message
    (details,) = tmp_path.glob("nightshift-error-*.txt")
    assert str(details) in message
    assert 'raise RuntimeError("a mistake of ours")' in details.read_text()


def test_verbose_shows_the_traceback_at_once(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--verbose", "fail", "badly") == 70
    assert 'raise RuntimeError("a mistake of ours")' in capsys.readouterr().err
    assert not list(tmp_path.glob("nightshift-error-*.txt"))


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_of_the_listing_exists_and_has_help(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([name, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: nightshift {name}")


def test_the_listing_shows_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    listing = capsys.readouterr().out
    for name, command in cli.COMMANDS.items():
        assert name in listing
        assert command.help.split(":")[0].split(".")[0][:40] in listing


def test_it_runs_as_a_module_too() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "nightshift", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == f"nightshift {__version__}\n"


def test_a_group_may_hold_loaded_and_unloaded_commands_and_checks_the_settings_of_both(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = LazyGroup(
        name="mixed",
        commands={"serve": LazyCommand(f"{__name__}:serve", "Help of serve."), "create": create},
    )
    monkeypatch.setattr(sys.modules[__name__], "mixed", mixed, raising=False)
    table = {"mixed": LazyCommand(f"{__name__}:mixed", "Help of mixed.")}
    monkeypatch.setattr(cli, "COMMANDS", table)
    monkeypatch.setattr(cli.cli, "_lazy", table)
    file = configuration(
        tmp_path, '[mixed.serve]\nport = 7\n[mixed.create]\nserver = "http://far"\n'
    )
    assert cli.main([file, "mixed", "serve"]) == 0
    assert cli.main([file, "mixed", "create"]) == 0
    assert capsys.readouterr().out == "serving 7 here\ncreating at http://far\n"
    for command, setting, known in (
        ("serve", "prot", "data_directory, port"),
        ("create", "sevrer", "server"),
    ):
        wrong = configuration(tmp_path, f"[mixed.{command}]\n{setting} = 1\n")
        assert cli.main([wrong, "mixed", command]) == 2
        complaint = f"[mixed.{command}] has no setting '{setting}'; known: {known}"
        assert complaint in capsys.readouterr().err
    assert cli.main([configuration(tmp_path, "[mixed]\nother = 1\n"), "mixed", "serve"]) == 2
    assert "[mixed] has no setting 'other'; known: create, serve" in capsys.readouterr().err
    assert cli.main(["mixed", "--help"]) == 0
    assert "Help of serve." in capsys.readouterr().out


def test_the_task_group_simulates_without_loading_the_server_or_tensorflow_for_its_help() -> None:
    code = (
        "import sys; from nightshift.cli import main;"
        "code = main(['task', 'simulate', '--help']);"
        "sys.exit(code or bool({'tensorflow', 'flask', 'matplotlib'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    assert run.returncode == 0, run.stderr.decode()
    assert b"proxy data" in run.stdout
