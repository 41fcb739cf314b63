"""The figures of a simulation as one picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: Of the two runs, so that they are told apart in print too.
_STYLE = {"steered": ("C0", "-"), "unsteered": ("C3", "--")}


def save_plot(result: Mapping[str, Any], path: Path) -> None:
    """Writes a PNG: participation, arrivals, drop-out and rounds by hour.

    Raises:
        OSError: the file cannot be written.
    """
    # matplotlib takes a second to import.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 11), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(5, 1, sharex=True)
    for name, figures in result["runs"].items():
        colour, line = _STYLE[name]
        by_hour = figures["by_hour"]
        drops = zip(by_hour["interrupted"], by_hour["failed"], by_hour["vanished"], strict=True)
        drop_out = [
            100 * sum(each) / selected if selected else None
            for each, selected in zip(drops, by_hour["selected"], strict=True)
        ]
        minutes = figures["arrivals_by_minute"]
        style = {"color": colour, "linestyle": line, "label": name}
        hours = range(len(by_hour["check_ins"]))
        panels[0].plot(hours, [100 * share for share in by_hour["available_share"]], **style)
        panels[1].plot(
            [minute / 60 for minute in range(len(minutes))],
            [max(arrivals / 60, 1e-3) for arrivals in minutes],
            linewidth=0.7,
            **style,
        )
        panels[2].plot(hours, by_hour["participating"], **style)
        panels[3].plot(hours, [None if d is None else float(d) for d in drop_out], **style)
        panels[4].plot(hours, by_hour["rounds_committed"], **style)
    panels[1].set_yscale("log")
    labels = (
        *("available devices, %", "arrivals per second", "participating"),
        *("drop-out, %", "rounds committed per hour"),
    )
    for panel, label in zip(panels, labels, strict=True):
        panel.set_ylabel(label)
        panel.grid(alpha=0.3)
        if panel is not panels[1]:
            panel.set_ylim(bottom=0)
    panels[1].legend()
    panels[-1].set_xlabel("hours from midnight UTC")
    scenario = result["scenario"]
    panels[0].set_title(f"{scenario['devices']:,} devices, goal {scenario['cohort']['goal_count']}")
    figure.savefig(path, dpi=110, format="png")
