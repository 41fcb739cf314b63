"""What Bonawitz et al. 2019 report of their fleet, beside what was simulated.

The figures are those of section 9 and appendix A: a population of the United
States, up to ten million active devices a day.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Comparison:
    """One figure.

    Attributes:
        agrees: None where the paper gives no number to compare with.
        why: What explains a difference, or the agreement.
    """

    figure: str
    paper: str
    ours: str
    agrees: bool | None
    why: str


def compare(summary: Mapping[str, Any], *, steered: bool) -> Iterator[Comparison]:
    """The rows of the table; ``summary`` is that of one run's figures."""
    factor = summary["day_factor_available"]
    yield Comparison(
        "available devices, fullest over emptiest hour",
        "4",
        _number(factor),
        None if factor is None else 3 <= factor <= 5.5,
        "an assumption, not a result: the habits were chosen to give it",
    )
    selected = summary["day_factor_selected"]
    yield Comparison(
        "participating devices, fullest over emptiest hour",
        "4",
        _number(selected),
        None if selected is None else 3 <= selected <= 5.5,
        "ours is flat as long as one task can be filled at any hour; theirs are all "
        "tasks of a fleet",
    )
    drop_out = summary["drop_out_rate"]
    yield Comparison(
        "drop-out (computation, network, eligibility)",
        "6-10 %",
        _percent(drop_out),
        0.06 <= drop_out <= 0.10,
        "follows from --failures, --loss and --pickups",
    )
    if least_and_most := summary["drop_out_rate_least_and_most_by_hour"]:
        least, most = least_and_most
        yield Comparison(
            "drop-out by hour, least and most",
            "higher by day",
            f"{_percent(least)} and {_percent(most)}",
            most > least,
            "people pick phones up by day, and charge them for a shorter time",
        )
    over = summary["rounds"]["selected_over_goal"]
    yield Comparison(
        "selected over the goal",
        "130 %",
        "–" if over is None else _percent(over),
        None if over is None else 1.15 <= over <= 1.4,
        "--over-selection, or with --adaptive what the drop-out asks for",
    )
    late = summary["too_late_rate"]
    yield Comparison(
        "completed, but no longer needed",
        "22 %",
        _percent(late),
        0.15 <= late <= 0.3,
        "what over-selection leaves when drop-out is lower than it allows for",
    )
    at_most = summary["participating_at_most"]
    yield Comparison(
        "participating at the same time",
        "up to 10,000",
        f"{at_most:,}",
        None,
        "theirs is the sum over many tasks; grows with --goal",
    )
    peak = summary["arrivals"]["peak_over_mean"]
    yield Comparison(
        "arrivals per second, peak over mean",
        "not given",
        _number(peak),
        None,
        "with pace steering" if steered else "without pace steering",
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"
