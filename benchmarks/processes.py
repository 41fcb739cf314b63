"""Servers under measurement, in processes of their own, and the CPU they use."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import urllib3

from server.admin_client import AdminClient

#: Seconds a server may take to answer for the first time.
START_TIMEOUT_S = 90.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class Served:
    """A running server.

    Attributes:
        port: On loopback.
        pid: Of its first process; the others are its descendants.
        directory: Its data, for the Nightshift server.
    """

    port: int
    pid: int
    directory: Path

    def admin(self) -> AdminClient:
        """The operator's client of a Nightshift server."""
        return AdminClient.of_data_dir(url=f"http://127.0.0.1:{self.port}", data_dir=self.directory)

    def cpu_seconds(self) -> float:
        """User and system seconds of all its processes so far, without the model update's."""
        first = psutil.Process(self.pid)
        total = 0.0
        for process in (first, *first.children(recursive=True)):
            if any("model_update" in part for part in process.cmdline()):
                continue
            times = process.cpu_times()
            total += times.user + times.system
        return total


@contextmanager
def granian(app: str, *, threads: int = 128) -> Iterator[Served]:
    """An application of `benchmarks.baseline_apps` on granian, as `nightshift serve` runs it."""
    with tempfile.TemporaryDirectory() as directory:
        port = free_port()
        command = [
            *(sys.executable, "-m", "granian", f"benchmarks.baseline_apps:{app}", "--factory"),
            *("--interface", "wsgi", "--host", "127.0.0.1", "--port", str(port)),
            *("--workers", "1", "--blocking-threads", str(threads)),
            *("--backlog", "4096", "--backpressure", "65536", "--no-ws", "--no-log"),
        ]
        with running(command, Path(directory), port, "/") as served:
            yield served


@contextmanager
def nightshift(*options: str) -> Iterator[Served]:
    """`nightshift serve` with a fresh data directory."""
    with tempfile.TemporaryDirectory() as directory:
        port = free_port()
        data = Path(directory) / "data"
        command = [
            *(sys.executable, "-m", "nightshift", "serve", "--data-dir", str(data)),
            *("--port", str(port), *options),
        ]
        with running(command, data, port, "/readyz") as served:
            yield served


@contextmanager
def running(command: list[str], directory: Path, port: int, probe: str) -> Iterator[Served]:
    """A server until the end of the with statement, or until it is killed; on its own data.

    Args:
        command: Starts it.
        directory: Its data.
        port: On loopback.
        probe: Answered once it is there.
    """
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        try:
            _wait(process, port, probe)
            yield Served(port=port, pid=process.pid, directory=directory)
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _wait(process: subprocess.Popen, port: int, probe: str) -> None:
    pool = urllib3.PoolManager(retries=False, timeout=2.0)
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with exit code {process.returncode}")
        try:
            if pool.request("GET", f"http://127.0.0.1:{port}{probe}").status in (200, 404):
                return
        except urllib3.exceptions.HTTPError:
            pass
        time.sleep(0.1)
    raise RuntimeError("the server did not answer in time")
