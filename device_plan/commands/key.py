"""`nightshift plan key`: the keys by which servers and devices know who released a plan."""

from pathlib import Path

import click

from device_plan.commands.terminal import InvalidInput
from device_plan.signing import (
    InvalidKey,
    create_key,
    is_private_key,
    key_id,
    load_private_key,
    load_public_key,
    public_key_path,
    public_pem,
)


@click.group()
def key() -> None:
    """Make and show the keys that plans are signed with.

    Who releases plans has the private key; servers (nightshift serve --plan-key)
    and devices (nightshift device run --plan-key) have the public one, and run
    nothing that it did not sign.

    \b
    Example:
      nightshift plan key new release.pem
      nightshift plan sign digits.plan --key release.pem -o signed.plan
      nightshift serve --plan-key release.pem.pub
    """


@key.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def new(file: Path) -> None:
    """Make a key: FILE is private, readable by you alone, and FILE.pub is public.

    An Ed25519 key in PEM form, without a passphrase: keep it where only the
    release of plans can read it. Nobody can make it again.
    """
    try:
        made = create_key(file)
    except FileExistsError as error:
        raise InvalidInput(str(error)) from error
    except OSError as error:
        raise InvalidInput(f"cannot write {file}: {error.strerror}") from error
    click.echo(f"key {key_id(made.public_key())}: {file} (keep it), {public_key_path(file)}")


@key.command("show")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def show_key(file: Path) -> None:
    """Print the identifier and the public half of the key in FILE, private or public."""
    try:
        private = is_private_key(file)
        public = load_private_key(file).public_key() if private else load_public_key(file)
    except InvalidKey as error:
        raise InvalidInput(str(error)) from error
    click.echo(f"key {key_id(public)}")
    click.echo(public_pem(public).decode(), nl=False)
