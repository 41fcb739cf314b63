"""`nightshift plan check`."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from device_plan.archive import PlanArchive
from device_plan.commands.runtimes import python_option, table, table_option
from device_plan.commands.terminal import (
    CheckFailed,
    InvalidInput,
    checks_table,
    compiler,
    load,
    open_plan,
    output,
    save,
    with_progress,
)
from device_plan.matrix import evidence
from device_plan.matrix.case import Cases
from device_plan.matrix.environment import Environments
from device_plan.matrix.matrix import run
from device_plan.matrix.pythons import Pythons
from device_plan.matrix.result import Result
from device_plan.matrix.table import InvalidTable, RuntimeSpec, select
from device_plan.report.measurements import measurements_file


@click.command()
@click.argument("plan_file", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("task_file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--runtimes",
    "choice",
    default="light",
    show_default=True,
    metavar="all|light|none|NAME,...",
    help="Runtimes of the table to run the plan on: all, those that install in seconds, none, "
    'or some by name, as "tflite-runtime 2.14.0,ai-edge-litert" (without a version: every one).',
)
@click.option(
    "--require",
    "required",
    default="",
    metavar="NAME,...",
    help="Runtimes that must pass, or the check fails; named as for --runtimes.",
)
@table_option
@python_option
@click.option(
    "-o",
    "--output",
    "out",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    help="Where to write the plan with what it passed on.  [default: PLAN_FILE itself]",
)
@click.option("--no-write", is_flag=True, help="Write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON, for programs.")
def check(
    plan_file: Path,
    task_file: Path,
    choice: str,
    required: str,
    table_file: Path | None,
    directories: tuple[Path, ...],
    out: Path | None,
    no_write: bool,
    as_json: bool,
) -> None:
    """Run the release checks on PLAN_FILE again, and run it on many TFLite runtimes.

    TensorFlow Federated computes the reference anew from TASK_FILE. Then every
    variant of the plan trains and evaluates on this machine's runtime and on
    each one of the table, in an environment and a process of its own; see
    `nightshift plan runtimes`. A runtime is served by the first variant that
    equals TFF there, with and without the runtime's XNNPACK delegate.

    The plan is written with the runtimes it passed on: a server gives a device
    only a variant that passed on the device's runtime. Runtimes that were not
    run keep what the plan said of them. What was measured stands beside the plan, in
    PLAN_FILE.report.json. A plan of which something new is known has to be
    signed again; one of which nothing new is known stays as it is.

    What follows from the task alone or from the day of the build is not repeated:
    provenance, predicates and resource limits stand as `nightshift plan build` found
    them, and are listed.

    \b
      nightshift plan check digits.plan examples/digits_task.py
      nightshift plan check digits.plan examples/digits_task.py \\
        --runtimes all --require "tflite-runtime 2.14.0,ai-edge-litert 2.1.6"

    Exit codes: 0 done, 1 a check failed or a required runtime did not pass,
    2 the input is wrong.
    """
    if out is not None and no_write:
        raise InvalidInput("--output and --no-write exclude each other")
    archive, task = open_plan(plan_file), load(task_file)
    runtimes = table(table_file)
    must = [runtime.name for runtime in _select(runtimes, required or "none")]
    chosen = {runtime.name for runtime in _select(runtimes, choice)} | set(must)
    found = with_progress(lambda progress: compiler().check_plan(archive, task, progress))
    checks: list[dict[str, Any]] = _entries(found.checks)
    results = _matrix(
        archive,
        found.cases,
        [runtime for runtime in runtimes if runtime.name in chosen],
        Environments(pythons=Pythons(directories)),
    )
    if results:
        checks.append(evidence.check(results, must))
    kept = _not_repeated(archive, checks)
    report = {
        "plan": archive.manifest.name,
        "digest": archive.digest,
        "passed": all(entry["passed"] for entry in checks),
        "checks": checks,
        "not_repeated": kept,
        "results": [result.to_json() for result in results],
    }
    if as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        output().print(checks_table(checks))
        if results:
            output().print(_results_table(results))
    written = None if no_write else out or plan_file
    failed = [entry for entry in checks if not entry["passed"]]
    if written is not None and not failed:
        data = _with_evidence(archive, checks, results)
        if written != plan_file or data != archive.data:
            save(written, data)
        report["digest"] = PlanArchive.from_bytes(data).digest
    if written is not None:
        save(measurements_file(written), (json.dumps(report, indent=2) + "\n").encode())
    if failed:
        more = f" ({len(failed) - 1} more fail)" if len(failed) > 1 else ""
        raise CheckFailed(
            f"the plan fails the check {failed[0]['name']!r}: {failed[0]['summary']}{more}"
        )
    if not as_json:
        click.echo(f"{plan_file} passes all {len(checks)} checks.")
        if kept:
            click.echo(f"Not repeated, as the build found them: {', '.join(kept)}")
        if written is not None:
            click.echo(f"Wrote {measurements_file(written)}")
            if written != plan_file or report["digest"] != archive.digest:
                unsigned = (
                    "; not signed any more"
                    if _signed(archive) and report["digest"] != archive.digest
                    else ""
                )
                click.echo(f"Wrote {written}, digest {report['digest']}{unsigned}")


def _entries(checks: Sequence[Any]) -> list[dict[str, Any]]:
    from device_plan.compiler.checks import report

    entries: list[dict[str, Any]] = report(checks)["checks"]
    return entries


def _select(runtimes: Sequence[RuntimeSpec], choice: str) -> tuple[RuntimeSpec, ...]:
    try:
        return select(runtimes, choice)
    except InvalidTable as error:
        raise InvalidInput(str(error)) from error


def _matrix(
    archive: PlanArchive,
    cases: Cases,
    runtimes: Sequence[RuntimeSpec],
    environments: Environments,
) -> list[Result]:
    if not runtimes:
        return []
    variants = {part.variant: part.graph for part in archive.variants}
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task("", total=None)

        def progress(done: int, total: int, what: str) -> None:
            if console.is_terminal:
                bar.update(task, completed=done, total=total, description=what)
            elif done < total:
                # A file or a pipe gets a line for each step instead of a moving one.
                console.print(f"[{done + 1}/{total}] {what}", markup=False, highlight=False)

        return run(variants, cases, runtimes, environments, progress)


def _with_evidence(
    archive: PlanArchive, checks: Sequence[dict[str, Any]], results: Sequence[Result]
) -> bytes:
    """The archive with what is known now; unchanged, signatures included, if nothing is new."""
    before = {part.variant: list(part.manifest.runtimes) for part in archive.variants}
    after = evidence.evidence(before, results)
    entries = evidence.merged(archive.checks.get("checks", []), checks)
    passed = all(entry["passed"] for entry in entries)
    report = {**archive.checks, "passed": passed, "checks": entries}
    if after == before and report == archive.checks:
        return archive.data
    return archive.with_evidence(runtimes=after, checks=report, provenance=None)


def _not_repeated(archive: PlanArchive, checks: Sequence[dict[str, Any]]) -> list[str]:
    """The plan's checks that were not made now."""
    made = {entry["name"] for entry in checks} | {evidence.CHECK}
    return [
        entry["name"] for entry in archive.checks.get("checks", []) if entry["name"] not in made
    ]


def _signed(archive: PlanArchive) -> bool:
    return bool(archive.signature) or any(part.signature for part in archive.variants)


def _results_table(results: Sequence[Result]) -> Table:
    shown = Table(
        title="On TFLite runtimes (the second time is without XNNPACK)", title_justify="left"
    )
    for column, side in (
        ("runtime", "left"),
        ("variant", "left"),
        ("result", "left"),
        ("difference", "right"),
        ("ms per step", "right"),
        ("MB", "right"),
    ):
        shown.add_column(column, justify=side, no_wrap=True)  # type: ignore[arg-type]
    shown.add_column("why not")
    colors = {"passed": "[green]passed[/]", "failed": "[red]failed[/]", "not run": "not run"}
    previous = ""
    for result in results:
        shown.add_row(
            "" if result.runtime == previous else result.runtime,
            result.variant,
            colors[result.status],
            _number(result.largest, ".1e"),
            " / ".join(
                _number(None if m.seconds_per_step is None else 1000 * m.seconds_per_step, ".3g")
                for m in result.measured.values()
                if m.seconds_per_step is not None
            ),
            _number(None if result.rss_bytes is None else result.rss_bytes / 1e6, ".0f"),
            result.reason,
        )
        previous = result.runtime
    return shown


def _number(value: float | None, form: str) -> str:
    if value is None:
        return ""
    return format(value, form) if math.isfinite(value) else "infinite"
