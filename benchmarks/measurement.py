"""What a benchmark reports: a figure, its named baseline of the same run, and their ratio."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median

from rich.table import Table


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One row of the table.

    Attributes:
        what: Was measured.
        value: Ours.
        baseline: What it is compared with, or 0 where the target is absolute.
        baseline_name: Its name.
        unit: Of both.
        target: What the ratio (or, without a baseline, the value) should be.
        met: Whether it is.
    """

    what: str
    value: float
    unit: str
    target: str
    met: bool
    baseline: float = 0.0
    baseline_name: str = ""

    @property
    def ratio(self) -> float | None:
        return self.value / self.baseline if self.baseline else None


def table(title: str, rows: Iterable[Measurement]) -> Table:
    """The measurements for people, a row each."""
    found = Table(title=title)
    for column in ("what", "ours", "baseline", "ratio", "target", ""):
        found.add_column(column)
    for row in rows:
        found.add_row(
            row.what,
            f"{row.value:.3g} {row.unit}",
            f"{row.baseline:.3g} {row.unit}: {row.baseline_name}" if row.baseline else "",
            f"{row.ratio:.3g}x" if row.ratio is not None else "",
            row.target,
            "met" if row.met else "not met",
        )
    return found


def alternate(
    ours: Callable[[], object], baseline: Callable[[], object], *, runs: int
) -> tuple[float, float]:
    """Median seconds of both, measured in turn so that a drifting machine favours neither."""
    ours()
    baseline()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(runs):
        for function, taken in zip((ours, baseline), times, strict=True):
            started = time.perf_counter()
            function()
            taken.append(time.perf_counter() - started)
    return median(times[0]), median(times[1])
