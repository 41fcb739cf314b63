"""`nightshift plan check`."""

from pathlib import Path

import click

from device_plan.commands.terminal import (
    CheckFailed,
    compiler,
    failure,
    load,
    open_plan,
    print_checks,
    with_progress,
)


@click.command()
@click.argument("plan_file", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("task_file", type=click.Path(path_type=Path, dir_okay=False))
def check(plan_file: Path, task_file: Path) -> None:
    """Run the release checks on PLAN_FILE again, against the task it was built from.

    TensorFlow Federated computes the reference anew from TASK_FILE; the plan's
    own graph runs on this machine's TFLite runtime.
    """
    archive, task = open_plan(plan_file), load(task_file)
    checks = with_progress(lambda progress: compiler().check_plan(archive, task, progress)).checks
    print_checks(checks)
    if not all(done.passed for done in checks):
        raise CheckFailed(failure(checks))
    click.echo(f"{plan_file} passes all {len(checks)} checks.")
