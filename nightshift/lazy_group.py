"""A click group that imports a command's module when the command is invoked, not before."""

import difflib
import importlib
from collections.abc import Iterable, Mapping
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
    """A click group over a table of commands, which may be there already.

    A command's settings in the configuration file are checked as soon as the
    command's own options are known.
    """

    def __init__(
        self, *, commands: Mapping[str, LazyCommand | click.Command], **attributes: Any
    ) -> None:
        super().__init__(**attributes)
        self._lazy = dict(commands)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        command = self._lazy.get(cmd_name)
        if isinstance(command, LazyCommand):
            module, _, attribute = command.target.partition(":")
            command = getattr(importlib.import_module(module), attribute)
        if command is None:
            return None
        settings = (ctx.default_map or {}).get(cmd_name)
        if settings is not None:
            check_settings(command, settings, (*_names_below_the_root(ctx), cmd_name))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        # Indentation and gaps of click's own listing.
        width = formatter.width - 6 - max(map(len, self._lazy), default=0)
        rows = [
            (
                name,
                known.help if isinstance(known, LazyCommand) else known.get_short_help_str(width),
            )
            for name, known in self._lazy.items()
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _names_below_the_root(ctx: click.Context) -> tuple[str, ...]:
    if ctx.parent is None:
        return ()
    return (*_names_below_the_root(ctx.parent), ctx.info_name or "")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a complaint about a name that does not exist; "" if none is like it."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def check_settings(
    command: click.Command, settings: Mapping[str, Any], path: tuple[str, ...]
) -> None:
    """Raises click.UsageError for a table or setting that the command does not have."""
    table = ".".join(path)
    if not isinstance(settings, Mapping):
        raise click.UsageError(f"configuration: {table!r} must be a table: [{table}]")
    inner: Mapping[str, LazyCommand | click.Command] = {}
    if isinstance(command, LazyGroup):
        inner = command._lazy
    elif isinstance(command, click.Group):
        inner = command.commands
    options = {
        option.name: option
        for option in command.params
        if isinstance(option, click.Option) and option.name
    }
    for name, value in settings.items():
        if name in inner:
            known_inside = inner[name]
            # What is not loaded yet is checked when it is.
            if not isinstance(known_inside, LazyCommand):
                check_settings(known_inside, value, (*path, name))
        elif name not in options:
            known = ", ".join(sorted([*inner, *options])) or "none"
            raise click.UsageError(
                f"configuration: [{table}] has no setting {name!r}; known: {known}"
                f"{did_you_mean(name, (*inner, *options))}"
            )
        elif isinstance(value, Mapping):
            raise click.UsageError(f"configuration: {name!r} in [{table}] must be a value")
