"""A click group that imports a command's module when the command is invoked, not before."""

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import click


class LazyCommand(NamedTuple):
    """Where a command lives, and what the listing says of it.

    Attributes:
        target: "module:attribute" of a click command.
        help: One line for the group's listing, so that the listing needs no import.
    """

    target: str
    help: str


class LazyGroup(click.Group):
    """A click group over a table of commands.

    A command's settings in the configuration file are checked as soon as the
    command's own options are known.
    """

    def __init__(self, *, commands: Mapping[str, LazyCommand], **attributes: Any) -> None:
        super().__init__(**attributes)
        self._lazy = dict(commands)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        lazy = self._lazy.get(cmd_name)
        if lazy is None:
            return None
        module, _, attribute = lazy.target.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        settings = (ctx.default_map or {}).get(cmd_name)
        if settings is not None:
            check_settings(command, settings, (cmd_name,))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, lazy.help) for name, lazy in self._lazy.items()])


def check_settings(
    command: click.Command, settings: Mapping[str, Any], path: tuple[str, ...]
) -> None:
    """Raises click.UsageError for a table or setting that the command does not have."""
    table = ".".join(path)
    if not isinstance(settings, Mapping):
        raise click.UsageError(f"configuration: {table!r} must be a table: [{table}]")
    inner = command.commands if isinstance(command, click.Group) else {}
    options = {
        option.name: option
        for option in command.params
        if isinstance(option, click.Option) and option.name
    }
    for name, value in settings.items():
        if name in inner:
            check_settings(inner[name], value, (*path, name))
        elif name not in options:
            known = ", ".join(sorted([*inner, *options])) or "none"
            raise click.UsageError(
                f"configuration: [{table}] has no setting {name!r}; known: {known}"
            )
        elif isinstance(value, Mapping):
            raise click.UsageError(f"configuration: {name!r} in [{table}] must be a value")
