"""Seconds from the death of a coordinator to the opening of its successor's first round.

`python -m benchmarks failover [embedded] [cluster]`. Embedded, the whole server gets
SIGKILL and is started again at once, as a supervisor would. In a cluster the
coordinator's process gets SIGKILL, and nobody but the cluster does anything. The
baseline is what no failover can be faster than when the dead cannot give their lease
back: the lease's time to live, of which at least two thirds are left at a death.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from rich.console import Console

from benchmarks import plans
from benchmarks.measurement import Measurement, table
from benchmarks.processes import free_port, running
from server.admin_client import AdminClient, AdminError

#: Seconds, the server's default.
LEASE_TTL_S = 3.0

#: Seconds that a failover should take at most.
TARGET_S = 10.0

#: Seconds after which a failover has failed, and that a cluster may take to start.
PATIENCE_S = 120.0
START_TIMEOUT_S = 240.0

KINDS = ("embedded", "cluster")


def main(argv: Sequence[str]) -> int:
    """Prints a row for each kind."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks failover", description=__doc__)
    parser.add_argument("kinds", nargs="*", default=[], help="embedded, cluster; default: both")
    parser.add_argument("--kills", type=int, default=5, help="of each kind, 1 to 50; default: 5")
    arguments = parser.parse_args(argv)
    if not set(arguments.kinds) <= set(KINDS) or not 1 <= arguments.kills <= 50:
        parser.error("kinds are embedded and cluster, --kills 1 to 50")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console()
    rows = []
    with tempfile.TemporaryDirectory() as directory, console.status("killing coordinators …"):
        plan = plans.build(Path(directory) / "small.plan", parameters=10, goal_count=1)
        for kind in arguments.kinds or KINDS:
            of_kind = embedded if kind == "embedded" else cluster
            rows.append(_row(kind, of_kind(plan.read_bytes(), arguments.kills)))
    console.print(table("Failover of the coordinator", rows))
    return 0


def embedded(plan: bytes, kills: int) -> list[float]:
    """Of a server that is killed as a whole, and started again at once on the same data."""
    found = []
    with tempfile.TemporaryDirectory() as directory:
        data, port = Path(directory) / "data", free_port()
        command = [
            *(sys.executable, "-m", "nightshift", "serve", "--data-dir", str(data)),
            *("--port", str(port), "--lease-ttl-s", str(LEASE_TTL_S)),
        ]
        with ExitStack() as server:
            served = server.enter_context(running(command, data, port, "/healthz"))
            task = served.admin().post("tasks", plan)["tasks"][0]["task_id"]
            for _ in range(kills):
                epoch = _opened(served.admin(), task)["lease_epoch"]
                killed_at = time.time()
                os.killpg(served.pid, signal.SIGKILL)
                server.close()
                served = server.enter_context(running(command, data, port, "/healthz"))
                found.append(_opened(served.admin(), task, epoch + 1)["opened_at"] - killed_at)
    return found


def cluster(plan: bytes, kills: int) -> list[float]:
    """Of a cluster with two selectors whose coordinator's process is killed."""
    found = []
    with _cluster() as (client, data):
        task = client.post("tasks", plan)["tasks"][0]["task_id"]
        for _ in range(kills):
            epoch = _opened(client, task)["lease_epoch"]
            pid = _coordinator(data)
            killed_at = time.time()
            os.kill(pid, signal.SIGKILL)
            found.append(_opened(client, task, epoch + 1)["opened_at"] - killed_at)
    return found


def _row(kind: str, seconds: list[float]) -> Measurement:
    return Measurement(
        what=f"{kind}: {len(seconds)} kills, median; worst {max(seconds):.1f} s",
        value=median(seconds),
        baseline=LEASE_TTL_S,
        baseline_name="the lease's time to live",
        unit="s",
        target=f"each <= {TARGET_S:g} s",
        met=max(seconds) <= TARGET_S,
    )


def _opened(client: AdminClient, task: str, epoch: int = 0) -> dict:
    """The task's open round of a coordinator of that epoch at least, which may be to come."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            rounds = client.get(f"tasks/{task}/rounds")["rounds"]
        except AdminError:
            rounds = []
        for record in rounds:
            if record["outcome"] == "open" and record["lease_epoch"] >= epoch:
                return dict(record)
        time.sleep(0.05)
    raise RuntimeError(f"no round was opened within {PATIENCE_S:g} s")


@contextmanager
def _cluster() -> Iterator[tuple[AdminClient, Path]]:
    with tempfile.TemporaryDirectory() as directory:
        # PostgreSQL, where root starts it, runs as another user.
        Path(directory).chmod(0o711)
        data, log, port = Path(directory) / "data", Path(directory) / "log", free_port()
        command = [
            *(sys.executable, "-m", "nightshift", "cluster", "up", "--data-dir", str(data)),
            *("--port", str(port), "--selectors", "2", "--not-durable"),
            *("--lease-ttl-s", str(LEASE_TTL_S)),
        ]
        with log.open("w") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            deadline = time.monotonic() + START_TIMEOUT_S
            while "is ready" not in log.read_text():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the cluster did not start: {log.read_text()[-2000:]}")
                time.sleep(0.2)
            yield AdminClient.of_data_dir(url=f"http://127.0.0.1:{port}", data_dir=data), data
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _coordinator(data: Path) -> int:
    """The process id of the only coordinator."""
    command = [sys.executable, "-m", "nightshift", "cluster", "status", "--json"]
    shown = subprocess.run(
        [*command, "--data-dir", str(data)], check=True, capture_output=True, text=True
    )
    (pid,) = [part["pid"] for part in json.loads(shown.stdout) if part["kind"] == "coordinator"]
    return int(pid)
