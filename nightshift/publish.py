"""`nightshift plan publish`: from a plan that passed its checks to a server's tasks."""

import json
from pathlib import Path

import click

from device_plan.commands.publish import publishable
from server.admin_client import AdminClient
from server.commands import connected, task_wishes


@click.command()
@click.argument("plan_file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--key",
    "key_file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="Sign the plan with this private key first; PLAN_FILE itself is not changed.",
)
@click.option(
    "--require-provenance",
    is_flag=True,
    help="Refuse a plan that was not built from committed sources, or that names no author or "
    "no reviewer other than the author.",
)
@task_wishes
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@connected
def publish(
    client: AdminClient,
    plan_file: Path,
    key_file: Path | None,
    require_provenance: bool,
    rounds: int | None,
    goal_count: int | None,
    as_json: bool,
) -> None:
    """Sign PLAN_FILE and create its tasks on a server, if it passed all of its checks.

    Refuses a plan of which a release check failed, or that passed on no TFLite
    runtime, and says which. `nightshift task create` does the same without
    looking at the checks.

    \b
    Example:
      nightshift plan publish digits.plan --key release.pem --data-dir ./data

    Exit codes: 0 done, 1 a check failed or the server refused, 2 the input is wrong.
    """
    archive = publishable(plan_file, key_file=key_file, require_provenance=require_provenance)
    answer = client.create_tasks(archive.data, rounds=rounds, goal_count=goal_count)
    for warning in answer["warnings"]:
        click.echo(f"Warning: {warning}", err=True)
    tasks = [task["task_id"] for task in answer["tasks"]]
    if as_json:
        click.echo(json.dumps({"digest": archive.digest, "tasks": tasks}, indent=2))
        return
    click.echo(f"digest {archive.digest}")
    for task in answer["tasks"]:
        click.echo(f"task {task['task_id']} ({task['computation']} of {task['population']})")
