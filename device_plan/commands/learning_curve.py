"""A simulation's course for people: table, JSON, CSV and plot."""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    from device_plan.compiler.simulation import SimulatedRound
    from device_plan.predicates import Verdict

_BLOCKS = "▁▂▃▄▅▆▇█"

#: Characters of a curve in the table.
_WIDTH = 40

#: Counted rather than learned; their curves tell nothing.
_COUNTS = ("num_examples", "num_batches")


def sparkline(values: Sequence[float], width: int = _WIDTH) -> str:
    """The values as blocks of eight heights, the lowest value the lowest block.

    Of more values than `width`, evenly spaced ones are shown, the first and the last among
    them. What is not finite is a space.
    """
    if len(values) > width:
        last = len(values) - 1
        values = [values[round(place * last / (width - 1))] for place in range(width)]
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    top = len(_BLOCKS) - 1
    return "".join(
        _BLOCKS[round((value - low) / (high - low) * top) if high > low else 0]
        if math.isfinite(value)
        else " "
        for value in values
    )


def curves(rounds: Iterable["SimulatedRound"]) -> dict[str, list[tuple[int, float]]]:
    """(round, value) of each metric: "held-out NAME" of evaluations, "training NAME" of rounds."""
    found: dict[str, list[tuple[int, float]]] = {}
    for done in rounds:
        for kind, metrics in (("held-out", done.evaluation or {}), ("training", done.training)):
            for name, value in metrics.items():
                found.setdefault(f"{kind} {name}", []).append((done.number, value))
    return dict(sorted(found.items(), key=lambda item: not item[0].startswith("held-out")))


def curves_table(rounds: Sequence["SimulatedRound"]) -> Table:
    table = Table(title="Learning curves", title_justify="left")
    table.add_column("metric")
    for column in ("first", "best", "last"):
        table.add_column(column, justify="right")
    table.add_column(f"rounds 0 to {rounds[-1].number}" if rounds else "rounds", no_wrap=True)
    for name, points in curves(rounds).items():
        kind, _, metric = name.partition(" ")
        # What a process's aggregators and finalizer report is for the files.
        if metric in _COUNTS or (kind == "training" and "/" in metric):
            continue
        values = [value for _, value in points]
        # A metric whose name says loss or error is better when it is low.
        best = min if any(word in name for word in ("loss", "error")) else max
        finite = [value for value in values if math.isfinite(value)]
        shown = [values[0], best(finite) if finite else math.nan, values[-1]]
        table.add_row(name, *(f"{value:.4g}" for value in shown), sparkline(values))
    return table


def verdicts_table(verdicts: Iterable["Verdict"]) -> Table:
    table = Table(title="Predicates", title_justify="left")
    for column in ("metric", "asks", "rounds", "value", "result"):
        table.add_column(column)
    for verdict in verdicts:
        predicate = verdict.predicate
        table.add_row(
            predicate.metric,
            predicate.asks,
            str(predicate.after_rounds),
            f"{verdict.value:.4g}",
            "[green]holds[/]" if verdict.holds else "[bold red]FAILS[/]",
        )
    return table


def as_json(
    settings: Mapping[str, Any],
    rounds: Iterable["SimulatedRound"],
    verdicts: Iterable["Verdict"],
) -> str:
    """The whole simulation; numbers that are not finite are null, for JSON has none."""
    return json.dumps(
        {
            **settings,
            "rounds": [
                {
                    "number": done.number,
                    "clients": list(done.clients),
                    "training": _finite(done.training),
                    "evaluation": None if done.evaluation is None else _finite(done.evaluation),
                    "seconds": round(done.seconds, 3),
                }
                for done in rounds
            ],
            "predicates": [
                {
                    "metric": verdict.predicate.metric,
                    "at_least": verdict.predicate.at_least,
                    "at_most": verdict.predicate.at_most,
                    "after_rounds": verdict.predicate.after_rounds,
                    "value": verdict.value if math.isfinite(verdict.value) else None,
                    "holds": verdict.holds,
                }
                for verdict in verdicts
            ],
        },
        indent=2,
    )


def as_csv(rounds: Sequence["SimulatedRound"]) -> str:
    """One line a round; a metric that the round does not have is empty."""
    names = list(curves(rounds))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["round", "clients", "seconds", *names])
    for done in rounds:
        values = {name: point[0][1] for name, point in curves([done]).items()}
        writer.writerow(
            [
                done.number,
                len(done.clients),
                f"{done.seconds:.3f}",
                *(values.get(name, "") for name in names),
            ]
        )
    return text.getvalue()


def write_plot(path: Path, title: str, rounds: Sequence["SimulatedRound"]) -> None:
    """One panel a metric, on held-out clients and in training, as a PNG file.

    Raises:
        OSError: the file cannot be written.
    """
    # Takes a second to import, and only this needs it.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for name, points in curves(rounds).items():
        kind, _, metric = name.partition(" ")
        # What only the training has is of its aggregators: no learning curve.
        if metric not in _COUNTS and (kind == "held-out" or metric in panels):
            panels.setdefault(metric, {})[kind] = points
    figure = Figure(figsize=(6.4, 1 + 2.6 * max(1, len(panels))), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(max(1, len(panels)), 1, sharex=True, squeeze=False)
    for axis, (metric, lines) in zip(axes[:, 0], panels.items(), strict=False):
        for kind, points in lines.items():
            marker = "o" if kind == "held-out" else ""
            axis.plot(*zip(*points, strict=True), label=kind, marker=marker, markersize=3)
        axis.set_ylabel(metric)
        axis.grid(visible=True, alpha=0.3)
        axis.legend()
    axes[-1, 0].set_xlabel("round")
    FigureCanvasAgg(figure).print_png(path)


def _finite(metrics: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}
