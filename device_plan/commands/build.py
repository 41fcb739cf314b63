"""`nightshift plan build`."""

import time
from pathlib import Path

import click

from device_plan.archive import PlanArchive
from device_plan.commands.terminal import (
    CheckFailed,
    compiler,
    failure,
    load,
    print_checks,
    save,
    with_progress,
)


@click.command()
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
    task = load(task_file)
    started = time.monotonic()
    built = with_progress(lambda progress: compiler().build_plan(task, progress))
    print_checks(built.checks)
    if built.data is None:
        raise CheckFailed(failure(built.checks) + f"; {output} was not written")
    save(output, built.data)
    archive = PlanArchive.from_bytes(built.data)
    device = len(archive.device_part())
    click.echo(
        f"Wrote {output}: {len(built.data):,} bytes, of which devices download {device:,}, "
        f"in {time.monotonic() - started:.0f} s"
    )
    click.echo(f"digest {archive.digest}")
