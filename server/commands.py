"""The commands `nightshift serve`, `task` and `models`."""

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any

import click

from server.admin_client import AdminClient, AdminError
from server.configuration import ServerConfiguration
from server.print_configuration import configuration_lines
from server.settings import SettingsCommand, check_environment, given, options

#: Where a server keeps its data unless told otherwise.
DEFAULT_DATA_DIR = ServerConfiguration().data_dir


@click.command(cls=SettingsCommand)
@options(ServerConfiguration)
@click.option(
    "--print-config",
    is_flag=True,
    help="Print every setting and where it is from, as a configuration file, and end.",
)
@click.pass_context
def serve(context: click.Context, /, print_config: bool, **_settings: Any) -> None:
    """Run the server: the device protocol, the rounds and the operator's API.

    Everything runs in this one process tree, on SQLite and local files. Devices
    speak to /v1 (docs/protocol.md), operators to /v1/admin with the token in
    DATA_DIR/secrets.json, machines to /healthz, /readyz and /metrics.

    SIGTERM lets uploads under way end (see --drain-s); a second one, or SIGINT,
    does not wait.

    \b
    Example:
      nightshift serve --data-dir ./data --port 8750
      nightshift task create digits.plan --data-dir ./data
    """
    try:
        check_environment(ServerConfiguration, os.environ)
        configuration = ServerConfiguration(**given(context, ServerConfiguration))
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if print_config:
        for line in configuration_lines(context, configuration):
            click.echo(line)
        return
    from server.http.serving import CannotServe, run
    from server.telemetry.logs import configure_logs

    configure_logs(configuration.log_format)
    try:
        run(configuration)
    except CannotServe as error:
        raise click.ClickException(str(error)) from error


def connected(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options that find a server, and gives the command a client."""

    @click.option("--server", default="http://127.0.0.1:8750", help="The server's address.")
    @click.option(
        "--data-dir",
        type=click.Path(path_type=Path, file_okay=False),
        default=DEFAULT_DATA_DIR,
        help="The server's data directory, for its admin token.",
    )
    @click.option("--admin-token", default=None, help="Instead of the token in --data-dir.")
    @wraps(command)
    def connected(server: str, data_dir: Path, admin_token: str | None, **options: Any) -> None:
        try:
            client = (
                AdminClient(url=server, token=admin_token)
                if admin_token
                else AdminClient.of_data_dir(url=server, data_dir=data_dir)
            )
            command(client, **options)
        except AdminError as error:
            raise click.ClickException(str(error)) from error

    return connected


def task_wishes(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options that override what a plan's author wished."""
    rounds = click.option(
        "--rounds",
        type=click.IntRange(min=1),
        default=None,
        help="Rounds to commit, instead of what the plan's author wished.",
    )
    goal_count = click.option(
        "--goal-count",
        type=click.IntRange(min=1),
        default=None,
        help="Updates that complete a training round, likewise.",
    )
    return rounds(goal_count(command))


_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


@click.group()
def task() -> None:
    """A server's tasks: what its devices are asked to compute, round after round."""


@task.command("create")
@click.argument("plan", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@task_wishes
@_as_json
@connected
def create_task(
    client: AdminClient, plan: Path, rounds: int | None, goal_count: int | None, as_json: bool
) -> None:
    """Deploy PLAN (from `nightshift plan build`): its training task, and its evaluation task.

    Whether the plan passed its release checks is not asked: `nightshift plan publish`
    asks, and signs it.
    """
    answer = client.create_tasks(plan.read_bytes(), rounds=rounds, goal_count=goal_count)
    for warning in answer["warnings"]:
        click.echo(f"Warning: {warning}", err=True)
    _print_tasks(answer["tasks"], as_json)


@task.command("list")
@click.option("--population", default=None, help="Only this population's.")
@_as_json
@connected
def list_tasks(client: AdminClient, population: str | None, as_json: bool) -> None:
    """List the tasks."""
    path = "tasks" + (f"?population={population}" if population else "")
    _print_tasks(client.get(path)["tasks"], as_json)


@task.command("show")
@click.argument("task_id")
@_as_json
@connected
def show_task(client: AdminClient, task_id: str, as_json: bool) -> None:
    """Show a task and its rounds."""
    described = client.get(f"tasks/{task_id}")
    rounds = client.get(f"tasks/{task_id}/rounds")["rounds"]
    if as_json:
        click.echo(json.dumps({**described, "rounds_history": rounds}, indent=2))
        return
    _print_tasks([described], as_json)
    print_table(
        ["variant", "bytes", "passed on"],
        [
            [variant["name"], variant["bytes"], ", ".join(variant["runtimes"]) or "nothing"]
            for variant in described["variants"]
        ],
    )
    print_table(
        ["round", "from model", "outcome", "selected", "accepted", "seconds", "why / metrics"],
        [
            [
                record["number"],
                "not yet" if record["base_model_round"] is None else record["base_model_round"],
                record["outcome"],
                record["statistics"].get("selected", ""),
                record["statistics"].get("accepted", ""),
                f"{record['ended_at'] - record['opened_at']:.2f}" if record["ended_at"] else "",
                record["reason"] or _metrics(record["metrics"]),
            ]
            for record in rounds
        ],
    )


def _action(name: str, text: str) -> None:
    @task.command(name, help=text)
    @click.argument("task_id")
    @_as_json
    @connected
    def act(client: AdminClient, task_id: str, as_json: bool) -> None:
        _print_tasks([client.post(f"tasks/{task_id}/{name}")], as_json)


_action("pause", "Start no more rounds of TASK_ID until it is resumed; an open one is finished.")
_action("resume", "Go on with a paused task.")
_action("cancel", "End TASK_ID for good. Its models stay.")


@task.command("weigh")
@click.argument("task_id")
@click.argument("weight", type=click.FloatRange(min=0, min_open=True))
@_as_json
@connected
def weigh_task(client: AdminClient, task_id: str, weight: float, as_json: bool) -> None:
    """Give TASK_ID a share of its population's devices, relative to other tasks' weights.

    Tasks that select at the same time and want the same kind of devices get them
    in proportion to their weights, which are 1 until they are set.
    """
    _print_tasks([client.post(f"tasks/{task_id}/weight?value={weight!r}")], as_json)


@click.group()
def models() -> None:
    """The models that training tasks have committed."""


@models.command("list")
@click.argument("task_id")
@_as_json
@connected
def list_models(client: AdminClient, task_id: str, as_json: bool) -> None:
    """List the models of TASK_ID, the oldest first."""
    found = client.get(f"tasks/{task_id}/models")["models"]
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    print_table(
        ["model", "committed", "checkpoint", "metrics"],
        [
            [
                model["round"],
                datetime.fromtimestamp(model["created_at"], UTC).strftime("%Y-%m-%d %H:%M:%S"),
                model["checkpoint_sha256"][:12],
                _metrics(model["metrics"]),
            ]
            for model in found
        ],
    )


@models.command("show")
@click.argument("task_id")
@click.argument("number", type=int)
@connected
def show_model(client: AdminClient, task_id: str, number: int) -> None:
    """Show what is known of model NUMBER of TASK_ID, as JSON."""
    click.echo(json.dumps(client.get(f"tasks/{task_id}/models/{number}"), indent=2))


@models.command("get")
@click.argument("task_id")
@click.argument("number", type=int)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="The file to write; by default TASK_ID-NUMBER.safetensors.",
)
@connected
def get_model(client: AdminClient, task_id: str, number: int, output: Path | None) -> None:
    """Download the weights of model NUMBER of TASK_ID as a safetensors file.

    The tensors have the names the author knows, e.g. "dense/kernel".
    """
    weights = client.get_bytes(f"tasks/{task_id}/models/{number}/weights")
    target = output or Path(f"{task_id}-{number}.safetensors")
    target.write_bytes(weights)
    click.echo(f"wrote {target} ({len(weights)} bytes)")


def _print_tasks(tasks: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(tasks, indent=2))
        return
    print_table(
        ["task", "population", "computation", "status", "rounds", "goal"],
        [
            [
                described["task_id"],
                described["population"],
                described["computation"],
                described["status"],
                (
                    f"{described['head_round']} of {described['rounds']}"
                    if described["computation"] == "training"
                    else f"every {described['every_rounds']}"
                ),
                described["cohort"]["goal_count"],
            ]
            for described in tasks
        ],
    )


def _metrics(values: dict[str, Any]) -> str:
    return "  ".join(
        f"{name} {value:.4g}" for name, value in values.items() if isinstance(value, int | float)
    )


def print_table(columns: list[str], rows: list[list[Any]]) -> None:
    """Prints a table without lines."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*map(str, row))
    Console(soft_wrap=True).print(table)
