"""`nightshift plan sign`."""

from pathlib import Path

import click

from device_plan.archive import PlanArchive
from device_plan.commands.terminal import InvalidInput, open_plan
from device_plan.signing import InvalidKey, key_id, load_private_key
from device_plan.signing import sign as signed


@click.command()
@click.argument("plan_file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--key",
    "key_file",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="The private key; `nightshift plan key new` makes one.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="The file to write; it may be PLAN_FILE.",
)
def sign(plan_file: Path, key_file: Path, output: Path) -> None:
    """Sign PLAN_FILE, in place of any signature that it has.

    The signature covers every entry of the plan, and each variant's device part
    has one of its own. The same plan and key give the same bytes; the digest,
    which covers the signature, is another than the unsigned plan's.
    """
    archive = open_plan(plan_file)
    data = signed_with(archive, key_file)
    try:
        output.write_bytes(data)
    except OSError as error:
        raise InvalidInput(f"cannot write {output}: {error.strerror}") from error
    click.echo(f"wrote {output}, digest {PlanArchive(data).digest}")


def signed_with(archive: PlanArchive, key_file: Path) -> bytes:
    try:
        key = load_private_key(key_file)
    except InvalidKey as error:
        raise InvalidInput(str(error)) from error
    click.echo(f"signed by key {key_id(key.public_key())}", err=True)
    return signed(archive, key)
