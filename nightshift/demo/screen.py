"""What the demo shows while it runs: moving on a terminal, a line for each event elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from nightshift.demo.course import Course, Evaluation, metric

#: Ended rounds that the live table shows.
SHOWN_ROUNDS = 8

#: Columns of a line in a file or a pipe.
WIDTH = 100


class Screen:
    """Progress on a console.

    Args:
        console: A terminal, a pipe or a file.
        rounds: To commit.
    """

    def __init__(self, console: Console, *, rounds: int) -> None:
        self.console = console
        self._rounds = rounds
        self._began = time.monotonic()
        self._told: set[str] = set()

    @contextmanager
    def step(self, what: str) -> Iterator[Callable[[str], None]]:
        """Shows `what` as long as it lasts; the function given shows a detail beside it."""
        if not self.console.is_terminal:
            self.say(f"{what} …")
            yield lambda _: None
            return
        with self.console.status(f"{what} …") as status:
            yield lambda detail: status.update(Text(f"{what}: {detail} …"))

    def say(self, text: str) -> None:
        """Plain text that stays; lines are never broken."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def course(self) -> Iterator[Callable[[Course], None]]:
        """Shows the course with which the function given was last called."""
        if not self.console.is_terminal:
            yield self._tell
            return
        progress = Progress(
            TextColumn("[bold]rounds committed"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self.console,
        )
        bar = progress.add_task("rounds", total=self._rounds)
        with Live(progress, console=self.console, refresh_per_second=4) as live:

            def show(course: Course) -> None:
                progress.update(bar, completed=len(course.committed))
                live.update(Group(course_table(course), progress, waiting_for(course)))

            yield show

    def _tell(self, course: Course) -> None:
        for record in course.rounds:
            if self._is_news(record["round_id"]):
                self.say(f"{self._seconds()}  {_sentence(record)}")
        for evaluation in course.evaluations:
            if self._is_news(f"evaluation {evaluation.model_round}"):
                self.say(
                    f"{self._seconds()}  model {evaluation.model_round}: accuracy "
                    f"{_measured(evaluation)} held out"
                )

    def _is_news(self, what: str) -> bool:
        news = what not in self._told
        self._told.add(what)
        return news

    def _seconds(self) -> str:
        return f"{time.monotonic() - self._began:5.0f} s"


def course_table(course: Course) -> Table:
    """The last rounds; fits 80 columns."""
    table = Table(box=None, header_style="bold")
    for column in ("round", "outcome", "selected", "accepted", "seconds", "loss"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("held-out accuracy", overflow="fold")
    evaluations = {evaluation.model_round: evaluation for evaluation in course.evaluations}
    for record in course.rounds[-SHOWN_ROUNDS:]:
        number = record["number"]
        committed = record["outcome"] == "committed"
        measured = evaluations.get(number) if committed else None
        note = f"[green]{_measured(measured)}[/]" if measured else ""
        table.add_row(
            str(number),
            record["outcome"],
            str(record["statistics"].get("selected", "")),
            str(record["statistics"].get("accepted", "")),
            f"{record['ended_at'] - record['opened_at']:.1f}",
            f"{metric(record['metrics'], 'loss'):.3f}" if committed else "",
            note if committed else f"[yellow]{record['reason']}[/]",
        )
    return table


def waiting_for(course: Course) -> Text:
    """What has to happen next, and what the devices are doing."""
    if course.finished:
        return Text("")
    if course.training.get("status") == "completed":
        what = f"measuring model {course.training['head_round']}"
    elif course.open_rounds:
        what = f"round {course.open_rounds[0]['number']} is open"
    else:
        what = "between rounds"
    now = course.population.get("now", {})
    waiting, computing = int(now.get("waiting", 0)), int(now.get("selected", 0))
    uploading = int(now.get("reported", 0) + now.get("adding", 0))
    return Text(
        f"{what}; devices: {waiting} waiting, {computing} computing, {uploading} uploading",
        style="dim",
    )


def _sentence(record: dict[str, Any]) -> str:
    number = record["number"]
    statistics = record["statistics"]
    devices = f"{statistics.get('accepted', 0)} of {statistics.get('selected', 0)} devices"
    seconds = f"{record['ended_at'] - record['opened_at']:.1f} s"
    if record["outcome"] != "committed":
        return f"round {number} abandoned after {seconds}: {record['reason']}, {devices}"
    loss = metric(record["metrics"], "loss")
    return f"round {number} committed in {seconds}: {devices}, loss {loss:.3f}"


def _measured(evaluation: Evaluation) -> str:
    return f"{evaluation.accuracy:.3f} on {evaluation.devices} devices"
