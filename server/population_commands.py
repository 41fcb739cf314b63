"""The commands `nightshift population`: what one population may use, and who operates it."""

import json
from typing import Any

import click

from server.admin_client import AdminClient
from server.commands import connected, print_table


@click.group()
def population() -> None:
    """A server's populations: their devices, their limits, their operators' tokens."""


@population.command("list")
@connected
def list_populations(client: AdminClient) -> None:
    """List the populations, one a line."""
    for name in client.get("populations")["populations"]:
        click.echo(name)


@population.command("show")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@connected
def show_population(client: AdminClient, name: str, as_json: bool) -> None:
    """Show NAME: sessions open now, how sessions went, bytes, limits."""
    found = client.get(f"populations/{name}")
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    rows: list[list[Any]] = [
        ["held-out share", found["holdout_fraction"]],
        ["sessions at most", _bound(found["max_sessions"])],
        ["upload bytes at most", _bound(found["max_upload_bytes"])],
        ["bytes up / down", f"{found['bytes_up']:,} / {found['bytes_down']:,}"],
        *([f"now: {state}", f"{value:g}"] for state, value in found["now"].items()),
        *([f"shape {each['shape']}", each["sessions"]] for each in found["session_shapes"]),
        *([f"turned away: {name}", count] for name, count in found["unsupported_runtimes"].items()),
    ]
    print_table(["population", name], rows)


@population.command("limit")
@click.argument("name")
@click.option(
    "--max-sessions",
    type=click.IntRange(min=1),
    default=None,
    help="Sessions it may have open at each selector; without it, no bound.",
)
@click.option(
    "--max-upload-bytes",
    type=click.IntRange(min=1),
    default=None,
    help="Bytes of unfinished uploads at each selector; without it, no bound of its own.",
)
@connected
def limit_population(
    client: AdminClient, name: str, max_sessions: int | None, max_upload_bytes: int | None
) -> None:
    """Set what NAME may use, so that it cannot starve the other populations.

    Devices beyond it are told QUOTA_REACHED or BUSY, and come back later. Both
    bounds are set by each call: one that is not given is lifted.
    """
    wishes = {"max_sessions": max_sessions, "max_upload_bytes": max_upload_bytes}
    client.post(f"populations/{name}/quotas", json.dumps(wishes).encode())
    click.echo(f"{name}: sessions {_bound(max_sessions)}, upload bytes {_bound(max_upload_bytes)}")


@population.command("token")
@click.argument("name")
@click.option("--revoke", is_flag=True, help="Make no new one, only end the present one.")
@connected
def population_token(client: AdminClient, name: str, revoke: bool) -> None:
    """Make a token that operates NAME and nothing else, and print it.

    It can deploy plans for the population, and show and steer its tasks: use it as
    --admin-token. The token before it ends. The server keeps its digest only.
    """
    if revoke:
        client.delete(f"populations/{name}/token")
        click.echo(f"{name} has no token of its own now", err=True)
        return
    click.echo(client.post(f"populations/{name}/token")["token"])


def _bound(value: int | None) -> str:
    return "no bound" if value is None else f"{value:,}"
