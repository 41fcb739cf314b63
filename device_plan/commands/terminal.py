"""What the commands share: opening their input, progress, tables, exit codes."""

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from device_plan.archive import MalformedPlan, PlanArchive
from device_plan.task import FederatedTask
from device_plan.task_file import InvalidTask, load_task

if TYPE_CHECKING:
    from device_plan.compiler.checks import Check

_Result = TypeVar("_Result")

#: A release check failed.
EXIT_CHECK_FAILED = 1

#: The author's input is wrong.
EXIT_INVALID = 2


class InvalidInput(click.ClickException):
    exit_code = EXIT_INVALID


class CheckFailed(click.ClickException):
    exit_code = EXIT_CHECK_FAILED


def compiler() -> Any:
    """The compiler; importing it takes seconds, for it imports TensorFlow."""
    # Errors reach the author as exceptions; the rest is noise unless it was asked for.
    if not logging.getLogger("device_plan").isEnabledFor(logging.DEBUG):
        # The C++ side reads the variable; the Python side logs to these two.
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
        for name in ("tensorflow", "absl"):
            logging.getLogger(name).setLevel(logging.ERROR)
    from device_plan.compiler import build as compiler

    return compiler


def load(path: Path) -> FederatedTask:
    try:
        return load_task(path)
    except InvalidTask as error:
        raise InvalidInput(str(error)) from error


def open_plan(path: Path) -> PlanArchive:
    try:
        return PlanArchive.open(path)
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from error
    except MalformedPlan as error:
        raise InvalidInput(f"{path}: {error}") from error


def save(path: Path, data: bytes) -> None:
    """Writes the file whole or not at all."""
    unfinished = path.with_name(path.name + ".unfinished")
    try:
        unfinished.write_bytes(data)
        unfinished.replace(path)
    except OSError as error:
        raise InvalidInput(f"cannot write {path}: {error.strerror}") from error


def with_progress(run: Callable[[Callable[[str], None]], _Result]) -> _Result:
    console = Console(stderr=True)
    try:
        with console.status("Loading TensorFlow Federated…") as status:

            def progress(step: str) -> None:
                # A file or a pipe gets a line for each step instead of a moving one.
                if console.is_terminal:
                    status.update(f"{step}…")
                else:
                    console.print(f"{step}…", highlight=False)

            return run(progress)
    except InvalidTask as error:
        raise InvalidInput(str(error)) from error


def failure(checks: "list[Check]") -> str:
    failed = [done for done in checks if not done.passed]
    return f"the plan fails the check {failed[0].name!r}: {failed[0].summary}" + (
        f" ({len(failed) - 1} more fail)" if len(failed) > 1 else ""
    )


def output() -> Console:
    # Piped output keeps whole lines, unless who reads it says how wide they may be.
    known = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(width=None if known else 120)


def print_checks(checks: "list[Check]") -> None:
    rows = [{"name": done.name, "passed": done.passed, "summary": done.summary} for done in checks]
    output().print(checks_table(rows))


def checks_table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="Release checks", title_justify="left")
    table.add_column("check")
    table.add_column("result")
    table.add_column("found")
    for row in rows:
        result = "[green]passed[/]" if row["passed"] else "[bold red]FAILED[/]"
        table.add_row(row["name"], result, row["summary"])
    return table
