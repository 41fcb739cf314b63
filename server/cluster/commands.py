"""The commands `nightshift cluster up`, `selector` and `status`."""

import dataclasses
import json
import os
import signal
from pathlib import Path
from typing import Any

import click

from server.commands import DEFAULT_DATA_DIR
from server.configuration import ServerConfiguration
from server.settings import SettingsCommand, check_environment, given, options


@click.group()
def cluster() -> None:
    """Run on several processes or machines: Ray, PostgreSQL, many selectors."""


def _configuration(context: click.Context) -> ServerConfiguration:
    try:
        check_environment(ServerConfiguration, os.environ)
        return ServerConfiguration(**given(context, ServerConfiguration))
    except ValueError as error:
        raise click.UsageError(str(error)) from error


@cluster.command(cls=SettingsCommand)
@options(ServerConfiguration)
@click.option(
    "--selectors",
    type=click.IntRange(1, 64),
    default=2,
    help="Processes that serve devices, on --port and the ports after it.",
)
@click.option(
    "--object-store-bytes",
    type=click.IntRange(min=80 << 20),
    default=200 << 20,
    help="Shared memory of Ray, for sums in flight.",
)
@click.option(
    "--durable/--not-durable",
    default=True,
    help="Whether the private PostgreSQL survives a power cut; tests do without.",
)
@click.pass_context
def up(
    context: click.Context,
    /,
    selectors: int,
    object_store_bytes: int,
    durable: bool,
    **_settings: Any,
) -> None:
    """Run a whole cluster on this machine, until Ctrl-C.

    A Ray of one node on loopback, a PostgreSQL of its own below --data-dir unless
    --database-url names another (needs Debian's package postgresql), blobs in
    --data-dir unless --blobs names a bucket, and --selectors processes that share
    all populations. A device that checked in at one selector must come back to it:
    its session names the address.

    \b
    Example:
      nightshift cluster up --data-dir ./data --port 8750 --selectors 4
      nightshift task create digits.plan --data-dir ./data
    """
    configuration = _configuration(context)
    from server.cluster.laptop import CannotStart, Laptop
    from server.cluster.private_postgres import NoPostgres
    from server.storage.errors import UnusableDatabase
    from server.telemetry.logs import configure_logs

    configure_logs(configuration.log_format)
    # Children are started by this thread and die with it; so signals only wake it.
    signals = {signal.SIGTERM, signal.SIGINT}
    laptop = Laptop(
        configuration,
        selectors=selectors,
        object_store_bytes=object_store_bytes,
        durable=durable,
    )
    for each in signals:
        signal.signal(each, _interrupt)
    failed: str | None = None
    try:
        laptop.start()
        for number, url in enumerate(laptop.urls):
            click.echo(f"selector-{number}  {url}")
        click.echo(
            f"The cluster is ready: `nightshift task create PLAN --server {laptop.urls[0]} "
            f"--data-dir {configuration.data_dir}` deploys a plan, Ctrl-C ends it."
        )
        # Ray has handlers of its own.
        for each in signals:
            signal.signal(each, _interrupt)
        while True:
            for name in laptop.mend():
                click.echo(f"{name} ended and is started again", err=True)
            signal.sigtimedwait([], 0.5)
    except (CannotStart, NoPostgres, UnusableDatabase) as error:
        failed = str(error)
    except KeyboardInterrupt:
        click.echo("Ending: uploads under way are finished first.", err=True)
    finally:
        for each in signals:
            signal.signal(each, signal.SIG_IGN)
        laptop.stop()
    if failed is not None:
        raise click.ClickException(failed)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


@cluster.command(cls=SettingsCommand)
@options(ServerConfiguration)
@click.option(
    "--join/--no-join",
    default=True,
    help="Make this machine a node of the Ray at --ray-address; not needed if it is one.",
)
@click.pass_context
def selector(context: click.Context, /, join: bool, **_settings: Any) -> None:
    """Run one selector of a cluster: serve devices, and sum what they send.

    It needs --ray-address, --database-url of a PostgreSQL, --blobs that all share,
    --secrets that all share, and the --public-url at which devices reach this very
    process. SIGTERM drains it.

    \b
    Example (deploy/ has manifests for Kubernetes and a compose file):
      nightshift cluster selector --ray-address ray-head:6379 \\
        --database-url postgresql+psycopg://nightshift@database/nightshift \\
        --blobs gs://bucket/prefix --secrets /etc/nightshift/secrets.json \\
        --host 0.0.0.0 --public-url https://selector-0.example.org
    """
    configuration = _configuration(context)
    if configuration.ray_address is None:
        raise click.UsageError("a selector of a cluster needs --ray-address, e.g. ray-head:6379")
    if configuration.database_url.startswith("sqlite:"):
        raise click.UsageError(
            "selectors share a PostgreSQL: --database-url postgresql+psycopg://user@host/name"
        )
    from server.cluster.joining import CannotJoin, joined
    from server.http.serving import CannotServe, run
    from server.telemetry.logs import configure_logs

    configure_logs(configuration.log_format)
    try:
        with joined(configuration.ray_address, configuration.data_dir, start_node=join):
            run(configuration)
    except (CannotServe, CannotJoin) as error:
        raise click.ClickException(str(error)) from error


@cluster.command()
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_DATA_DIR,
    help="Of `nightshift cluster up`.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of lines.")
def status(data_dir: Path, as_json: bool) -> None:
    """Show what runs for a `nightshift cluster up`, with process ids."""
    from server.cluster.status import NoCluster, read

    try:
        parts = read(data_dir)
    except NoCluster as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(part) for part in parts], indent=2))
        return
    for part in parts:
        click.echo(f"{part.pid:>8}  {part.kind:<18} {part.name}  {part.url}".rstrip())
