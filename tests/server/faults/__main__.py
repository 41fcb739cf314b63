"""The explorer as a command: `python -m tests.server.faults --help`."""

from __future__ import annotations

import gc
import logging
import os
import secrets
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial

import click

from tests.server.faults.explorer import Schedule, catalogue, shrunk
from tests.server.faults.planted import PLANTED
from tests.server.faults.setting import SETTINGS

#: Schedules that a worker process runs at a time.
BATCH = 25

#: After how many schedules a run that nobody watches says how far it is.
SAID_EVERY = 1000

#: Failing seeds that are shrunk and shown.
SHOWN = 5


@dataclass
class Found:
    """What a number of schedules showed.

    Attributes:
        failures: The failing seeds, each with its first broken invariant.
        kinds: Faults that struck, by kind.
    """

    schedules: int = 0
    faults: int = 0
    commits: int = 0
    events: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    failures: dict[int, str] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)

    def add(self, other: Found) -> None:
        self.schedules += other.schedules
        self.faults += other.faults
        self.commits += other.commits
        self.events += other.events
        self.seconds += other.seconds
        self.cpu_s += other.cpu_s
        self.failures |= other.failures
        self.kinds += other.kinds


def explore(seeds: range, plant: str | None = None) -> Found:
    """Runs the schedules of these seeds, with a planted bug if one is named."""
    logging.disable(logging.CRITICAL)
    with _planted(plant):
        return _explore(seeds)


def _planted(name: str | None) -> AbstractContextManager[None]:
    if name is None:
        return nullcontext()
    for setting in SETTINGS:
        # The points where faults strike are those of the server as it is.
        catalogue(setting)
    return PLANTED[name]()


def _explore(seeds: range) -> Found:
    began = time.process_time()
    found = Found()
    # A run leaves many circles of objects behind, and is over before they matter.
    gc.collect()
    gc.disable()
    for seed in seeds:
        found.schedules += 1
        try:
            outcome = Schedule.of(seed).run()
        except Exception as error:
            # A mistake of the explorer's; the other seeds may go on.
            found.failures[seed] = f"the run failed: {error!r}"
            continue
        found.faults += len(outcome.struck)
        found.commits += outcome.commits
        found.events += outcome.events
        found.seconds += outcome.seconds
        found.kinds.update(fault.kind for fault in outcome.struck)
        if outcome.failure is not None:
            found.failures[seed] = str(outcome.violations[0])
    found.cpu_s = time.process_time() - began
    return found


def _batches(first: int, count: int) -> Iterator[range]:
    for at in range(first, first + count, BATCH):
        yield range(at, min(at + BATCH, first + count))


@click.command()
@click.option("--schedules", default=2000, show_default=True, help="How many to run.")
@click.option("--seed", type=int, help="Of the first; by default a new one each time.")
@click.option("--workers", default=2, show_default=True, help="Processes.")
@click.option("--replay", type=int, metavar="SEED", help="Run this one schedule with a trace.")
@click.option("--keep", metavar="PLACES", help="With --replay: only these faults, e.g. 0,3.")
@click.option("--first", is_flag=True, help="Stop at the first that fails.")
@click.option(
    "--plant", type=click.Choice(sorted(PLANTED)), help="Put a bug into the server to be found."
)
def main(
    schedules: int,
    seed: int | None,
    workers: int,
    replay: int | None,
    keep: str | None,
    first: bool,
    plant: str | None,
) -> None:
    """Drives the server's actors through schedules of faults and checks that its promises hold.

    Exits with 1 if one does not; each failing seed comes with the command that replays it.
    """
    logging.disable(logging.CRITICAL)
    if replay is not None:
        with _planted(plant):
            _replay(replay, keep)
        return
    begin = secrets.randbelow(1 << 40) if seed is None else seed
    found, began = Found(), time.monotonic()
    with ProcessPoolExecutor(workers) as pool:
        for part in pool.map(partial(explore, plant=plant), _batches(begin, schedules)):
            found.add(part)
            if first and found.failures:
                pool.shutdown(cancel_futures=True)
                break
            _say_progress(found, part, schedules)
    click.echo(
        f"{found.schedules} schedules from seed {begin}: {found.faults} faults struck, "
        f"{found.commits} rounds committed, {found.seconds / 3600:.1f} virtual hours, "
        f"{found.cpu_s:.0f} s of CPU in {time.monotonic() - began:.0f} s"
    )
    click.echo("faults: " + ", ".join(f"{n} {kind}" for kind, n in found.kinds.most_common()))
    click.echo(f"failing: {len(found.failures)}")
    with _planted(plant):
        for failing in sorted(found.failures)[: 1 if first else SHOWN]:
            _show(failing, plant)
    sys.exit(1 if found.failures else 0)


def _say_progress(found: Found, part: Found, schedules: int) -> None:
    for seed, violation in part.failures.items():
        click.echo(f"seed {seed} fails: {violation}", err=True)
    if sys.stderr.isatty():
        click.echo(f"\r{found.schedules} of {schedules}", nl=False, err=True)
    elif found.schedules % SAID_EVERY < part.schedules:
        click.echo(
            f"{found.schedules} of {schedules}, {len(found.failures)} failing, "
            f"{1000 * found.cpu_s / found.schedules:.0f} ms of CPU each",
            err=True,
        )


def _show(seed: int, plant: str | None) -> None:
    schedule = Schedule.of(seed)
    failure = schedule.run().failure
    if failure is None:
        click.echo(f"\nseed {seed} failed in its batch, and does not when it is run alone")
        return
    places = shrunk(schedule, failure)
    fewer = schedule.keeping(places)
    click.echo(f"\nseed {seed} ({schedule.setting.name}): {fewer.run().violations[0]}")
    for fault in fewer.faults:
        click.echo(f"  {fault}")
    kept = ",".join(map(str, places)) or "none"
    planted = f" --plant {plant}" if plant else ""
    click.echo(f"  replay: python -m tests.server.faults --replay {seed} --keep {kept}{planted}")


def _replay(seed: int, keep: str | None) -> None:
    schedule = Schedule.of(seed)
    if keep is not None:
        places = [] if keep == "none" else [int(place) for place in keep.split(",")]
        schedule = schedule.keeping(places)
    click.echo(f"seed {seed}, {schedule.setting.name}, {len(schedule.faults)} faults:")
    for fault in schedule.faults:
        click.echo(f"  {fault}")
    outcome = schedule.run(log=click.echo)
    for violation in outcome.violations:
        click.echo(f"VIOLATED {violation}")
    click.echo(f"{outcome.commits} rounds committed, {outcome.seconds:.1f} virtual seconds")
    sys.exit(1 if outcome.violations else 0)


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        # The order of sets is part of a run: it has to be the same in each.
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.server.faults", *sys.argv[1:]])
    main(prog_name="python -m tests.server.faults")
