"""The command `nightshift`.

Every option of every command can be given on the command line, as an
environment variable (`nightshift serve --port` is NIGHTSHIFT_SERVE_PORT), or
in a TOML file (`port` in its table [serve]); the first of these that says
something wins. Listing the commands imports none of them.
"""

import logging
import os
import signal
import sys
import tempfile
import tomllib
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from nightshift import __version__
from nightshift.lazy_group import LazyCommand, LazyGroup, did_you_mean

#: Exit code of an error that is our own mistake (EX_SOFTWARE of sysexits.h);
#: 1 is a refused or failed request, 2 a wrong command line, 130 an interrupt.
EXIT_INTERNAL_ERROR = 70

EXIT_INTERRUPTED = 130

COMMANDS = {
    "demo": LazyCommand(
        "nightshift.demo:demo", "Train handwritten digits on 100+ virtual devices, here and now."
    ),
    "plan": LazyCommand(
        "nightshift.plan_group:plan",
        "Build, show, check, sign and publish the plans that devices execute.",
    ),
    "serve": LazyCommand("server.commands:serve", "Run the server: device protocol and rounds."),
    "cluster": LazyCommand(
        "server.cluster.commands:cluster",
        "Run the server on several processes or machines: Ray, PostgreSQL, many selectors.",
    ),
    "doctor": LazyCommand(
        "server.doctor.command:doctor", "Check a deployment: what is wrong, and what to do."
    ),
    "task": LazyCommand(
        "nightshift.task_group:task",
        "Simulate a task; create, list, show, pause, resume and cancel a server's.",
    ),
    "population": LazyCommand(
        "server.population_commands:population",
        "List and show a server's populations; limit them, make their tokens.",
    ),
    "simulate": LazyCommand(
        "server.simulation.command:simulate",
        "Simulate days of a fleet of millions: participation, rounds, arrivals.",
    ),
    "models": LazyCommand("server.commands:models", "List, show and get a server's models."),
    "device": LazyCommand("android_stub.commands:device", "Run one device against a server."),
    "fleet": LazyCommand(
        "android_stub.commands:fleet", "Run many virtual devices against a server."
    ),
}


def read_configuration(path: Path) -> dict[str, Any]:
    """The file's tables as a click default map: one table a command.

    Raises:
        click.UsageError: not a readable TOML file, or a table of no command.
    """
    try:
        with path.open("rb") as file:
            tables = tomllib.load(file)
    except OSError as error:
        raise click.UsageError(f"configuration {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise click.UsageError(f"configuration {path} is not TOML: {error}") from error
    for name, table in tables.items():
        if name not in COMMANDS:
            raise click.UsageError(
                f"configuration {path}: no command {name!r}; known tables: "
                f"{', '.join(COMMANDS)}{did_you_mean(name, COMMANDS)}"
            )
        if not isinstance(table, dict):
            raise click.UsageError(f"configuration {path}: {name!r} must be a table: [{name}]")
    return _with_option_names(tables)


def _with_option_names(table: dict[str, Any]) -> dict[str, Any]:
    # Both `min-examples` and `min_examples` name the option --min-examples.
    return {
        name.replace("-", "_"): value if not isinstance(value, dict) else _with_option_names(value)
        for name, value in table.items()
    }


def _load_configuration(
    ctx: click.Context,
    _parameter: click.Parameter,
    path: Path | None,
) -> None:
    if path is not None:
        ctx.default_map = read_configuration(path)
        ctx.meta["nightshift.configuration_file"] = str(path)


def configure_logging(verbosity: int) -> None:
    """Logs to standard error: our own progress; with -v details; with -vv everybody's."""
    logging.basicConfig(
        level=logging.DEBUG if verbosity > 1 else logging.WARNING,
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    for package in ("android_stub", "device_plan", "nightshift", "server", "tflite_models"):
        logging.getLogger(package).setLevel(logging.DEBUG if verbosity else logging.INFO)
    if not verbosity:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@click.group(
    cls=LazyGroup,
    commands=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
)
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    callback=_load_configuration,
    is_eager=True,
    expose_value=False,
    help="A TOML file with defaults: one table a command, e.g. [serve] or [task.create].",
)
@click.option(
    "-v",
    "--verbose",
    count=True,
    show_default=False,
    help="Log details and show tracebacks; -vv for more.",
)
@click.version_option(__version__, "--version", message="%(prog)s %(version)s")
def cli(verbose: int) -> None:
    """Federated learning for mobile, on TensorFlow Federated.

    Every option can also be given as an environment variable
    (NIGHTSHIFT_SERVE_PORT for `serve --port`) or in the file of --config;
    the command line comes first, then the environment, then the file.
    """
    configure_logging(verbose)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns the process's exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    verbose = False
    try:
        with cli.make_context("nightshift", arguments, auto_envvar_prefix="NIGHTSHIFT") as context:
            verbose = bool(context.params.get("verbose"))
            cli.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        # An impatient second Ctrl-C must not turn the exit code into a death by signal
        # while Python winds up.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        click.echo("Interrupted.", err=True)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader has gone (`nightshift task list | head`); Python would
        # complain once more when it flushes standard output at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        report_internal_error(error, verbose=verbose)
        return EXIT_INTERNAL_ERROR
    return 0


def report_internal_error(error: Exception, *, verbose: bool) -> None:
    """One sentence, and where the traceback is: here if verbose, else in a file."""
    details = "".join(traceback.format_exception(error))
    summary = f"nightshift: internal error: {type(error).__name__}: {error}"
    if verbose:
        click.echo(f"{details}\n{summary}", err=True)
        return
    with tempfile.NamedTemporaryFile(
        "w", prefix="nightshift-error-", suffix=".txt", delete=False
    ) as file:
        file.write(details)
    click.echo(f"{summary}\nThe traceback is in {file.name}; --verbose shows it.", err=True)
