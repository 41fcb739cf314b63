"""Does the running system learn as well as TFF's simulation of the same task?

    python -m benchmarks accuracy [TASK_FILE] [--rounds N] [--clients N] [--plan FILE]

The task's plan is built in a process of its own and run by `nightshift serve`
with a virtual device for each client of the task's proxy data. Then TFF simulates
the task from the same initial weights, once with exactly the clients whose updates
the server committed in each round, and with cohorts of its own drawing. All models
are evaluated by TFF on the same held-out clients; the system's own measurement on
its held-out devices stands beside it.
"""

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import deployed_task
from benchmarks.deployed_task import Course, NotDone
from benchmarks.simulation_order import Order, Result, weights_file
from device_plan.archive import MalformedPlan, PlanArchive
from device_plan.task import FederatedTask
from device_plan.task_file import InvalidTask, load_task
from server.admin_client import AdminError

#: Seconds between two looks at a process's log.
LOOK_S = 0.5

#: Where tables are as wide as this if the output is no terminal.
WIDTH = 110


class ChildFailed(RuntimeError):
    """A process that was started failed; the message has the end of its log."""


def main(arguments: Sequence[str]) -> int:
    """0: the accuracies are the same. 1: they are not, or something failed. 2: wrong input."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.tolerance is None and "accuracy" not in options.metric:
        parser.error(f"give --tolerance: {options.metric!r} may be no share of the examples")
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    # So that what was started is ended on a SIGTERM too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        task = load_task(options.task_file)
        if task.proxy_fn is None:
            raise InvalidTask(f"{options.task_file}: the task has no proxy_fn to give devices data")
        with tempfile.TemporaryDirectory() as directory, console.status("…") as status:
            return _compare(task, options, Path(directory), console, status.update)
    except (InvalidTask, MalformedPlan) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except (AdminError, ChildFailed, NotDone) as error:
        sys.stderr.write(f"{error}\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks accuracy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("task_file", type=Path, nargs="?", default=Path("examples/emnist_task.py"))
    parser.add_argument("--rounds", type=_positive, default=20, help="rounds to commit (20)")
    parser.add_argument("--clients", type=_positive, default=10, help="updates in a round (10)")
    parser.add_argument("--every", type=_positive, default=5, help="rounds between evaluations (5)")
    parser.add_argument(
        "--samplings", type=_natural, default=2, help="simulations of TFF's own (2)"
    )
    parser.add_argument("--metric", default="accuracy", help="which is compared (accuracy)")
    parser.add_argument(
        "--tolerance",
        type=float,
        help="by which the metric may differ for the same cohorts; by default the standard "
        "error of an accuracy on the held-out examples; needed for other metrics",
    )
    parser.add_argument("--plan", type=Path, help="a plan of the task that was built before")
    parser.add_argument("--json", type=Path, help="write all figures there")
    return parser


def _natural(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must not be negative, not {number}")
    return number


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def _compare(
    task: FederatedTask,
    options: argparse.Namespace,
    directory: Path,
    console: Console,
    tell: Callable[[str], None],
) -> int:
    plan = _plan(options, directory, tell)
    assert task.proxy_fn is not None
    data = task.proxy_fn()
    tell("starting the server …")
    course = deployed_task.run(
        plan,
        data,
        rounds=options.rounds,
        clients=options.clients,
        every=options.every,
        tell=lambda line: tell(f"the system: {line}"),
    )
    order = Order(
        task_file=str(options.task_file),
        clients=options.clients,
        cohorts=[course.cohorts[number] for number in range(1, options.rounds + 1)],
        compared=sorted(
            {*range(0, options.rounds, options.every), options.rounds, *course.evaluations}
        ),
        seeds=list(range(1, options.samplings + 1)),
    )
    for number in order.compared:
        weights_file(directory, number).write_bytes(course.weights[number])
    order.write(directory)
    started = time.monotonic()
    _child(
        ("benchmarks.simulated_task", str(directory)),
        log=directory / "simulation.log",
        tell=lambda line: tell(f"TFF's simulation: {line}"),
    )
    seconds = time.monotonic() - started
    result = Result.read(directory)
    _check_metric(options.metric, result)
    rows = _rows(options.metric, course, order, result)
    console.print(_table(task.name, options, course, rows))
    seeded = plan.manifest.seeded
    remarks = _remarks(options, course, order, rows, seeded=seeded, simulated_s=seconds)
    same, verdict = _verdict(rows, options.tolerance, result.system[0]["num_examples"])
    console.print("\n".join([*remarks, *verdict]))
    if options.json is not None:
        figures = {
            "task": task.name,
            "seeded": seeded,
            "order": asdict(order),
            "result": asdict(result),
            "measured": {str(number): dict(m) for number, m in course.evaluations.items()},
            "seconds": {"system": course.seconds, "simulation": seconds},
        }
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0 if same else 1


@dataclass(frozen=True, kw_only=True)
class Row:
    """The models after one round; metrics on the held-out clients.

    Attributes:
        number: Of the round; 0 is the initial model.
        clients: Whose updates made it.
        system, repeated, moved, sampled: The system's model, and TFF's on the same cohorts,
            on them from weights moved by a rounding, and on its own, by TFF's evaluation.
        measured: The system's model by its held-out devices; None if they did not get it.
        difference, apart, learned: See `Result`.
    """

    number: int
    clients: int
    system: float
    repeated: float
    moved: float
    sampled: Sequence[float]
    measured: float | None
    difference: float
    apart: float
    learned: float


def _rows(metric: str, course: Course, order: Order, result: Result) -> list[Row]:
    return [
        Row(
            number=number,
            clients=len(course.cohorts.get(number, ())),
            system=result.system[place][metric],
            repeated=result.repeated[place][metric],
            moved=result.moved[place][metric],
            sampled=[metrics[place][metric] for metrics in result.sampled],
            measured=course.evaluations[number][metric] if number in course.evaluations else None,
            difference=result.differences[place],
            apart=result.apart[place],
            learned=result.learned[place],
        )
        for place, number in enumerate(order.compared)
    ]


def _resolution(share: float, examples: float) -> float:
    """The standard error of a share of so many examples: sqrt(p (1 - p) / n)."""
    return math.sqrt(max(0.0, share * (1 - share)) / examples)


def _verdict(
    rows: Sequence[Row], tolerance: float | None, examples: float
) -> tuple[bool, list[str]]:
    """Whether the system is as good as TFF for the same cohorts, and lines about it."""
    allowed = [
        _resolution(row.repeated, examples) if tolerance is None else tolerance for row in rows
    ]
    same = all(
        abs(row.system - row.repeated) <= most for row, most in zip(rows, allowed, strict=True)
    )
    system = max(abs(row.system - row.repeated) for row in rows)
    moved = max(abs(row.moved - row.repeated) for row in rows)
    apart = (
        f"For the same cohorts the system is within {system:.4f} of TFF after every round, and "
        f"within {abs(rows[-1].system - rows[-1].repeated):.4f} after the last; moved TFF within "
        f"{moved:.4f} and {abs(rows[-1].moved - rows[-1].repeated):.4f}."
    )
    verdict = f"{'The same' if same else 'Not the same'}: allowed are {max(allowed):.4f}" + (
        f", the standard error on {examples:.0f} examples." if tolerance is None else "."
    )
    return same, [apart, verdict]


def _table(name: str, options: argparse.Namespace, course: Course, rows: Sequence[Row]) -> Table:
    table = Table(
        title=f"{name}: {options.metric} on {course.held_out} held-out clients, by round",
        caption="Evaluated by TFF; last column: as the system's held-out devices measured it.",
    )
    for column in (
        "round",
        "updates",
        "system",
        "TFF,\nsame cohorts",
        "same,\nmoved",
        f"TFF, own\ncohorts ({options.samplings})",
        "weights: sys-\ntem to TFF",
        "moved TFF\nto TFF",
        "held-out\ndevices",
    ):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            str(row.number),
            str(row.clients or ""),
            f"{row.system:.4f}",
            f"{row.repeated:.4f}",
            f"{row.moved:.4f}",
            _range(row.sampled),
            f"{row.difference:.1e}",
            f"{row.apart:.1e}",
            "" if row.measured is None else f"{row.measured:.4f}",
        )
    return table


def _range(values: Sequence[float]) -> str:
    return (
        "–".join(f"{value:.4f}" for value in sorted({min(values), max(values)})) if values else ""
    )


def _remarks(
    options: argparse.Namespace,
    course: Course,
    order: Order,
    rows: Sequence[Row],
    *,
    seeded: bool,
    simulated_s: float,
) -> list[str]:
    updates = sum(map(len, order.cohorts))
    last = rows[-1]
    ran = (
        f"The system committed {options.rounds} rounds with {updates} updates in "
        f"{course.seconds:.0f} s ({course.abandoned} rounds abandoned); TFF's "
        f"{2 + options.samplings} simulations took {simulated_s:.0f} s."
    )
    moved = (
        f"Differences of weights are L2 norms, relative to TFF's weights, of which what was "
        f"learned is {last.learned:.2f} after round {last.number}. Moved TFF began with each "
        "weight at the next float32 number, on the same cohorts: what rounding alone does."
    )
    lines = [ran, moved]
    if seeded:
        lines.append(
            "The model draws random numbers while it trains (dropout): each device draws its "
            "own, so the weights of the system and of TFF are not comparable, only what they "
            "achieve."
        )
    measured = [abs(row.measured - row.system) for row in rows if row.measured is not None]
    if measured:
        lines.append(
            f"The held-out devices' own {options.metric} is within {max(measured):.1e} of "
            "TFF's of the same models."
        )
    return lines


def _check_metric(metric: str, result: Result) -> None:
    there_are = result.system[0]
    if metric not in there_are:
        raise InvalidTask(
            f"the model has no metric {metric!r}; give --metric one of {', '.join(there_are)}"
        )


def _plan(options: argparse.Namespace, directory: Path, tell: Callable[[str], None]) -> PlanArchive:
    """The plan that was given, or a new one."""
    if options.plan is not None:
        return PlanArchive.open(options.plan)
    built = directory / "task.plan"
    _child(
        ("nightshift", "plan", "build", str(options.task_file), "-o", str(built)),
        log=directory / "build.log",
        tell=lambda line: tell(f"the plan: {line}"),
    )
    return PlanArchive.open(built)


def _child(arguments: Sequence[str], *, log: Path, tell: Callable[[str], None]) -> None:
    """Runs `python -m ARGUMENTS` to its end. Raises ChildFailed."""
    # A file, not a pipe: TFF's executors would hold a pipe open after their parent.
    with log.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        while child.poll() is None:
            tell(_last_lines(log, 1))
            time.sleep(LOOK_S)
    finally:
        # With it ends what it started itself.
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    if child.returncode:
        raise ChildFailed(
            f"{' '.join(arguments[:3])} ended with exit code {child.returncode}:\n"
            + _last_lines(log, 15)
        )


def _last_lines(log: Path, count: int) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-count:])
