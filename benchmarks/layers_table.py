"""The table of cases and runtimes, as text and as markdown.

Runtimes of one distribution that stand side by side and give every case the same
variant share a column; a figure is the largest of theirs.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from device_plan.matrix.result import served

if TYPE_CHECKING:
    from benchmarks.layers import Built


def columns(built: Sequence["Built"]) -> list[list[str]]:
    """The runtimes of each column."""
    names = list(dict.fromkeys(name for one in built for name in one.results))
    joined: list[list[str]] = []
    for name in names:
        if joined and _alike(built, joined[-1][-1], name):
            joined[-1].append(name)
        else:
            joined.append([name])
    return joined


def _alike(built: Sequence["Built"], first: str, second: str) -> bool:
    if first.partition(" ")[0] != second.partition(" ")[0]:
        return False
    return all(_variant(one, first) == _variant(one, second) for one in built)


def _variant(one: "Built", runtime: str) -> str | None:
    results = one.results.get(runtime, [])
    if any(result.status == "not run" for result in results):
        return "not run"
    return served(results).get(runtime)


def _heading(runtimes: Sequence[str]) -> str:
    if len(runtimes) == 1:
        return runtimes[0]
    return f"{runtimes[0]} to {runtimes[-1].partition(' ')[2]}"


def cell(one: "Built", runtimes: Sequence[str]) -> str:
    """The largest difference of the variant that is served, or that none passed."""
    if one.error:
        return "no graph"
    variant = _variant(one, runtimes[0])
    if variant == "not run":
        return "not run"
    if variant is None:
        return "fails"
    largest = max(
        result.largest or 0.0
        for runtime in runtimes
        for result in one.results[runtime]
        if result.variant == variant
    )
    return f"{largest:.0e}" + (" (legacy)" if variant == "legacy" else "")


def reasons(built: Sequence["Built"]) -> list[str]:
    """Why cases have no graph, and why runtimes fail, each reason once."""
    found: dict[str, list[str]] = {}
    for one in built:
        if one.error:
            found.setdefault(one.error, []).append(one.name)
        for runtime in one.results:
            if _variant(one, runtime) is None and not one.error:
                why = "; ".join(f"{r.variant}: {r.reason}" for r in one.results[runtime])
                found.setdefault(why, []).append(f"{one.name} on {runtime}")
    return [f"{', '.join(places)}: {why}" for why, places in found.items()]


def text(built: Sequence["Built"]) -> str:
    """For a terminal."""
    return _table(built) + "\n" + "\n".join(reasons(built))


def markdown(built: Sequence["Built"]) -> str:
    """For docs/layers.md: a section a group."""
    parts = []
    for group, members in groupby(built, key=lambda one: one.group):
        parts.append(f"### {group.capitalize()}\n\n{_table(list(members), columns(built))}")
    return "\n".join(parts)


def _table(built: Sequence["Built"], joined: Sequence[Sequence[str]] | None = None) -> str:
    joined = columns(built) if joined is None else joined
    rows = [["", *(_heading(runtimes) for runtimes in joined)]]
    rows.append(["---"] * len(rows[0]))
    rows += [[one.name, *(cell(one, runtimes) for runtimes in joined)] for one in built]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
