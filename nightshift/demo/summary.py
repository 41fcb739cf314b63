"""The demo's end: a table on the screen, a JSON file and a plot."""

import json
import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from nightshift.demo.course import Course

#: Session shapes that the table shows.
SHOWN_SHAPES = 6

#: Columns of a row's name.
LABEL_WIDTH = 18


def summarize(course: Course, *, seconds: float, model: Path) -> dict[str, Any]:
    """What summary.json holds."""
    evaluations = sorted(
        # JSON has no NaN, and a model without that metric has no accuracy.
        (e for e in course.evaluations if math.isfinite(e.accuracy)),
        key=lambda e: e.model_round,
    )
    return {
        "held_out_accuracy": evaluations[-1].accuracy if evaluations else None,
        "held_out_accuracy_by_round": {str(e.model_round): e.accuracy for e in evaluations},
        "rounds_committed": len(course.committed),
        "rounds_abandoned": len(course.abandoned),
        "abandoned_because": sorted({record["reason"] for record in course.abandoned}),
        "session_shapes": {
            entry["shape"]: entry["sessions"]
            for entry in course.population.get("session_shapes", [])
        },
        "bytes_up": course.population.get("bytes_up", 0),
        "bytes_down": course.population.get("bytes_down", 0),
        "seconds": round(seconds, 1),
        "model": str(model),
    }


def write_summary(summary: dict[str, Any], directory: Path) -> None:
    """Writes summary.json and accuracy.png."""
    (directory / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    # matplotlib takes a second to import and needs no display with this backend.
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    points = summary["held_out_accuracy_by_round"]
    figure, axes = pyplot.subplots(figsize=(7, 4))
    axes.plot([int(number) for number in points], list(points.values()), marker="o")
    axes.set_xlabel("committed rounds")
    axes.set_ylabel("accuracy on held-out devices")
    axes.set_ylim(0, 1)
    axes.grid(alpha=0.3)
    axes.set_title("Handwritten digits, trained on devices at night")
    figure.tight_layout()
    figure.savefig(directory / "accuracy.png", dpi=120)
    pyplot.close(figure)


def print_summary(summary: dict[str, Any], directory: Path, console: Console) -> None:
    """Shows the summary and what to try next."""
    table = Table(title="Nightshift demo", show_header=False, title_style="bold", box=None)
    table.add_column(style="bold", min_width=LABEL_WIDTH)
    table.add_column()
    accuracy = summary["held_out_accuracy"]
    table.add_row(
        "held-out accuracy", "never evaluated" if accuracy is None else f"[green]{accuracy:.4f}"
    )
    table.add_row(
        "  after round",
        "   ".join(
            f"{number}: {value:.3f}"
            for number, value in summary["held_out_accuracy_by_round"].items()
        ),
    )
    table.add_row("rounds committed", str(summary["rounds_committed"]))
    abandoned = str(summary["rounds_abandoned"])
    if summary["abandoned_because"]:
        abandoned += f"  ({', '.join(summary['abandoned_because'])})"
    table.add_row("rounds abandoned", abandoned)
    shapes = sorted(summary["session_shapes"].items(), key=lambda entry: -entry[1])
    table.add_row(
        "session shapes",
        # Not markup, whatever its brackets look like.
        Text("   ".join(f"{shape} x{count:,}" for shape, count in shapes[:SHOWN_SHAPES])),
    )
    table.add_row("bytes up / down", f"{summary['bytes_up']:,} / {summary['bytes_down']:,}")
    table.add_row("seconds", f"{summary['seconds']:.1f}")
    console.print()
    console.print(table)
    for name, file in (
        ("model", summary["model"]),
        ("plot", directory / "accuracy.png"),
        ("all of this", directory / "summary.json"),
    ):
        # Paths stay whole, so that they can be copied.
        console.print(f" [bold]{name:{LABEL_WIDTH}}[/]  {file}", highlight=False, soft_wrap=True)
    console.print()
    console.print(
        "In a shape, [bold]-[/] is a check-in, [bold]v[/] the plan downloaded, "
        "[bold]\\[[/] and [bold]][/] the computation started and completed, [bold]+[/] and "
        "[bold]^[/] the upload, [bold]#[/] an upload that was refused or too late, "
        "[bold]![/] an interruption, [bold]*[/] an error.",
        highlight=False,
    )
    console.print(
        "\nTry next:\n"
        f"  nightshift serve --data-dir {directory / 'server'}     # look around after the demo\n"
        f"  nightshift task list --data-dir {directory / 'server'}\n"
        f"  nightshift plan show {directory / 'digits.plan'}\n"
        "  nightshift demo --devices 300 --rounds 60 --seed 2\n"
        "  and examples/digits_task.py: change the model, build your own plan",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
