"""`nightshift demo`: the main job, from the author's task to an evaluated model."""

import shutil
import socket
import time
from pathlib import Path
from typing import Any

import click
import urllib3
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from device_plan.archive import PlanArchive
from nightshift.demo.course import Course, metric, observe
from nightshift.demo.data import write_device_files
from nightshift.demo.processes import Child, ChildFailed, Children
from nightshift.demo.summary import print_summary, summarize, write_summary
from server.admin_client import AdminClient, AdminError

#: Marks a directory that the demo made and may empty.
MARKER = "made-by-nightshift-demo"

#: The population of examples/digits_task.py.
POPULATION = "digits/demo"

#: Seconds the server may take until it is ready (it imports TensorFlow meanwhile).
START_TIMEOUT_S = 90.0

#: Rounds that the live table shows.
SHOWN_ROUNDS = 8


@click.command()
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("nightshift-demo"),
    help="Plan, device data, server data, logs and results; emptied first.",
)
@click.option("--devices", type=click.IntRange(20, 1500), default=120, help="Virtual devices.")
@click.option("--rounds", type=click.IntRange(1, 1000), default=20, help="Rounds to commit.")
@click.option("--seed", type=int, default=1, help="Of the data split and the devices' nights.")
@click.option(
    "--concentration",
    type=click.FloatRange(0.01, 100.0),
    default=1.0,
    help="Dirichlet parameter of the split; smaller is more uneven.",
)
@click.option(
    "--night-seconds", type=float, default=12.0, help="Seconds that one accelerated night takes."
)
@click.option(
    "--interrupt-rate", type=float, default=0.05, help="Sessions whose conditions break off."
)
@click.option("--vanish-rate", type=float, default=0.05, help="Sessions whose device goes silent.")
@click.option("--timeout", type=float, default=300.0, help="Give up after this many seconds.")
def demo(data_dir: Path, timeout: float, **options: Any) -> None:
    """Train a model of handwritten digits on 100+ virtual devices, here and now.

    Builds the plan with TensorFlow Federated, starts a server on loopback and
    device processes that speak only HTTP with it, trains, and evaluates on
    devices that never train. Needs no network. Ctrl-C ends everything.
    """
    console = Console()
    started = time.monotonic()
    try:
        _prepare(data_dir)
        with Children(logs=data_dir / "logs") as children:
            summary = _run(data_dir, children, console, started, timeout, options)
    except (ChildFailed, AdminError, OSError) as error:
        raise click.ClickException(f"{error}\nThe logs are in {data_dir / 'logs'}.") from error
    write_summary(summary, data_dir)
    print_summary(summary, data_dir, console)


def _prepare(data_dir: Path) -> None:
    """Makes the directory, or empties one that an earlier demo made."""
    if data_dir.exists() and any(data_dir.iterdir()):
        if not (data_dir / MARKER).exists():
            raise click.UsageError(
                f"the demo would empty {data_dir}, which it did not make: give another --data-dir"
            )
        shutil.rmtree(data_dir)
    data_dir.mkdir(parents=True, exist_ok=True)
    (data_dir / MARKER).touch()


def _run(
    data_dir: Path,
    children: Children,
    console: Console,
    started: float,
    timeout: float,
    options: dict[str, Any],
) -> dict[str, Any]:
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    server_dir = data_dir / "server"
    server = children.start("server", "serve", *_server_options(server_dir, port))

    plan = data_dir / "digits.plan"
    with console.status("Compiling the plan with TensorFlow Federated, and checking it …"):
        task_file = _example()
        build = children.start("plan", "plan", "build", str(task_file), "-o", str(plan))
        sizes = write_device_files(
            data_dir / "examples",
            devices=options["devices"],
            concentration=options["concentration"],
            seed=options["seed"],
        )
        build.wait()
    console.print(build.log.read_text().rstrip(), highlight=False, markup=False)
    console.print(
        f"{sum(sizes)} scans dealt to {len(sizes)} devices, {min(sizes)} to {max(sizes)} each, "
        f"Dirichlet {options['concentration']:g}",
        highlight=False,
    )

    with console.status("Starting the server …"):
        _wait_until_ready(url, server)
    client = AdminClient.of_data_dir(url=url, data_dir=server_dir)
    created = client.post(f"tasks?rounds={options['rounds']}", plan.read_bytes())["tasks"]
    fleet = children.start("fleet", "fleet", *_fleet_options(data_dir, url, options))

    course = _watch(client, created, [server, fleet], console, started + timeout)
    # Sessions tell their shapes at the next opportunity; the fleet's end is the last one.
    fleet.stop()
    course = observe(client, created[0]["task_id"], created[1]["task_id"])
    if not course.finished:
        raise ChildFailed(
            f"not finished after {timeout:g} s: {len(course.committed)} rounds are committed"
        )
    model = data_dir / "model.safetensors"
    head = course.training["head_round"]
    model.write_bytes(client.get_bytes(f"tasks/{course.training['task_id']}/models/{head}/weights"))
    return summarize(course, seconds=time.monotonic() - started, model=model)


def _server_options(server_dir: Path, port: int) -> list[str]:
    # An accelerated night: what is minutes and hours for phones is tenths of seconds here.
    settings = {
        "data-dir": server_dir,
        "port": port,
        "min-retry-s": 0.3,
        "max-retry-s": 3.0,
        "rendezvous-s": 0.5,
        "poll-interval-s": 0.2,
        "round-retry-s": 0.3,
    }
    return [part for name, value in settings.items() for part in (f"--{name}", str(value))]


def _fleet_options(data_dir: Path, url: str, options: dict[str, Any]) -> list[str]:
    selector = PlanArchive.open(data_dir / "digits.plan").manifest.example_selector
    settings = {
        "server": url,
        "population": POPULATION,
        "devices": options["devices"],
        "processes": 2,
        "seed": options["seed"],
        "data": data_dir / "examples",
        "collection": selector.collection,
        "state-dir": data_dir / "devices",
        "night-seconds": options["night_seconds"],
        "interrupt-rate": options["interrupt_rate"],
        "vanish-rate": options["vanish_rate"],
        "vanish-seconds": options["night_seconds"],
        "night-fraction": 0.75,
    }
    return [part for name, value in settings.items() for part in (f"--{name}", str(value))]


def _watch(
    client: AdminClient,
    created: list[dict[str, Any]],
    children: list[Child],
    console: Console,
    deadline: float,
) -> Course:
    """Shows progress until the course is finished or the deadline has passed."""
    progress = Progress(
        TextColumn("[bold]rounds committed"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    bar = progress.add_task("rounds", total=created[0]["rounds"])
    course = Course()
    with Live(progress, console=console, refresh_per_second=4) as live:
        while not course.finished and time.monotonic() < deadline:
            for child in children:
                child.check()
            course = observe(client, created[0]["task_id"], created[1]["task_id"])
            progress.update(bar, completed=len(course.committed))
            live.update(Group(_table(course), progress))
            time.sleep(0.4)
    return course


def _table(course: Course) -> Table:
    table = Table(box=None, header_style="bold")
    for column in ("round", "outcome", "selected", "accepted", "seconds", "loss on the devices"):
        table.add_column(column, justify="right")
    table.add_column("held-out accuracy of the model")
    evaluations = {evaluation.model_round: evaluation for evaluation in course.evaluations}
    for record in course.rounds[-SHOWN_ROUNDS:]:
        committed = record["outcome"] == "committed"
        evaluation = evaluations.get(record["base_model_round"] + 1) if committed else None
        table.add_row(
            str(record["base_model_round"] + 1),
            record["outcome"] if committed else f"abandoned: {record['reason']}",
            str(record["statistics"].get("selected", "")),
            str(record["statistics"].get("accepted", "")),
            f"{record['ended_at'] - record['opened_at']:.1f}",
            f"{metric(record['metrics'], 'loss'):.3f}" if committed else "",
            (
                f"[green]{evaluation.accuracy:.3f}[/] "
                f"({evaluation.devices} devices, {evaluation.examples} examples)"
                if evaluation is not None
                else ""
            ),
        )
    return table


def _wait_until_ready(url: str, server: Child) -> None:
    pool = urllib3.PoolManager(retries=False, timeout=2.0)
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        server.check()
        try:
            if pool.request("GET", f"{url}/readyz").status == 200:
                return
        except urllib3.exceptions.HTTPError:
            pass
        time.sleep(0.1)
    raise ChildFailed(f"the server was not ready within {START_TIMEOUT_S:g} s")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _example() -> Path:
    """The example task's file, in the checkout or beside the installed package."""
    for root in (Path.cwd(), Path(__file__).resolve().parents[2]):
        candidate = root / "examples" / "digits_task.py"
        if candidate.exists():
            return candidate
    raise click.UsageError("examples/digits_task.py is not here: run the demo in the checkout")
