"""The command `nightshift doctor`."""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from typing import Any

import click

from server.configuration import ServerConfiguration
from server.doctor.finding import Finding, examine
from server.settings import SettingsCommand, check_environment, given, options

#: The settings that say what is to be examined; the others are accepted all the same.
SHOWN = ("data_dir", "host", "port", "plan_keys", "database_url", "blobs", "ray_address")

_COLOURS = {"fine": "green", "warning": "yellow", "wrong": "red bold", "skipped": "dim"}


@click.command(cls=SettingsCommand)
@options(ServerConfiguration, shown=SHOWN)
@click.option(
    "--server",
    "servers",
    multiple=True,
    help="Address of a running server, e.g. http://127.0.0.1:8750; again for each selector.",
)
@click.option(
    "--admin-token",
    default=None,
    help="Of those servers, to read their rounds where the database is out of reach.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.pass_context
def doctor(
    context: click.Context,
    /,
    servers: tuple[str, ...],
    admin_token: str | None,
    as_json: bool,
    **_settings: Any,
) -> None:
    """Check a deployment: what is wrong, and what to do about it.

    It reads the configuration that `nightshift serve` would (the file of --config,
    the environment, options), and looks at this machine, the data directory, the
    database, the blob store, plan keys, the address, and the servers named by
    --server. It changes nothing; what it writes to measure, it removes.

    The exit code is 1 if something is wrong; warnings do not count.

    \b
    Example:
      nightshift doctor --data-dir ./data --server http://127.0.0.1:8750
      nightshift --config /etc/nightshift.toml doctor --json
    """
    try:
        check_environment(ServerConfiguration, os.environ)
        configuration = ServerConfiguration(**given(context, ServerConfiguration))
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    findings = []
    for finding in examination(configuration, servers, admin_token):
        findings.append(finding)
        if not as_json and sys.stderr.isatty():
            click.echo(f"\r\x1b[K{finding.check} …", err=True, nl=False)
    if not as_json and sys.stderr.isatty():
        click.echo("\r\x1b[K", err=True, nl=False)
    if as_json:
        click.echo(json.dumps({"findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        _print(findings)
    if any(finding.status == "wrong" for finding in findings):
        raise click.exceptions.Exit(1)


def examination(
    configuration: ServerConfiguration, servers: tuple[str, ...], admin_token: str | None
) -> Iterator[Finding]:
    """Everything that can be looked at, one line after the other."""
    from server.doctor import machine, service
    from server.doctor.blobs import configured_blobs
    from server.doctor.database import DatabaseExamination
    from server.doctor.rounds import LATELY_S, round_findings

    urls = tuple(url.rstrip("/") for url in servers)
    yield from examine("Python", machine.python)
    yield from examine("dependencies", machine.dependencies)
    yield from examine("file descriptors", machine.descriptors)
    yield from examine("data directory", partial(machine.data_directory, configuration.data_dir))
    yield from examine("plan keys", partial(_plan_keys, configuration))
    database = DatabaseExamination(configuration)
    yield from examine("database", database.findings)
    yield from examine("blob store", partial(configured_blobs, configuration.blobs))
    if configuration.ray_address is not None:
        remedy = "start Ray's head there (`ray start --head`), or correct --ray-address"
        found = service.reachable("Ray", configuration.ray_address, remedy)
        yield found
        if found.status == "fine":
            yield from examine("selectors", partial(_selectors, configuration, len(urls)))
    yield from examine("address", partial(service.port_findings, configuration))
    for url in urls:
        yield from examine(f"server {url}", partial(service.server_findings, url))
    yield from examine("populations", database.leases)

    def rounds() -> Iterator[Finding]:
        ended = database.ended_rounds(LATELY_S)
        if ended is None and admin_token and urls:
            ended = service.ended_rounds(urls[0], admin_token)
        if ended is not None:
            yield from round_findings(ended)

    yield from examine("rounds", rounds)


def _selectors(configuration: ServerConfiguration, servers: int) -> Iterator[Finding]:
    from server.doctor.selectors import selector_findings

    assert configuration.ray_address is not None
    token_file = configuration.data_dir / "ray.token"
    return selector_findings(configuration.ray_address, servers=servers, token_file=token_file)


def _plan_keys(configuration: ServerConfiguration) -> Iterator[Finding]:
    from device_plan.signing import InvalidKey, load_public_key
    from server.doctor.finding import fine, warning, wrong

    check = "plan keys"
    for path in configuration.plan_keys:
        try:
            load_public_key(path)
        except InvalidKey as error:
            yield wrong(check, str(error), "name a public key, see `nightshift plan key`")
        else:
            yield fine(check, f"{path} is a public key")
    if not configuration.plan_keys:
        yield warning(
            check, "none: any plan is run that is posted with the admin token", "set --plan-key"
        )


def _print(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("check", "", "found", "what to do"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        table.add_row(
            Text(finding.check),
            Text(finding.status, style=_COLOURS[finding.status]),
            Text(finding.detail),
            Text(finding.remedy),
        )
    Console().print(table)
    wrong = sum(finding.status == "wrong" for finding in findings)
    click.echo(f"{wrong} of {len(findings)} checks found something wrong.")
