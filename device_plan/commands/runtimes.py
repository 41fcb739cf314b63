"""`nightshift plan runtimes`, and what it shares with `check`: the table and its environments."""

import json
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from device_plan.commands.terminal import InvalidInput, output
from device_plan.matrix.environment import Environments
from device_plan.matrix.pythons import VARIABLE, NoPython, Pythons
from device_plan.matrix.table import InvalidTable, RuntimeSpec, read_table

table_option = click.option(
    "--table",
    "table_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A TOML file with other runtimes, written like Nightshift's own "
    "(device_plan/matrix/runtimes.toml).",
)

python_option = click.option(
    "--python",
    "directories",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    multiple=True,
    metavar="DIR",
    help="Where to look first for the Python versions that runtimes need; may be repeated. "
    f"The environment variable {VARIABLE} does the same.",
)


@click.command()
@table_option
@python_option
@click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
def runtimes(table_file: Path | None, directories: tuple[Path, ...], as_json: bool) -> None:
    """List the TFLite runtimes that `nightshift plan check` can run a plan on.

    Each runtime is installed into an environment of its own when it is first
    needed, and kept below the user's cache directory. Older ones need a Python
    that had wheels for them. An environment may be deleted at any time.
    """
    pythons = Pythons(directories)
    environments = Environments(pythons=pythons)
    rows: list[dict[str, Any]] = [
        {
            "name": runtime.name,
            "family": runtime.family,
            "install": runtime.install,
            "python": runtime.python,
            "interpreter": _interpreter(pythons, runtime),
            "installed": environments.installed(runtime),
            "environment": str(environments.path(runtime)),
        }
        for runtime in table(table_file)
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    shown = Table(title=f"TFLite runtimes, kept in {environments.cache}", title_justify="left")
    for column in ("runtime", "install", "Python", "installed", "as"):
        shown.add_column(column, no_wrap=True)
    for row in rows:
        shown.add_row(
            row["name"],
            row["install"],
            f"{row['python']}{'' if row['interpreter'] else ' (not found)'}",
            "[green]yes[/]" if row["installed"] else "no",
            Path(row["environment"]).name,
        )
    output().print(shown)


def table(path: Path | None) -> tuple[RuntimeSpec, ...]:
    try:
        return read_table(path)
    except InvalidTable as error:
        raise InvalidInput(str(error)) from error


def _interpreter(pythons: Pythons, runtime: RuntimeSpec) -> str | None:
    try:
        return str(pythons.find(runtime.python))
    except NoPython:
        return None
