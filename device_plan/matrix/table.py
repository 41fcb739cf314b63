"""The table of TFLite runtimes that plans are tried on."""

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args

from device_plan.runtimes import FAMILIES, Family, parse

Install = Literal["light", "heavy"]

#: Choices of `select` beside names.
GROUPS = ("all", "light", "none")


class InvalidTable(ValueError):
    """The table cannot be used, or a runtime is not in it; the message says where."""


@dataclass(frozen=True, kw_only=True)
class RuntimeSpec:
    """One TFLite runtime and how to get it.

    Attributes:
        name: "<distribution> <version>", as plans and devices name it.
        family: Runtimes of one family and version share their C++ library.
        python: The Python that has wheels for it, e.g. "3.9".
        requirements: What pip installs.
        interpreter: The module with the class Interpreter.
        install: "light" if it installs in seconds, "heavy" for a whole TensorFlow.
    """

    name: str
    family: Family
    python: str
    requirements: tuple[str, ...]
    interpreter: str
    install: Install

    @property
    def distribution(self) -> str:
        return self.name.partition(" ")[0]


def read_table(path: Path | None = None) -> tuple[RuntimeSpec, ...]:
    """The runtimes of a TOML file; without a path, those that come with Nightshift.

    Raises:
        InvalidTable: the file cannot be read, or an entry is incomplete or wrong.
    """
    where = "runtimes.toml" if path is None else str(path)
    try:
        if path is None:
            text = files("device_plan.matrix").joinpath("runtimes.toml").read_text("utf-8")
        else:
            text = path.read_text("utf-8")
        tables = tomllib.loads(text)
    except OSError as error:
        raise InvalidTable(f"cannot read the table {where}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidTable(f"{where}: {error}") from error
    entries = tables.pop("runtime", [])
    if tables or not isinstance(entries, list) or not entries:
        raise InvalidTable(f"{where}: expected one or more [[runtime]] and nothing else")
    runtimes = tuple(
        _runtime(f"{where}, runtime {number}", entry)
        for number, entry in enumerate(entries, start=1)
    )
    names = [runtime.name for runtime in runtimes]
    for name in names:
        if names.count(name) > 1:
            raise InvalidTable(f"{where}: {name!r} is there twice")
    return runtimes


def select(table: Sequence[RuntimeSpec], choice: str) -> tuple[RuntimeSpec, ...]:
    """The runtimes that `choice` names, in the table's order.

    Args:
        table: All runtimes.
        choice: "all", "light", "none", or names separated by commas; a name
            without its version stands for all versions.

    Raises:
        InvalidTable: a name is not in the table.
    """
    if choice in GROUPS:
        return tuple(
            runtime
            for runtime in table
            if choice == "all" or (choice == "light" and runtime.install == "light")
        )
    wanted = [name for part in choice.split(",") if (name := " ".join(part.split()))]
    for name in wanted:
        if not any(name in (runtime.name, runtime.distribution) for runtime in table):
            raise InvalidTable(
                f"no runtime {name!r} in the table; it has: "
                + ", ".join(runtime.name for runtime in table)
                + f"; or say {', '.join(GROUPS[:-1])} or {GROUPS[-1]}"
            )
    return tuple(
        runtime for runtime in table if runtime.name in wanted or runtime.distribution in wanted
    )


def _runtime(where: str, entry: Any) -> RuntimeSpec:
    if not isinstance(entry, dict):
        raise InvalidTable(f"{where} is not a table")
    name = entry.get("name")
    if isinstance(name, str):
        where = f"{where} ({name})"
    keys = RuntimeSpec.__dataclass_fields__
    for key in keys:
        if key not in entry:
            raise InvalidTable(f"{where} lacks {key!r}")
    for key in entry:
        if key not in keys:
            raise InvalidTable(f"{where} has {key!r}, which is not one of {', '.join(keys)}")
    requirements = entry["requirements"]
    if not isinstance(requirements, list) or not all(
        isinstance(requirement, str) and not requirement.startswith("-")
        for requirement in requirements
    ):
        raise InvalidTable(f"{where}: requirements must be a list of what pip may install")
    for key, pattern, meaning in (
        ("name", r"[A-Za-z0-9._-]+ \d+(\.\w+)*", '"<distribution> <version>"'),
        ("family", "|".join(get_args(Family)), " or ".join(get_args(Family))),
        ("python", r"3\.\d+", 'a version such as "3.11"'),
        ("interpreter", r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", "a module's dotted name"),
        ("install", "|".join(get_args(Install)), " or ".join(get_args(Install))),
    ):
        if not isinstance(entry[key], str) or not re.fullmatch(pattern, entry[key]):
            raise InvalidTable(f"{where}: {key} must be {meaning}, not {entry[key]!r}")
    known = parse(entry["name"])
    if known is None or known.family != entry["family"]:
        raise InvalidTable(
            f"{where}: name and family must agree, so that devices are matched: known are "
            + ", ".join(f"{name} ({family})" for name, family in FAMILIES.items())
        )
    return RuntimeSpec(**{**entry, "requirements": tuple(requirements)})
