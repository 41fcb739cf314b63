"""`python -m benchmarks selectors`: updates a second with 1, 2 and 4 selectors.

Each is a cluster of its own, as `nightshift cluster up` starts it: Ray, PostgreSQL,
and so many selector processes that share one population and sum what they receive.
The devices are told at which selectors they may check in, as a proxy would spread
them. They share the machine, and its cores, with the cluster: where there are fewer
cores than processes with work, more selectors give no more updates a second, so CPU
per update is printed beside them, of the selectors and of everything else apart.
"""

import argparse
import asyncio
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks import plans
from benchmarks.virtual_devices import Tally, VirtualDevice
from server.admin_client import AdminClient

PARAMETERS = 25_000

#: A variable by which the processes of a cluster are known.
MARK = "BENCHMARKED_CLUSTER"

#: Seconds that a cluster may take to start, and a round that hangs.
START_TIMEOUT_S = 240.0
ROUNDS_TIMEOUT_S = 300.0

#: An accelerated pace: the devices come back at once, so that rounds follow one another.
_PACE = (
    *("--min-retry-s", "1", "--max-retry-s", "4", "--rendezvous-s", "2"),
    *("--holdout-fraction", "0", "--poll-interval-s", "0.5"),
)


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A running cluster.

    Attributes:
            ports: Of the selectors.
        data: Its directory.
        mark: In the environment of its processes.
    """

    ports: tuple[int, ...]
    data: Path
    mark: str

    def cpu_seconds(self) -> dict[tuple[bool, int], float]:
        """User and system seconds so far, by whether it is a selector's, and process.

        Ray and the database are no children of the command that starts them, but have
        inherited its environment.
        """
        found: dict[int, psutil.Process] = {}
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(MARK) == self.mark:
                    found |= {each.pid: each for each in process.children(recursive=True)}
                    found[process.pid] = process
        spent = {}
        for process in found.values():
            with suppress(psutil.Error):
                times = process.cpu_times()
                selects = bool(process.environ().get("NIGHTSHIFT_SELECTOR_ID"))
                spent[selects, process.pid] = times.user + times.system
        return spent


@dataclass(frozen=True, kw_only=True)
class Rate:
    """What so many selectors did.

    Attributes:
        selectors: How many.
        per_second: Updates while rounds report.
        selector_ms: CPU of the selectors per update,
        other_ms: of those processes of Ray and the database that live at the end,
        device_ms: and of the devices.
        refused: Answers other than an acceptance.
    """

    selectors: int
    per_second: float
    selector_ms: float
    other_ms: float
    device_ms: float
    refused: dict[str, int]


def main(argv: Sequence[str]) -> int:
    """Prints a row for each number of selectors."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks selectors", description=__doc__)
    parser.add_argument("counts", nargs="*", type=int, default=[1, 2, 4], help="1 to 8; 1 2 4")
    parser.add_argument("--devices", type=int, default=400, help="up to 2000")
    parser.add_argument("--rounds", type=int, default=4, help="up to 20")
    arguments = parser.parse_args(argv)
    if not (
        all(1 <= count <= 8 for count in arguments.counts)
        and 8 <= arguments.devices <= 2000
        and 1 <= arguments.rounds <= 20
    ):
        parser.error("counts are 1 to 8, --devices 8 to 2000, --rounds 1 to 20")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console()
    table = Table(
        title=f"{arguments.devices} devices, {arguments.rounds} rounds of 100 KB updates; "
        "CPU in ms an update"
    )
    for column in (
        *("selectors", "updates/s", "ratio", "selectors", "Ray, database", "devices", "refused"),
    ):
        table.add_column(column)
    first = 0.0
    with tempfile.TemporaryDirectory() as directory, console.status("measuring …"):
        plan = plans.build(
            Path(directory) / "small.plan", parameters=PARAMETERS, goal_count=arguments.devices
        ).read_bytes()
        for count in arguments.counts:
            rate = measure(plan, count, devices=arguments.devices, rounds=arguments.rounds)
            first = first or rate.per_second
            table.add_row(
                str(count),
                f"{rate.per_second:,.0f}",
                f"{rate.per_second / first:.2f}",
                f"{rate.selector_ms:.2f}",
                f"{rate.other_ms:.2f}",
                f"{rate.device_ms:.2f}",
                str(rate.refused or 0),
            )
    console.print(table)
    console.print(
        f"{os.cpu_count()} cores, which the devices use too; load {psutil.getloadavg()[0]:.1f}"
    )
    return 0


def measure(plan: bytes, selectors: int, *, devices: int, rounds: int) -> Rate:
    """Runs the rounds on a cluster of its own."""
    tally = Tally()
    update = plans.update_of(PARAMETERS)
    with _cluster(selectors) as cluster:
        client = AdminClient.of_data_dir(
            url=f"http://127.0.0.1:{cluster.ports[0]}", data_dir=cluster.data
        )
        created = client.post(f"tasks?goal_count={devices}&rounds={rounds}", plan)
        task = created["tasks"][0]["task_id"]
        # The other selectors look into the registry each second.
        time.sleep(3.0)
        before, own_before = cluster.cpu_seconds(), time.process_time()

        async def crowd() -> None:
            stop = asyncio.Event()
            each = (
                VirtualDevice(
                    number=number,
                    port=cluster.ports[number % selectors],
                    population=plans.POPULATION,
                    update=update,
                    tally=tally,
                ).run(rounds, stop)
                for number in range(devices)
            )
            await asyncio.wait_for(asyncio.gather(*each), ROUNDS_TIMEOUT_S)

        asyncio.run(crowd())
        after, own_after = cluster.cpu_seconds(), time.process_time()
        until = time.monotonic() + ROUNDS_TIMEOUT_S
        while client.get(f"tasks/{task}")["head_round"] < rounds:
            if time.monotonic() > until:
                raise RuntimeError("the last round was not committed in time")
            time.sleep(0.2)
        records = client.get(f"tasks/{task}/rounds")["rounds"]
    reporting_s = sum(
        record["statistics"]["seconds"].get("reporting", 0.0)
        for record in records
        if record["outcome"] == "committed"
    )
    # Of a process that has ended meanwhile nothing is known any more.
    spent = {True: 0.0, False: 0.0}
    for (selects, pid), seconds in after.items():
        spent[selects] += seconds - before.get((selects, pid), 0.0)
    return Rate(
        selectors=selectors,
        per_second=tally.accepted / reporting_s,
        selector_ms=1e3 * spent[True] / tally.accepted,
        other_ms=1e3 * spent[False] / tally.accepted,
        device_ms=1e3 * (own_after - own_before) / tally.accepted,
        refused=tally.refused,
    )


@contextmanager
def _cluster(selectors: int) -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory() as directory:
        # PostgreSQL, where root starts it, runs as another user.
        Path(directory).chmod(0o711)
        data = Path(directory) / "data"
        ports = _free_ports(selectors)
        command = [
            *(sys.executable, "-m", "nightshift", "cluster", "up", "--data-dir", str(data)),
            *("--port", str(ports[0]), "--selectors", str(selectors), "--not-durable", *_PACE),
        ]
        with (Path(directory) / "log").open("w+") as log:
            mark = secrets.token_hex(8)
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, MARK: mark},
            )
            try:
                _wait(process, Path(log.name))
                yield Cluster(ports=ports, data=data, mark=mark)
            finally:
                process.terminate()
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def _wait(process: subprocess.Popen[bytes], log: Path) -> None:
    """Returns when the cluster says that it is ready."""
    until = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"the cluster did not start: {log.read_text()[-2000:]}")
        if "The cluster is ready" in log.read_text():
            return
        time.sleep(0.2)
    raise RuntimeError(f"the cluster was not ready in time: {log.read_text()[-2000:]}")


def _free_ports(count: int) -> tuple[int, ...]:
    """Neighbouring ones, as a cluster on one machine takes them."""
    for _ in range(100):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            first: int = probe.getsockname()[1]
        ports = tuple(range(first, first + count))
        if ports[-1] < 65_536 and all(map(_free, ports)):
            return ports
    raise RuntimeError(f"no {count} neighbouring ports are free")


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
