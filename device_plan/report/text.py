"""A plan's description as text, readable at 80 columns."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from device_plan.report import quantity, sentences

Description = Mapping[str, Any]


def print_plan(console: Console, plan: Description) -> None:
    """Prints the description that device_plan.report.description.describe gives."""
    for part in _parts(plan):
        console.print(part)


def _parts(plan: Description) -> Iterable[RenderableType]:
    yield _pairs(f"Plan {plan['name']}", sentences.overview(plan))
    # Not in the table, which would break it in two on a narrow terminal.
    yield Text(f"digest {plan['digest']}", overflow="fold")
    for place, variant in enumerate(plan["variants"]):
        yield ""
        yield _pairs(f"Variant {variant['name']}", sentences.variant(variant))
        yield _operations(variant)
        yield _work(variant, plan["batch_size"])
        if not place:
            yield Text(f"{sentences.COUNTING}\n")
        if variant["runtimes"] or variant["measured"]:
            yield _runtimes(variant)
            for reason, names in sentences.failures(variant):
                yield Text(f"{', '.join(names)}: {reason}\n")
    yield ""
    yield _tensors(plan)
    yield _checks(plan["checks"].get("checks", []))
    if plan["provenance"]:
        yield _pairs("Provenance", sentences.provenance(plan["provenance"]))


def _table(title: str, *columns: str) -> Table:
    """Columns whose names begin with ">" are numbers."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        number = column.startswith(">")
        table.add_column(
            column.removeprefix(">"), justify="right" if number else "left", no_wrap=number
        )
    return table


def _pairs(title: str, pairs: Sequence[tuple[str, str]]) -> Table:
    table = Table(
        title=title, title_justify="left", show_header=False, box=box.SIMPLE_HEAD, pad_edge=False
    )
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in pairs:
        table.add_row(label, Text(value))
    return table


def _operations(variant: Description) -> Table:
    names = list(variant["signatures"])
    table = _table(
        f"Operations of {variant['name']}",
        *("operation", ">version", ">since"),
        *(f">{name}" for name in names),
    )
    for op in variant["ops"]:
        counts = (str(op["by_signature"].get(name, "")) for name in names)
        table.add_row(
            op["name"], str(op["version"]), op["min_runtime_version"] or "unknown", *counts
        )
    return table


def _work(variant: Description, batch_size: int) -> Table:
    session = variant["session"]
    table = _table(
        f"Work of {variant['name']}, in batches of {batch_size}",
        *("", ">multiply-adds", ">elements", ">read", ">written", ">ops", ">live"),
    )
    for name, signature in variant["signatures"].items():
        live = quantity.size(signature["activations_peak_bytes"])
        table.add_row(f"one {name}", *_amounts(signature["work"]), live)
    table.add_section()
    table.add_row(f"{session['examples']} examples", *_amounts(session["work"]), "")
    table.add_row("one example", *_amounts(session["work_per_example"]), "")
    return table


def _amounts(work: Mapping[str, float]) -> list[str]:
    return [
        quantity.count(work["multiply_adds"]),
        quantity.count(work["element_operations"]),
        quantity.size(work["bytes_read"]),
        quantity.size(work["bytes_written"]),
        quantity.count(work["operations"]),
    ]


def _runtimes(variant: Description) -> Table:
    table = _table(
        f"Runtimes of {variant['name']}",
        *("runtime", "result", ">difference", ">a step", ">peak memory"),
    )
    for row in sentences.runtimes(variant):
        result = Text(row.result, style=_STYLES.get(row.status, ""))
        table.add_row(row.name, result, row.difference, row.step, row.memory)
    return table


_STYLES = {"passed": "green", "failed": "bold red", "not run": "dim"}


def _tensors(plan: Description) -> Table:
    table = _table("Tensors", "part", "name", "dtype", "shape")
    for group, specs in plan["tensors"].items():
        for index, spec in enumerate(specs):
            table.add_row(
                "" if index else group,
                Text(spec["name"], overflow="fold"),
                spec["dtype"],
                sentences.shape(spec["shape"]),
            )
        table.add_section()
    return table


def _checks(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = _table("Release checks", "check", "result", "found")
    for row in rows:
        passed = Text("passed", "green") if row["passed"] else Text("FAILED", "bold red")
        table.add_row(row["name"], passed, Text(row["summary"]))
    return table
