"""The commands `nightshift device run` and `nightshift fleet`."""

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from android_stub.attempt import SessionRecord
    from android_stub.fleet_settings import FleetProgress

_SHAPES = """
A session's shape has one character an event: - check-in, v plan downloaded,
[ computation started, ] completed, + upload started, ^ upload completed,
# upload rejected, ! interrupted, * error. So -v[]+^ is a session that
contributed, and - alone is a check-in that was rejected.
"""


_plan_key = click.option(
    "--plan-key",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    multiple=True,
    metavar="FILE",
    help="A public key to pin: load no plan that it did not sign (see `nightshift plan key`). "
    "Give it again for further keys. Without it, any plan of the server is executed.",
)


def _attributes(
    _context: click.Context, _option: click.Parameter, given: tuple[str, ...]
) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    for name, equals, value in pairs:
        if not (name and equals and value):
            raise click.BadParameter(f"write NAME=VALUE, not {name + equals + value!r}")
    return {name: value for name, _, value in pairs}


@contextlib.contextmanager
def _until_signalled() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set; the former handlers come back afterwards."""
    stop = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: stop.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@click.group()
def device() -> None:
    """Run one device of the reference runtime."""


@device.command("run", epilog=_SHAPES)
@click.option("--server", required=True, metavar="URL", help="The server's address.")
@click.option(
    "--population",
    required=True,
    multiple=True,
    metavar="NAME",
    help="What to take part in; give it again for further populations, which take turns.",
)
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("nightshift-device"),
    show_default=True,
    help="Where the device keeps its key, its examples and its schedule.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="An .npz file of examples, imported if the collection is still empty. Its arrays have "
    "the names of the plan's example tensors; their first dimension counts the examples.",
)
@click.option(
    "--collection",
    default="examples",
    show_default=True,
    help="The collection that --data goes into, as the plan's example selector names it.",
)
@click.option(
    "--conditions-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help='A JSON file such as {"idle": true, "charging": true, "unmetered": true}, read again '
    "at every look: edit it to interrupt the device. Without it the gate is always open.",
)
@click.option(
    "--sessions",
    type=click.IntRange(min=1),
    help="End after so many sessions; without it, run until Ctrl-C.",
)
@click.option(
    "--time-scale",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="Divides the delays taken when the server named no window (15 minutes, or 4 hours "
    "after a permanent error).",
)
@click.option(
    "--attribute",
    "attributes",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_attributes,
    help="What the device says of itself at check-in, for cohorts with given shares, such as "
    "country=de. Give it again for further ones, at most 8.",
)
@_plan_key
@click.option("--json", is_flag=True, help="Print each session as a JSON line.")
def run_device(
    server: str,
    population: tuple[str, ...],
    state_dir: Path,
    data: Path | None,
    collection: str,
    conditions_file: Path | None,
    sessions: int | None,
    time_scale: float,
    attributes: dict[str, str],
    plan_key: tuple[Path, ...],
    json: bool,
) -> None:
    """Run one device: when idle, charging and on Wi-Fi, take part and come back when told.

    Prints one line for each session. For example, with a server at hand:

    \b
        nightshift device run --server http://127.0.0.1:8750 \\
            --population digits/demo --data my-digits.npz --collection digits
    """
    from android_stub.device import Device
    from android_stub.example_files import ExampleFiles
    from android_stub.example_store import ExampleStore
    from android_stub.gate import AlwaysReady, ConditionsFile, Gate
    from android_stub.identity import Identity
    from android_stub.randomness import SeededDraws
    from android_stub.runtime import Runtime
    from android_stub.schedule import DueTimes
    from android_stub.server_api import ServerApi
    from device_plan.signing import load_public_key

    finished = 0

    def told(record: "SessionRecord") -> None:
        nonlocal finished
        finished += 1
        click.echo(_json_line(record) if json else _line(record))

    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        identity = Identity.load_or_create(state_dir / "device.key")
        store = ExampleStore(state_dir / "examples.sqlite")
        if data is not None and store.count(collection) == 0:
            arrays = ExampleFiles(data, devices=1).load(0)
            count = store.add(collection, arrays, now=time.time())
            click.echo(f"imported {count} examples into {collection!r}", err=True)
        source = AlwaysReady() if conditions_file is None else ConditionsFile(conditions_file)
        one = Device(
            runtime=Runtime(
                api=ServerApi(url=server, connections=1),
                clock=time.time,
                attributes=attributes,
                plan_keys=tuple(load_public_key(path) for path in plan_key),
            ),
            identity=identity,
            populations=population,
            store=store,
            gate=Gate(source=source),
            draws=SeededDraws(identity.credential, time.time_ns()),
            time_scale=time_scale,
            due=DueTimes(state_dir / "schedule.json"),
            on_session=told,
        )
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error
    with _until_signalled() as stop:
        while not stop.is_set():
            delay = one.step(time.time())
            if sessions is not None and finished >= sessions:
                break
            stop.wait(delay)


def _json_line(record: "SessionRecord") -> str:
    return dumps(asdict(record))


def _line(record: "SessionRecord") -> str:
    work = f" {record.computation} on {record.examples} examples" if record.examples else ""
    note = f"  ({record.note})" if record.note and not record.shape.endswith("^") else ""
    return (
        f"{record.population}  {record.shape}{work}  {record.bytes_down} B down, "
        f"{record.bytes_up} B up, {record.duration_ms / 1000:.1f} s{note}"
    )


@click.command(epilog=_SHAPES)
@click.option("--server", required=True, metavar="URL", help="The server's address.")
@click.option("--population", required=True, metavar="NAME", help="What to take part in.")
@click.option(
    "--devices",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="Virtual devices in all.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True),
    required=True,
    help="A directory of device-00000.npz, device-00001.npz, … or one .npz file that is dealt "
    "out. Arrays have the names of the plan's example tensors; their first dimension counts the "
    "examples. Imported once into each device's own SQLite store.",
)
@click.option(
    "--collection",
    default="examples",
    show_default=True,
    help="The collection that the data goes into, as the plan's example selector names it.",
)
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("nightshift-fleet"),
    show_default=True,
    help="Where devices keep their stores and processes their logs.",
)
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Processes among which the devices are divided.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="Threads of each process: so many devices make a request or compute at once.",
)
@click.option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    help="Keys, nights, delays and misfortunes follow from it.",
)
@click.option(
    "--night-seconds",
    type=click.FloatRange(min=0, min_open=True),
    help="Length of one accelerated night; without it the gates are always open.",
)
@click.option(
    "--night-fraction",
    type=click.FloatRange(min=0, max=1, min_open=True),
    default=1 / 3,
    show_default="a third",
    help="Part of a day that is night; each device's night begins at its own time.",
)
@click.option(
    "--interrupt-rate",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Part of the sessions in which the device is picked up while it computes.",
)
@click.option(
    "--vanish-rate",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Part of the sessions in which the device falls silent.",
)
@click.option(
    "--vanish-seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    help="For how long, on average.",
)
@click.option(
    "--time-scale",
    type=click.FloatRange(min=0, min_open=True),
    help="Divides the delays taken when the server named no window; by default as much as the "
    "nights are accelerated (8 hours / --night-seconds).",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    help="End after this time; without it, run until Ctrl-C.",
)
@_plan_key
@click.option("--json", is_flag=True, help="Print progress as JSON lines.")
@click.option(
    "--progress-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Append progress to this file as JSON lines, one a second.",
)
def fleet(
    server: str,
    population: str,
    devices: int,
    data: Path,
    collection: str,
    state_dir: Path,
    processes: int,
    threads: int,
    seed: int,
    night_seconds: float | None,
    night_fraction: float,
    interrupt_rate: float,
    vanish_rate: float,
    vanish_seconds: float,
    time_scale: float | None,
    seconds: float | None,
    plan_key: tuple[Path, ...],
    json: bool,
    progress_file: Path | None,
) -> None:
    """Run many virtual devices in few processes against a server.

    Each has its own examples, key, night and pace, and talks HTTP only. For example:

    \b
        nightshift fleet --server http://127.0.0.1:8750 \\
            --population digits/demo --devices 120 \\
            --data devices/ --collection digits \\
            --night-seconds 20 --interrupt-rate 0.05 --vanish-rate 0.05
    """
    from android_stub.fleet import FleetFailed, FleetSettings, run_fleet
    from android_stub.server_api import ServerApi

    def told(progress: "FleetProgress") -> None:
        if progress_file is not None:
            with progress_file.open("a") as file:
                file.write(progress.to_json() + "\n")
        if json:
            click.echo(progress.to_json())
        elif sys.stderr.isatty():
            click.echo("\r\x1b[K" + _status(progress), nl=False, err=True)

    try:
        ServerApi(url=server).close()
        settings = FleetSettings(
            server=server,
            population=population,
            devices=devices,
            data=data,
            state_dir=state_dir,
            collection=collection,
            processes=processes,
            threads=threads,
            seed=seed,
            night_s=night_seconds,
            night_fraction=night_fraction,
            interrupt_rate=interrupt_rate,
            vanish_rate=vanish_rate,
            vanish_s=vanish_seconds,
            time_scale=time_scale,
            plan_keys=plan_key,
        )
        with _until_signalled() as stop:
            last = run_fleet(settings, stop=stop, seconds=seconds, on_progress=told)
    except (ValueError, OSError, FleetFailed) as error:
        raise click.ClickException(str(error)) from error
    told(last)
    if not json:
        click.echo(("\n" if sys.stderr.isatty() else "") + _summary(last), err=True)


def _status(progress: "FleetProgress") -> str:
    return (
        f"{progress.seconds:6.0f} s  {progress.devices} devices: {progress.in_session} in session, "
        f"{progress.pacing} pacing, {progress.asleep} asleep  {progress.sessions} sessions, "
        f"{sum(progress.accepted.values())} accepted"
    )


def _summary(progress: "FleetProgress") -> str:
    lines = [
        _status(progress),
        (
            f"{progress.bytes_down} bytes down, {progress.bytes_up} bytes up, "
            f"{progress.cpu_seconds:.1f} CPU seconds, {progress.rss_bytes >> 20} MiB"
        ),
    ]
    for shape, count in sorted(progress.session_shapes.items(), key=lambda item: -item[1]):
        lines.append(f"  {count:8d}  {shape}")
    for note, count in sorted(progress.notes.items(), key=lambda item: -item[1])[:8]:
        lines.append(f"  {count:8d}  {note}")
    return "\n".join(lines)
