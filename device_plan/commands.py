"""`nightshift plan`: build, show and check the plans that devices execute."""

import json
import logging
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from device_plan.archive import MalformedPlan, PlanArchive
from device_plan.plan_pb2 import PlanManifest, TensorSpec
from device_plan.task import FederatedTask
from device_plan.task_file import InvalidTask, load_task

if TYPE_CHECKING:
    from device_plan.compiler.checks import Check

_Result = TypeVar("_Result")

#: A release check failed.
EXIT_CHECK_FAILED = 1

#: The author's input is wrong.
EXIT_INVALID = 2


class _InvalidInput(click.ClickException):
    exit_code = EXIT_INVALID


class _CheckFailed(click.ClickException):
    exit_code = EXIT_CHECK_FAILED


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def plan() -> None:
    """Build, show and check the plans that devices execute.

    A plan is one file with everything a federated task needs: the training
    graph for devices (TFLite builtins only), the server's step from a round's
    sum to the next model, the initial model, and the checks it has passed.

    \b
    A first plan, from the task that comes with Nightshift:
      nightshift plan build examples/digits_task.py -o digits.plan
      nightshift plan show digits.plan
      nightshift task create digits.plan --server URL

    Exit codes: 0 done, 1 a release check failed, 2 the input is wrong.
    """


@plan.command()
@click.argument("task_file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    required=True,
    help="Where to write the plan; by custom NAME.plan.",
)
def build(task_file: Path, output: Path) -> None:
    """Compile TASK_FILE into a plan, check it, and write it.

    TASK_FILE is a Python file with a top-level `task = FederatedTask(...)`, or
    a function `task()` that returns one; examples/digits_task.py is a complete
    one. The learning process is built with tff.learning. The plan is written
    only if all release checks pass, above all this one: on the same examples,
    the device's graph computes what TensorFlow Federated computes.

    The same task gives the same bytes.
    """
    task = _load(task_file)
    started = time.monotonic()
    built = _with_progress(lambda progress: _compiler().build_plan(task, progress))
    _print_checks(built.checks)
    if built.data is None:
        raise _CheckFailed(_failure(built.checks) + f"; {output} was not written")
    try:
        unfinished = output.with_name(output.name + ".unfinished")
        unfinished.write_bytes(built.data)
        unfinished.replace(output)
    except OSError as error:
        raise _InvalidInput(f"cannot write {output}: {error.strerror}") from error
    archive = PlanArchive.from_bytes(built.data)
    device = len(archive.device_part())
    click.echo(
        f"Wrote {output}: {len(built.data):,} bytes, of which devices download {device:,}, "
        f"in {time.monotonic() - started:.0f} s"
    )
    click.echo(f"digest {archive.digest}")


@plan.command()
@click.argument("plan_file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
def show(plan_file: Path, as_json: bool) -> None:
    """Print what PLAN_FILE holds: tensors, operations, sizes, schedule and checks."""
    archive = _open(plan_file)
    if as_json:
        click.echo(json.dumps(_description(archive), indent=2))
        return
    _print_plan(archive)


@plan.command()
@click.argument("plan_file", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("task_file", type=click.Path(path_type=Path, dir_okay=False))
def check(plan_file: Path, task_file: Path) -> None:
    """Run the release checks on PLAN_FILE again, against the task it was built from.

    TensorFlow Federated computes the reference anew from TASK_FILE; the plan's
    own graph runs on this machine's TFLite runtime.
    """
    archive, task = _open(plan_file), _load(task_file)
    checks = _with_progress(lambda progress: _compiler().check_plan(archive, task, progress))
    _print_checks(checks)
    if not all(done.passed for done in checks):
        raise _CheckFailed(_failure(checks))
    click.echo(f"{plan_file} passes all {len(checks)} checks.")


def _compiler() -> Any:
    """The compiler; importing it takes seconds, for it imports TensorFlow."""
    # Errors reach the author as exceptions; the rest is noise unless it was asked for.
    if not logging.getLogger("device_plan").isEnabledFor(logging.DEBUG):
        # The C++ side reads the variable; the Python side logs to these two.
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
        for name in ("tensorflow", "absl"):
            logging.getLogger(name).setLevel(logging.ERROR)
    from device_plan.compiler import build as compiler

    return compiler


def _load(path: Path) -> FederatedTask:
    try:
        return load_task(path)
    except InvalidTask as error:
        raise _InvalidInput(str(error)) from error


def _open(path: Path) -> PlanArchive:
    try:
        return PlanArchive.open(path)
    except OSError as error:
        raise _InvalidInput(f"cannot read {path}: {error.strerror}") from error
    except MalformedPlan as error:
        raise _InvalidInput(f"{path}: {error}") from error


def _with_progress(run: Callable[[Callable[[str], None]], _Result]) -> _Result:
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
        raise _InvalidInput(str(error)) from error


def _failure(checks: "list[Check]") -> str:
    failed = [done for done in checks if not done.passed]
    return f"the plan fails the check {failed[0].name!r}: {failed[0].summary}" + (
        f" ({len(failed) - 1} more fail)" if len(failed) > 1 else ""
    )


def _console() -> Console:
    # Piped output keeps whole lines, unless who reads it says how wide they may be.
    known = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(width=None if known else 120)


def _print_checks(checks: "list[Check]") -> None:
    rows = [{"name": done.name, "passed": done.passed, "summary": done.summary} for done in checks]
    _console().print(_checks_table(rows))


def _checks_table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="Release checks", title_justify="left")
    table.add_column("check")
    table.add_column("result")
    table.add_column("found")
    for row in rows:
        result = "[green]passed[/]" if row["passed"] else "[bold red]FAILED[/]"
        table.add_row(row["name"], result, row["summary"])
    return table


def _description(archive: PlanArchive) -> dict[str, Any]:
    manifest = archive.manifest
    selector = manifest.example_selector
    return {
        "name": manifest.name,
        "population": manifest.population,
        "digest": archive.digest,
        "bytes": {
            "archive": len(archive.data),
            "device_part": len(archive.device_part()),
            "graph": len(archive.graph),
            "initial_checkpoint": len(archive.initial_checkpoint),
        },
        "batch_size": manifest.batch_size,
        "epochs": manifest.epochs,
        "examples": {
            "collection": selector.collection,
            "criteria": selector.criteria,
            "min_examples": selector.min_examples,
            "max_examples": selector.max_examples,
        },
        "tensors": {group: [_tensor(spec) for spec in specs] for group, specs in _groups(manifest)},
        "signatures": {
            name: {
                "inputs": [_tensor(spec) for spec in signature.inputs],
                "outputs": [_tensor(spec) for spec in signature.outputs],
            }
            for name, signature in sorted(manifest.signatures.items())
        },
        "weight_tensor": manifest.weight_tensor,
        # JSON has no infinity.
        "max_weight": manifest.max_weight if math.isfinite(manifest.max_weight) else None,
        "ops": [{"name": op.name, "version": op.version, "count": op.count} for op in manifest.ops],
        "min_runtime_version": manifest.min_runtime_version,
        "runtimes": [
            {"name": runtime.name, "relative_difference": runtime.relative_difference}
            for runtime in manifest.runtimes
        ],
        "server_state": [_tensor(spec) for spec in archive.server_part("training").state],
        "model_weights": dict(archive.server_part("training").model_weights),
        "schedule": archive.schedule,
        "checks": archive.checks,
    }


def _groups(manifest: PlanManifest) -> list[tuple[str, list[TensorSpec]]]:
    return [
        ("checkpoint", list(manifest.checkpoint)),
        ("examples", list(manifest.examples)),
        ("update", list(manifest.update)),
        ("metrics", list(manifest.metrics)),
    ]


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)}


def _print_plan(archive: PlanArchive) -> None:
    manifest, console = archive.manifest, _console()
    selector, schedule = manifest.example_selector, archive.schedule
    size, device_bytes = len(archive.data), len(archive.device_part())
    model_bytes = len(archive.initial_checkpoint)
    overview = Table(title=f"Plan {manifest.name}", title_justify="left", show_header=False)
    for label, value in (
        ("population", manifest.population),
        (
            "bytes",
            f"{size:,}; a device downloads {device_bytes:,} once and {model_bytes:,} a round",
        ),
        ("session", f"{manifest.epochs} epochs in batches of {manifest.batch_size}"),
        (
            "examples",
            f"{selector.min_examples} to {selector.max_examples} of {selector.collection!r}"
            + (f" where {selector.criteria}" if selector.criteria else ""),
        ),
        ("weight", _weight(manifest)),
        ("runtime", f"TFLite {manifest.min_runtime_version or 'of any version'} or newer"),
        ("operations", _operations(manifest)),
        ("rounds", f"{schedule['rounds']} of {schedule['cohort']['goal_count']} updates"),
        ("evaluation", _evaluation(schedule)),
    ):
        overview.add_row(label, value)
    console.print(overview)
    # Not in the table, which would break it in two on a narrow terminal.
    click.echo(f"digest {archive.digest}")
    tensors = Table(title="Tensors", title_justify="left")
    for column in ("part", "name", "dtype", "shape"):
        tensors.add_column(column)
    for group, specs in _groups(manifest):
        for index, spec in enumerate(specs):
            shape = " x ".join("batch" if side < 0 else str(side) for side in spec.shape)
            tensors.add_row("" if index else group, spec.name, spec.dtype, shape or "scalar")
        tensors.add_section()
    console.print(tensors)
    console.print(_checks_table(archive.checks.get("checks", [])))


def _weight(manifest: PlanManifest) -> str:
    if not manifest.weight_tensor:
        return "none: updates are summed as they are"
    if not math.isfinite(manifest.max_weight):
        return f"{manifest.weight_tensor}, the author's own, without a known bound"
    return f"{manifest.weight_tensor}, at most {manifest.max_weight:g}"


def _operations(manifest: PlanManifest) -> str:
    total = sum(op.count for op in manifest.ops)
    listed = ", ".join(f"{op.name} {op.count}" for op in manifest.ops)
    return f"{total}, all builtin: {listed}"


def _evaluation(schedule: dict[str, Any]) -> str:
    evaluation = schedule.get("evaluation")
    if not evaluation:
        return "none"
    return (
        f"every {evaluation['every_rounds']} rounds "
        f"on {evaluation['cohort']['goal_count']} held-out devices"
    )
