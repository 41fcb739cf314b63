"""What a person sees of a simulation: tables and small plots in the terminal."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from server.simulation.paper import compare

BARS = "▁▂▃▄▅▆▇█"

#: By hour, in the order of the table.
_BY_HOUR = (
    ("available", "available_share"),
    ("check-ins", "check_ins"),
    ("peak arrivals/s", "arrivals_peak_per_s"),
    ("turned away", "turned_away"),
    ("selected", "selected"),
    ("participating", "participating"),
    ("drop-out", "drop_out"),
    ("rounds committed", "rounds_committed"),
)


def sparkline(values: Sequence[float], *, width: int = 72) -> str:
    """The values as bars from zero to their maximum, means of neighbours if there are many."""
    if not values:
        return ""
    size = math.ceil(len(values) / width)
    groups = [values[start : start + size] for start in range(0, len(values), size)]
    means = [sum(group) / len(group) for group in groups]
    most = max(means)
    if most <= 0:
        return BARS[0] * len(means)
    return "".join(BARS[min(7, int(8 * max(0.0, mean) / most))] for mean in means)


def print_report(result: Mapping[str, Any], console: Console) -> None:
    """Prints all runs of a result."""
    runs: Mapping[str, Any] = result["runs"]
    for name, figures in runs.items():
        console.print(_hours(name, figures["by_hour"]))
    console.print(_outcome(runs))
    name = "steered" if "steered" in runs else "unsteered"
    console.print(_beside_the_paper(runs[name]["summary"], steered=name == "steered"))


def _hours(name: str, by_hour: Mapping[str, Any]) -> Table:
    pace = "with pace steering" if name == "steered" else "without pace steering"
    table = Table(title=f"By hour, {pace} (UTC, from midnight)", title_justify="left", box=None)
    table.add_column("", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("least", justify="right")
    table.add_column("most", justify="right")
    drops = zip(by_hour["interrupted"], by_hour["failed"], by_hour["vanished"], strict=True)
    drop_out = [
        sum(each) / selected if selected else 0.0
        for each, selected in zip(drops, by_hour["selected"], strict=True)
    ]
    for label, key in _BY_HOUR:
        values = drop_out if key == "drop_out" else by_hour[key]
        if values:
            shares = key in ("drop_out", "available_share")
            least, most = (
                f"{100 * value:.1f} %" if shares else f"{value:,.0f}"
                for value in (min(values), max(values))
            )
            table.add_row(label, sparkline(values), least, most)
    return table


def _outcome(runs: Mapping[str, Any]) -> Table:
    summaries = {name: figures["summary"] for name, figures in runs.items()}
    from_hour = next(iter(summaries.values()))["from_hour"]
    title = f"From hour {from_hour} on" if from_hour else "In all"
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for name in summaries:
        heading = "with pace steering" if name == "steered" else "without"
        table.add_column(heading, justify="right")
    for label, value in _ROWS:
        table.add_row(label, *(value(summary) for summary in summaries.values()))
    return table


def _beside_the_paper(summary: Mapping[str, Any], *, steered: bool) -> Table:
    table = Table(title="Beside Bonawitz et al. 2019, section 9", title_justify="left")
    for heading in ("figure", "paper", "ours", "", "why"):
        table.add_column(heading)
    marks = {True: "[green]alike[/]", False: "[yellow]differs[/]", None: ""}
    for row in compare(summary, steered=steered):
        table.add_row(row.figure, row.paper, row.ours, marks[row.agrees], row.why)
    return table


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def _seconds(summary: Mapping[str, Any], phase: str) -> str:
    found = summary["rounds"]["seconds"][phase]
    return " / ".join(f"{found[each]:.0f}" for each in ("p50", "p95", "most")) if found else "–"


def _herd(found: Mapping[str, Any] | None) -> str:
    if found is None or found["peak_over_mean"] is None:
        return "–"
    return f"{found['peak_per_s']:,} / {found['mean_per_s']:,.2f} = {found['peak_over_mean']:.1f}"


def _factor(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


_ROWS: tuple[tuple[str, Callable[[Mapping[str, Any]], str]], ...] = (
    ("check-ins", lambda s: f"{s['sum_of_check_ins']:,}"),
    ("of those answered: selected", lambda s: _percent(s["accept_rate"])),
    ("of those answered: turned away", lambda s: _percent(s["turned_away_rate"])),
    ("refused for their runtime", lambda s: f"{s['sum_of_unsupported']:,}"),
    ("no answer (network)", lambda s: _percent(s["no_answer_rate"])),
    ("arrivals/s: peak / mean", lambda s: _herd(s["arrivals"])),
    ("  the day after the wake", lambda s: _herd(s["after_the_wake"])),
    ("check-ins, fullest / emptiest hour", lambda s: _factor(s["day_factor_check_ins"])),
    ("selected, fullest / emptiest hour", lambda s: _factor(s["day_factor_selected"])),
    ("rounds committed", lambda s: f"{s['rounds']['committed']:,}"),
    ("rounds abandoned", lambda s: f"{sum(s['rounds']['abandoned'].values()):,}"),
    ("round, seconds: median / 95 % / most", lambda s: _seconds(s, "whole")),
    ("  selecting", lambda s: _seconds(s, "selecting")),
    ("  reporting", lambda s: _seconds(s, "reporting")),
    ("selected / goal", lambda s: _factor(s["rounds"]["selected_over_goal"])),
    ("drop-out of the selected", lambda s: _percent(s["drop_out_rate"])),
    ("completed, no longer needed", lambda s: _percent(s["too_late_rate"])),
    ("participating at most", lambda s: f"{s['participating_at_most']:,}"),
)
