"""`nightshift demo`: the main job, from the author's task to an evaluated model."""

import socket
import time
from pathlib import Path
from typing import Any

import click
import urllib3
from rich.console import Console

from device_plan.archive import MalformedPlan, PlanArchive
from device_plan.signing import create_key, key_id, public_key_path, sign
from nightshift.demo.course import Course, observe
from nightshift.demo.data import write_device_files
from nightshift.demo.directory import NotOurs, demo_directory
from nightshift.demo.interruption import Interruption
from nightshift.demo.processes import Child, ChildFailed, Children
from nightshift.demo.screen import WIDTH, Screen
from nightshift.demo.summary import print_summary, summarize, write_summary
from server.admin_client import AdminClient, AdminError

#: Seconds the server may take until it is ready (it imports TensorFlow meanwhile).
START_TIMEOUT_S = 90.0

#: Of so many devices one contributes to a round, unless the task's author wants
#: fewer: the others sleep, are held out, or have just taken part.
DEVICES_PER_UPDATE = 5

#: The held-out share of the devices, and how many there should be of them on
#: average, so that enough are awake when a model is to be measured.
HOLDOUT_FRACTION = 0.15
HELD_OUT_DEVICES = 18

#: The private key that signs the plan, made anew for each demo.
PLAN_KEY = "release.pem"

#: Seconds between two looks at the server.
LOOK_S = 0.4


@click.command()
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("nightshift-demo"),
    help="Plan, device data, server data, logs and results. Emptied first, but only if an "
    "earlier demo made it.",
)
@click.option(
    "--plan",
    "plan_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    show_default=False,
    help="A plan that was built before, instead of compiling examples/digits_task.py.",
)
@click.option(
    "--devices",
    type=click.IntRange(60, 350),
    default=120,
    help="Virtual devices. They share 1,797 scans: the more devices, the fewer each has, and "
    "with fewer than five a device does not train.",
)
@click.option("--rounds", type=click.IntRange(1, 1000), default=30, help="Rounds to commit.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=1,
    help="Of the data split, the devices' nights and their misfortunes.",
)
@click.option(
    "--concentration",
    type=click.FloatRange(0.01, 100.0),
    default=1.0,
    help="Dirichlet parameter of the split. Smaller is more uneven: with 0.1 most devices "
    "know only a few of the ten digits, which is harder to learn from.",
)
@click.option(
    "--night-seconds",
    type=click.FloatRange(1.0, 3600.0),
    default=12.0,
    help="Seconds that one accelerated night takes.",
)
@click.option(
    "--interrupt-rate",
    type=click.FloatRange(0.0, 0.5),
    default=0.05,
    help="Share of the sessions in which somebody picks the phone up.",
)
@click.option(
    "--vanish-rate",
    type=click.FloatRange(0.0, 0.5),
    default=0.05,
    help="Share of the sessions in which the device goes silent.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=1.0),
    default=90.0,
    help="Give up when nothing has been committed for this many seconds.",
)
def demo(data_dir: Path, timeout: float, **options: Any) -> None:
    """Train a model of handwritten digits on 100+ virtual devices, here and now.

    Takes about a minute on two cores and no network. In this order it

    \b
      - compiles examples/digits_task.py with TensorFlow Federated into a plan
        (nightshift plan build) and checks it against TFF's own client work;
      - starts a server on loopback (nightshift serve), signs the plan with a key
        made on the spot (nightshift plan key), and deploys it (nightshift plan
        publish); server and devices run nothing that this key did not sign;
      - deals scikit-learn's 1,797 scans unevenly to virtual devices, and runs
        these (nightshift fleet): each has its own examples and its own nights,
        trains with tflite-runtime, and speaks only HTTP with the server; some
        are interrupted, some vanish in the middle of a session;
      - measures the model every few rounds on devices that never train;
      - leaves summary.json, accuracy.png, the model and all logs in --data-dir.

    Ctrl-C ends everything that it started.

    \b
    Examples:
      nightshift demo
      nightshift demo --devices 300 --rounds 60      # more devices, longer
      nightshift demo --concentration 0.1            # few kinds of digits a device
      nightshift demo --interrupt-rate 0.3 --vanish-rate 0.2      # a bad night

    Exit codes: 0 done, 1 it failed (the message names the logs), 2 wrong usage,
    130 interrupted.
    """
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    started = time.monotonic()
    screen = Screen(console, rounds=options["rounds"])
    try:
        with Interruption() as interruption, demo_directory(data_dir):
            with Children(logs=data_dir / "logs", interruption=interruption) as children:
                summary = _run(data_dir, children, screen, started, timeout, options)
            write_summary(summary, data_dir)
    except NotOurs as error:
        raise click.UsageError(str(error)) from error
    except (ChildFailed, AdminError, OSError) as error:
        raise click.ClickException(f"{error}\nThe logs are in {data_dir / 'logs'}.") from error
    print_summary(summary, data_dir, console)


def _run(
    data_dir: Path,
    children: Children,
    screen: Screen,
    started: float,
    timeout: float,
    options: dict[str, Any],
) -> dict[str, Any]:
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    server_dir = data_dir / "server"
    # It imports TensorFlow while the plan is compiled.
    key = create_key(data_dir / PLAN_KEY)
    server = children.start(
        "server", "serve", *_server_options(data_dir, server_dir, port, options)
    )
    plan = _obtain_plan(data_dir, children, screen, options)
    signed = PlanArchive(sign(plan, key))
    screen.say(f"Plan signed with the new key {key_id(key.public_key())}, which the fleet pins")
    sizes = write_device_files(
        data_dir / "examples",
        devices=options["devices"],
        concentration=options["concentration"],
        seed=options["seed"],
    )
    screen.say(
        f"{sum(sizes)} scans dealt to {len(sizes)} devices, {min(sizes)} to {max(sizes)} each, "
        f"Dirichlet {options['concentration']:g}"
    )
    with screen.step("Starting the server"):
        _wait_until_ready(url, server)
    client = AdminClient.of_data_dir(url=url, data_dir=server_dir)
    goal = min(plan.schedule["cohort"]["goal_count"], options["devices"] // DEVICES_PER_UPDATE)
    answer = client.create_tasks(signed.data, rounds=options["rounds"], goal_count=goal)
    created = [task["task_id"] for task in answer["tasks"]]
    if len(created) < 2:
        raise click.ClickException(
            "the task has no evaluation, and the demo ends with one: give it an EvaluationPolicy"
        )
    fleet = children.start("fleet", "fleet", *_fleet_options(data_dir, url, plan, options))

    course, news_at = Course(), time.monotonic()
    with screen.course() as show:
        while not course.finished:
            server.check()
            fleet.check()
            before, course = course, observe(client, *created)
            show(course)
            if course.progress != before.progress:
                news_at = time.monotonic()
            elif time.monotonic() > news_at + timeout:
                raise ChildFailed(
                    f"nothing was committed for {timeout:g} s: {len(course.committed)} of "
                    f"{options['rounds']} rounds are, {len(course.abandoned)} were abandoned"
                )
            time.sleep(0.0 if course.finished else LOOK_S)
    children.end(fleet)
    # Devices tell their sessions' shapes at the next check-in; the last ones never do.
    course = observe(client, *created)
    model = data_dir / "model.safetensors"
    head = course.training["head_round"]
    model.write_bytes(client.get_bytes(f"tasks/{created[0]}/models/{head}/weights"))
    return summarize(course, seconds=time.monotonic() - started, model=model)


def _obtain_plan(
    data_dir: Path, children: Children, screen: Screen, options: dict[str, Any]
) -> PlanArchive:
    """The plan that was given, or a new one."""
    plan = data_dir / "digits.plan"
    if options["plan_file"] is not None:
        plan.write_bytes(options["plan_file"].read_bytes())
    else:
        _compile(plan, children, screen)
    try:
        return PlanArchive.open(plan)
    except MalformedPlan as error:
        raise click.UsageError(f"{options['plan_file']}: {error}") from error


def _compile(plan: Path, children: Children, screen: Screen) -> None:
    checks = plan.with_suffix(".checks.txt")
    with screen.step("Compiling the plan") as detail:
        build = children.start(
            *("plan", "plan", "build", str(_example()), "-o", str(plan)),
            output=checks,
            environment={"COLUMNS": str(screen.console.width)},
        )
        while build.running():
            detail(build.last_line().removesuffix("…"))
            time.sleep(0.1)
        build.wait()
    screen.say(checks.read_text().rstrip())


def _server_options(
    data_dir: Path, server_dir: Path, port: int, options: dict[str, Any]
) -> list[str]:
    # An accelerated night: what is minutes and hours for phones is tenths of seconds here.
    settings = {
        "data-dir": server_dir,
        "port": port,
        "holdout-fraction": max(HOLDOUT_FRACTION, HELD_OUT_DEVICES / options["devices"]),
        "min-retry-s": 0.3,
        "max-retry-s": 3.0,
        "rendezvous-s": 0.5,
        "poll-interval-s": 0.2,
        "round-retry-s": 0.3,
        "plan-key": _public_key(data_dir),
    }
    return [part for name, value in settings.items() for part in (f"--{name}", str(value))]


def _fleet_options(
    data_dir: Path, url: str, plan: PlanArchive, options: dict[str, Any]
) -> list[str]:
    settings = {
        "server": url,
        "population": plan.schedule["population"],
        "devices": options["devices"],
        "processes": 2,
        "seed": options["seed"],
        "data": data_dir / "examples",
        "collection": plan.manifest.example_selector.collection,
        "state-dir": data_dir / "devices",
        "night-seconds": options["night_seconds"],
        "interrupt-rate": options["interrupt_rate"],
        "vanish-rate": options["vanish_rate"],
        "vanish-seconds": options["night_seconds"],
        "night-fraction": 0.9,
        "plan-key": _public_key(data_dir),
    }
    return [part for name, value in settings.items() for part in (f"--{name}", str(value))]


def _public_key(data_dir: Path) -> Path:
    return public_key_path(data_dir / PLAN_KEY)


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
