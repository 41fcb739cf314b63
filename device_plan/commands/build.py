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
@click.option(
    "--require-provenance",
    is_flag=True,
    help="Refuse a plan unless its task is committed to git and was reviewed by another "
    "person than its author.",
)
def build(task_file: Path, output: Path, require_provenance: bool) -> None:
    """Compile TASK_FILE into a plan, check it, and write it.

    TASK_FILE is a Python file with a top-level `task = FederatedTask(...)`, or
    a function `task()` that returns one; examples/digits_task.py is a complete
    one. The learning process is built with tff.learning. The plan is written
    only if all release checks pass, above all this one: on the same examples,
    the device's graph computes what TensorFlow Federated computes. Further ones:
    the task's predicates hold in simulation, and a session stays within its
    limits of bytes, memory and time. What the task was made from (commit,
    author, reviewer, digests of its sources) is recorded in the plan.

    The same task gives the same bytes.
    """
    task = load(task_file)
    started = time.monotonic()
    built = with_progress(
        lambda progress: compiler().build_plan(
            task, progress, task_file=task_file, require_provenance=require_provenance
        )
    )
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
