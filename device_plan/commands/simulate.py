"""`nightshift task simulate`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from device_plan.commands.learning_curve import (
    as_csv,
    as_json,
    curves_table,
    verdicts_table,
    write_plot,
)
from device_plan.commands.terminal import CheckFailed, InvalidInput, compiler, load, output
from device_plan.predicates import Predicate, Verdict, judge
from device_plan.proxy_data import ProxyData
from device_plan.task import FederatedTask
from device_plan.task_file import InvalidTask

if TYPE_CHECKING:
    from device_plan.compiler.simulation import SimulatedRound, Simulation

#: Evaluations in a simulation whose task does not say how often it evaluates.
_EVALUATIONS = 20

_Output = click.Path(path_type=Path, dir_okay=False, writable=True)


@click.command()
@click.argument("task_file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=None,
    help="Rounds to simulate; by default the task's, or as many as its predicates ask for.",
)
@click.option(
    "--clients",
    type=click.IntRange(min=1),
    default=None,
    help="Clients in each round; by default the updates that the task wants.",
)
@click.option(
    "--evaluate-every",
    type=click.IntRange(min=1),
    default=None,
    help="Rounds between evaluations; by default the task's, or a twentieth of all.",
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, help="Of the clients chosen.")
@click.option(
    "--data",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="Proxy data instead of the task's proxy_fn: an .npz file whose arrays are named "
    "clients/NAME/FEATURE and held_out/NAME/FEATURE.",
)
@click.option("--json", "json_file", type=_Output, default=None, help="Write all rounds there.")
@click.option("--csv", "csv_file", type=_Output, default=None, help="One line a round, likewise.")
@click.option("--plot", type=_Output, default=None, help="Draw the learning curves, as PNG.")
def simulate(
    task_file: Path,
    rounds: int | None,
    clients: int | None,
    evaluate_every: int | None,
    seed: int,
    data: Path | None,
    json_file: Path | None,
    csv_file: Path | None,
    plot: Path | None,
) -> None:
    """Run the task of TASK_FILE in simulation, before any device has it.

    TensorFlow Federated executes the task's own learning process on proxy data,
    clients taking the place of devices: each trains on its newest examples, in
    the batches and epochs that a device would take. The model is evaluated on
    clients held out from training. Equal seeds choose equal clients.

    The task's predicates are judged on the way; `nightshift plan build` does
    the same and refuses a plan whose predicates do not hold.

    \b
    Example:
      nightshift task simulate my_task.py --rounds 50 --plot curves.png

    Exit codes: 0 done, 1 a predicate does not hold, 2 the input is wrong.
    """
    task = load(task_file)
    given = _read(data) if data is not None else None
    wanted = rounds or max([task.rounds, *(p.after_rounds for p in task.predicates)])
    every = evaluate_every or (
        task.evaluation.every_rounds if task.evaluation else max(1, wanted // _EVALUATIONS)
    )
    done: list[SimulatedRound] = []
    verdicts: list[Verdict] = []
    try:
        for event in _events(task, given, wanted, clients, every, seed):
            if isinstance(event, Verdict):
                verdicts.append(event)
            else:
                done.append(event)
    except InvalidTask as error:
        raise InvalidInput(str(error)) from error
    console = output()
    console.print(curves_table(done))
    if verdicts:
        console.print(verdicts_table(verdicts))
    judged = [verdict.predicate for verdict in verdicts]
    for predicate in task.predicates:
        if predicate not in judged:
            click.echo(
                f"Not judged: {predicate.metric} {predicate.asks} after "
                f"{predicate.after_rounds} rounds, for {wanted} were simulated."
            )
    settings = {
        "task": task.name,
        "seed": seed,
        "clients_per_round": len(done[-1].clients),
        "evaluate_every": every,
    }
    _write(json_file, lambda path: path.write_text(as_json(settings, done, verdicts) + "\n"))
    _write(csv_file, lambda path: path.write_text(as_csv(done)))
    _write(plot, lambda path: write_plot(path, task.name, done))
    broken = [verdict for verdict in verdicts if not verdict.holds]
    if broken:
        raise CheckFailed(
            str(broken[0]) + (f" ({len(broken) - 1} more do not hold)" if len(broken) > 1 else "")
        )


def _events(
    task: FederatedTask,
    given: ProxyData | None,
    rounds: int,
    clients: int | None,
    every: int,
    seed: int,
) -> "Iterator[SimulatedRound | Verdict]":
    """The rounds that were asked for and the verdicts on the way, with progress on the terminal."""
    console = Console(stderr=True)
    with console.status("Loading TensorFlow Federated…"):
        compiler()
        from device_plan.compiler.model import describe
        from device_plan.compiler.oracle import start_worker, tff_runtime
        from device_plan.compiler.simulation import Simulation, judged, proxy_data
    with tff_runtime():
        with console.status("Building the simulation…"):
            start_worker()
            model = describe(task)
            simulation = Simulation(task, model, given or proxy_data(task))
        here, elsewhere = _divide(task, simulation, clients, seed, rounds)
        after = {0, rounds, *range(every, rounds + 1, every), *(p.after_rounds for p in here)}
        with _progress(console) as progress:
            bar = progress.add_task("round", total=rounds, metrics="")
            for done in simulation.run(
                rounds=rounds, clients_per_round=clients, evaluate_after=after, seed=seed
            ):
                yield done
                if done.evaluation is not None:
                    progress.update(bar, metrics=_shown(done.evaluation))
                    for predicate in here:
                        if predicate.after_rounds == done.number:
                            yield judge(predicate, done.evaluation)
                progress.update(bar, completed=done.number)
            if elsewhere:
                total = sum(predicate.after_rounds for predicate in elsewhere)
                bar = progress.add_task("predicates", total=total, metrics="")
                for event in judged(simulation, elsewhere):
                    if isinstance(event, Verdict):
                        yield event
                    else:
                        progress.advance(bar, min(event.number, 1))
                progress.update(bar, completed=total)


def _divide(
    task: FederatedTask,
    simulation: "Simulation",
    clients: int | None,
    seed: int,
    rounds: int,
) -> tuple[list[Predicate], list[Predicate]]:
    """The predicates that this simulation judges, and those that need one of their own."""
    here: list[Predicate] = []
    elsewhere: list[Predicate] = []
    for predicate in task.predicates:
        if predicate.after_rounds > rounds:
            continue
        same = predicate.seed == seed and simulation.clients_per_round(
            predicate.clients_per_round
        ) == simulation.clients_per_round(clients)
        (here if same else elsewhere).append(predicate)
    return here, elsewhere


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[metrics]}"),
        console=console,
    )


def _shown(metrics: Any) -> str:
    return ", ".join(
        f"{name} {value:.4g}" for name, value in metrics.items() if not name.startswith("num_")
    )


def _read(path: Path) -> ProxyData:
    try:
        return ProxyData.from_npz(path)
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise InvalidInput(str(error)) from error


def _write(path: Path | None, write: Any) -> None:
    if path is None:
        return
    try:
        write(path)
    except OSError as error:
        raise InvalidInput(f"cannot write {path}: {error.strerror}") from error
    click.echo(f"Wrote {path}")
