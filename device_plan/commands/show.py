"""`nightshift plan show`."""

import json
from pathlib import Path

import click

from device_plan.commands.terminal import InvalidInput, open_plan, output
from device_plan.report import measurements
from device_plan.report.description import describe
from device_plan.report.page import page
from device_plan.report.text import print_plan
from device_plan.tflite_file import MalformedGraph


@click.command()
@click.argument("plan_file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
@click.option(
    "--page",
    "page_file",
    metavar="OUT.html",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    help="Write a page for the mobile team: one HTML file that loads nothing else.",
)
@click.option(
    "--examples",
    type=click.IntRange(min=1),
    help="State work and seconds of a session with so many examples.  "
    "[default: the most that the plan uses]",
)
def show(plan_file: Path, as_json: bool, page_file: Path | None, examples: int | None) -> None:
    """Say what PLAN_FILE asks of a device: operations, bytes, work, seconds, memory.

    Lists every operation with its version and the first TFLite release that has
    it, what devices download and upload, multiply-adds and bytes moved in a
    session, and the runtimes that the plan has passed on. Seconds and memory
    are those that `nightshift plan check` measured, if its PLAN_FILE.report.json
    stands beside the plan; else seconds are an estimate, which says what it assumes.

    \b
      nightshift plan show digits.plan
      nightshift plan show digits.plan --examples 50 --page digits.html
      nightshift plan show digits.plan --json | jq .variants[0].session

    docs/mobile-report.md explains the figures and the keys of the JSON.
    """
    archive = open_plan(plan_file)
    try:
        measured, not_measured = measurements.read(plan_file, archive)
        plan = describe(archive, examples=examples, measured=measured, not_measured=not_measured)
    except (MalformedGraph, measurements.InvalidMeasurements) as error:
        raise InvalidInput(f"{plan_file}: {error}") from error
    if page_file is not None:
        try:
            page_file.write_text(page(plan), encoding="utf-8")
        except OSError as error:
            raise InvalidInput(f"cannot write {page_file}: {error.strerror}") from error
    if as_json:
        click.echo(json.dumps(plan, indent=2))
    elif page_file is None:
        print_plan(output(), plan)
    else:
        click.echo(f"Wrote {page_file}")
