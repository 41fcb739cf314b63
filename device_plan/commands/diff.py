"""`nightshift plan diff`."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.table import Table
from rich.text import Text

from device_plan.archive import MalformedPlan
from device_plan.checkpoint import MalformedCheckpoint
from device_plan.commands.terminal import InvalidInput, open_plan, output
from device_plan.report.difference import Change, Difference, compare
from device_plan.tflite_file import MalformedGraph

#: The plans differ, as diff says it.
EXIT_DIFFERENT = 1

_TITLES = {
    "computation": "Computation",
    "task": "Task",
    "evidence": "Evidence",
    "figures": "Figures that follow",
}

#: Characters of a digest that people compare.
_DIGEST = 12


@click.command()
@click.argument("old_file", type=click.Path(path_type=Path, dir_okay=False), metavar="OLD")
@click.argument("new_file", type=click.Path(path_type=Path, dir_okay=False), metavar="NEW")
@click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
@click.pass_context
def diff(context: click.Context, old_file: Path, new_file: Path, as_json: bool) -> None:
    """Say what changed from the plan OLD to the plan NEW.

    Compares what they compute (tensors, graphs of devices and server, initial
    weights), the task (examples, devices, rounds), the evidence (checks,
    runtimes, provenance, signature), and what follows: operations, bytes,
    work, memory. Plans that differ in evidence alone are said to be the same
    computation.

    \b
      nightshift plan diff released.plan candidate.plan
      nightshift plan diff a.plan b.plan --json | jq .same_computation

    Exit codes: 0 the plans are the same, 1 they differ, 2 the input is wrong.
    """
    old, new = open_plan(old_file), open_plan(new_file)
    try:
        difference = compare(old, new)
    except (MalformedPlan, MalformedGraph, MalformedCheckpoint) as error:
        raise InvalidInput(f"cannot compare {old_file} and {new_file}: {error}") from error
    if as_json:
        plans = {
            "old": {"name": old.manifest.name, "digest": old.digest},
            "new": {"name": new.manifest.name, "digest": new.digest},
        }
        click.echo(json.dumps({**plans, **difference.to_json()}, indent=2))
    else:
        _print(difference)
    context.exit(0 if difference.same else EXIT_DIFFERENT)


def _print(difference: Difference) -> None:
    click.echo(difference.verdict)
    for group, title in _TITLES.items():
        changes = getattr(difference, group)
        if changes:
            output().print(_table(title, changes))


def _table(title: str, changes: Iterable[Change]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("where", overflow="fold", ratio=2)
    table.add_column("old", overflow="fold", ratio=1)
    table.add_column("new", overflow="fold", ratio=1)
    for change in changes:
        new = _text(change.new)
        if change.relative_difference is not None:
            new += f", relative difference {change.relative_difference:.2g}"
        table.add_row(Text(change.where), Text(_text(change.old)), Text(new))
    return table


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "none"
    text = str(value)
    # All 64 hexadecimal digits of a SHA-256 say no more to people than the first.
    return f"{text[:_DIGEST]}…" if len(text) == 64 and _is_hexadecimal(text) else text


def _is_hexadecimal(text: str) -> bool:
    return all(character in "0123456789abcdef" for character in text)
