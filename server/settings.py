"""Settings declared once: as the fields of a frozen dataclass.

From a field come its option on the command line, its environment variable, its
key in a configuration file, its bounds and its line in the documentation.
`server/configuration.py` is the declaration.
"""

import dataclasses
import difflib
import os
import types
import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

import click
from click.core import ParameterSource

#: Environment variables are this and the field's name in capitals.
PREFIX = "NIGHTSHIFT_"

#: The table of a configuration file in which server settings stand, whatever the command.
TABLE = "serve"

#: Under this key a context's `meta` has the path of the configuration file.
CONFIGURATION_FILE = "nightshift.configuration_file"

_KEY = "nightshift.setting"


@dataclass(frozen=True, kw_only=True)
class _Meaning:
    help: str
    least: float | None
    above: float | None
    most: float | None
    below: float | None
    option: str | None
    secret: bool


def setting(
    default: Any,
    text: str,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    option: str | None = None,
    secret: bool = False,
) -> Any:
    """A dataclass field that is a setting.

    Args:
        default: Its value unless somebody sets it.
        text: What it is, with its unit; one sentence or two, for --help and the docs.
        least: The least value allowed,
        above: or a bound that is not allowed itself,
        most: the most,
        below: or a bound likewise.
        option: The option's name, if not the field's.
        secret: The value may hold a password, which is not shown.
    """
    meaning = _Meaning(
        help=text, least=least, above=above, most=most, below=below, option=option, secret=secret
    )
    return dataclasses.field(default=default, metadata={_KEY: meaning})


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One field, as everything derived from it sees it.

    Attributes:
        name: The field's, which is also its key in a file.
        type: Of a value, or of each if there may be several.
        multiple: A tuple of values.
        choices: The words allowed, if it is one of some words.
    """

    name: str
    default: Any
    type: type
    multiple: bool
    choices: tuple[str, ...]
    meaning: _Meaning

    @property
    def option(self) -> str:
        return self.meaning.option or "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return PREFIX + self.name.upper()

    @property
    def bounds(self) -> str:
        """The allowed values as words; "" if any is."""
        meaning = self.meaning
        if self.choices:
            return "one of " + ", ".join(self.choices)
        low = (
            f"from {_number(meaning.least)}"
            if meaning.least is not None
            else f"above {_number(meaning.above)}"
            if meaning.above is not None
            else ""
        )
        high = (
            f"to {_number(meaning.most)}"
            if meaning.most is not None
            else f"to below {_number(meaning.below)}"
            if meaning.below is not None
            else ""
        )
        return " ".join(filter(None, (low, high)))

    def check(self, value: Any) -> None:
        """Raises ValueError, which names the setting, if a value is not allowed."""
        meaning = self.meaning
        if value is None:
            return
        fine = (
            (not self.choices or value in self.choices)
            and (meaning.least is None or value >= meaning.least)
            and (meaning.above is None or value > meaning.above)
            and (meaning.most is None or value <= meaning.most)
            and (meaning.below is None or value < meaning.below)
        )
        if not fine:
            raise ValueError(f"{self.name} must be {self.bounds}, not {value}")

    def shown(self, value: Any) -> Any:
        """The value without what must not be shown."""
        if not self.meaning.secret or "://" not in str(value):
            return value
        from sqlalchemy.engine import make_url

        return make_url(value).render_as_string(hide_password=True)


def settings(declaration: type[Any]) -> tuple[Setting, ...]:
    """The settings of a dataclass, in the order in which they are declared."""
    hints = typing.get_type_hints(declaration)
    return tuple(
        _setting(field, hints[field.name])
        for field in dataclasses.fields(declaration)
        if _KEY in field.metadata
    )


def check(configuration: Any) -> None:
    """Raises ValueError for the first setting whose value is out of its bounds."""
    for known in settings(type(configuration)):
        known.check(getattr(configuration, known.name))


def options(
    declaration: type, *, shown: Collection[str] | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds an option for each setting to a command that is a `SettingsCommand`.

    Args:
        declaration: The settings.
        shown: Those that --help lists; all, if it is None.
    """

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for known in reversed(settings(declaration)):
            command = click.option(
                known.option,
                known.name,
                type=_click_type(known),
                multiple=known.multiple,
                default=None if known.default in (None, "", ()) else known.default,
                envvar=known.variable,
                show_envvar=True,
                hidden=shown is not None and known.name not in shown,
                help=known.meaning.help,
            )(command)
        return command

    return add


class SettingsCommand(click.Command):
    """A command with `options`, which every such command finds in the same places.

    The command line comes first, then the environment, then the file of
    `nightshift --config FILE`: there the command's own table, and for what is not
    in it the table [serve].
    """

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        if parent is not None:
            shared = (parent.find_root().default_map or {}).get(TABLE, {})
            own = (parent.default_map or {}).get(info_name or "", {})
            names = [parameter.name for parameter in self.params if parameter.name]
            for name in shared:
                if name not in names:
                    near = nearest(name, names)
                    hint = f"; did you mean {near!r}?" if near else ""
                    raise click.UsageError(
                        f"configuration: [{TABLE}] has no setting {name!r}{hint}"
                    )
            extra.setdefault("default_map", {**shared, **own})
        return super().make_context(info_name, args, parent=parent, **extra)


def given(context: click.Context, declaration: type) -> dict[str, Any]:
    """The values of a context's options that are settings, those that are None left out."""
    names = {known.name for known in settings(declaration)}
    return {
        name: value for name, value in context.params.items() if name in names and value is not None
    }


def origin(context: click.Context, known: Setting) -> str:
    """Where a setting's value came from, e.g. "NIGHTSHIFT_PORT" or "default"."""
    match context.get_parameter_source(known.name):
        case ParameterSource.COMMANDLINE:
            return known.option
        case ParameterSource.ENVIRONMENT:
            own = f"{context.auto_envvar_prefix}_{known.name.upper()}"
            return known.variable if os.environ.get(known.variable) else own
        case ParameterSource.DEFAULT_MAP:
            return str(context.find_root().meta.get(CONFIGURATION_FILE, "the file"))
        case _:
            return "default"


def check_environment(declaration: type, environment: Mapping[str, str]) -> None:
    """Raises ValueError for a variable whose name is nearly that of a setting.

    Others that begin like ours are left alone: other commands have theirs, and
    Kubernetes makes some for every service of a namespace.
    """
    names = [known.name.upper() for known in settings(declaration)]
    for variable in environment:
        if not variable.startswith(PREFIX):
            continue
        name = variable.removeprefix(PREFIX)
        name = name.removeprefix(TABLE.upper() + "_")
        if name not in names and (near := nearest(name, names, cutoff=0.85)):
            raise ValueError(f"{variable} is no setting; did you mean {PREFIX}{near}?")


def nearest(name: str, names: list[str], *, cutoff: float = 0.6) -> str | None:
    """The name that looks most like one that does not exist, if any looks like it."""
    found = difflib.get_close_matches(name, names, n=1, cutoff=cutoff)
    return found[0] if found else None


def _setting(field: "dataclasses.Field[Any]", hint: Any) -> Setting:
    choices: tuple[str, ...] = ()
    if isinstance(hint, types.UnionType):
        (hint,) = (part for part in get_args(hint) if part is not type(None))
    multiple = get_origin(hint) is tuple
    if multiple:
        hint = get_args(hint)[0]
    if get_origin(hint) is typing.Literal:
        choices, hint = get_args(hint), str
    return Setting(
        name=field.name,
        default=field.default,
        type=hint,
        multiple=multiple,
        choices=choices,
        meaning=field.metadata[_KEY],
    )


def _click_type(known: Setting) -> click.ParamType:
    if known.choices:
        return click.Choice(known.choices)
    if known.type is Path:
        return click.Path(path_type=Path)
    return click.types.convert_type(known.type)


def _number(value: float | None) -> str:
    return f"{value:g}" if value is not None and abs(value) < 1e6 else str(value)


def markdown_table(declaration: type) -> str:
    """The settings as the table of docs/configuration.md."""
    lines = ["| option | default | allowed | meaning |", "|---|---|---|---|"]
    for known in settings(declaration):
        default = "" if known.default in (None, "", ()) else f"`{known.default}`"
        allowed = ", ".join(filter(None, (known.bounds, "repeatable" if known.multiple else "")))
        lines.append(f"| `{known.option}` | {default} | {allowed} | {known.meaning.help} |")
    return "\n".join(lines) + "\n"
