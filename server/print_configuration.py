"""`nightshift serve --print-config`: what is set, and who set it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from server.configuration import ServerConfiguration
from server.settings import TABLE, origin, settings


def configuration_lines(
    context: click.Context, configuration: ServerConfiguration
) -> Iterator[str]:
    """A configuration file with the values in force; a comment says where each is from.

    A password is left out, and so the file is none that could be used, if the
    database has one.
    """
    yield f"[{TABLE}]"
    for known in settings(ServerConfiguration):
        value = known.shown(getattr(configuration, known.name))
        source = origin(context, known)
        if value is None:
            yield f"# {known.name} is not set"
        else:
            yield f"{known.name} = {_toml(value)}  # {source}"


def _toml(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, Path):
        value = str(value)
    # JSON's numbers and strings are TOML's, but for DEL, which no path should have.
    return json.dumps(value, ensure_ascii=False)
