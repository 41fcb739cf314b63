"""`nightshift cluster up` as a process tree, and each of its selectors as a server."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import urllib3

from server.admin_client import AdminClient
from tests.house import ROOT
from tests.server.live.served import FAST, DeployedTask
from tests.server.live.waiting import eventually


def free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody listens on."""
    while True:
        sockets: list[socket.socket] = []
        try:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                first: int = probe.getsockname()[1]
            for number in range(count):
                listener = socket.socket()
                sockets.append(listener)
                listener.bind(("127.0.0.1", first + number))
            return first
        except (OSError, OverflowError):
            continue
        finally:
            for each in sockets:
                each.close()


class Cluster:
    """A cluster on a data directory of its own.

    Args:
        selectors: How many.
        options: Of `nightshift cluster up`.
        environment: Added to that of its processes.
    """

    def __init__(
        self,
        *,
        selectors: int,
        options: Sequence[str] = FAST,
        environment: dict[str, str] | None = None,
    ) -> None:
        # PostgreSQL's user must be able to enter it, whoever runs the tests.
        self.directory = Path(tempfile.mkdtemp(prefix="nightshift-cluster-", dir="/tmp"))
        self.directory.chmod(0o711)
        self.data = self.directory / "data"
        self.log = self.directory / "log"
        self._environment = environment or {}
        self._options = options
        first = free_ports(selectors)
        self.selectors = [OneSelector(self, first + number) for number in range(selectors)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when every selector is ready."""
        command = [sys.executable, "-m", "nightshift", "cluster", "up"]
        command += ["--data-dir", str(self.data), "--not-durable"]
        command += ["--port", str(self.selectors[0].port)]
        command += ["--selectors", str(len(self.selectors)), *self._options]
        # Processes that start beside each other keep a coordinator from its renewals.
        command += ["--lease-ttl-s", "2"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        eventually(lambda: self._running() and "is ready" in self.log.read_text(), within=180.0)

    def _running(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()[-4000:]
        return True

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        assert self._process is not None, "not started"
        return self._process

    def processes(self) -> list[psutil.Process]:
        """All there are of it now."""
        first = psutil.Process(self.process.pid)
        return [first, *first.children(recursive=True)]

    def stop(self) -> None:
        """Ctrl-C, unless it has ended already."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(60)

    def remove(self) -> None:
        """What it has left in files."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def parts(self) -> list[dict[str, Any]]:
        """Its parts as `nightshift cluster status` shows them."""
        command = [sys.executable, "-m", "nightshift", "cluster", "status", "--json"]
        shown = subprocess.run(
            [*command, "--data-dir", str(self.data)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        parts: list[dict[str, Any]] = json.loads(shown.stdout)
        return parts

    def errors(self) -> list[str]:
        """What the selectors' logs call an error."""
        found = []
        for log in self.data.glob("selectors/*/log"):
            lines = log.read_text().splitlines()
            found += [line for line in lines if '"level": "error"' in line or "Traceback" in line]
        return found


class OneSelector:
    """One selector of a cluster, with what tests use of `tests.server.live.served.Server`."""

    def __init__(self, cluster: Cluster, port: int) -> None:
        self.cluster = cluster
        self.port = port
        self._pool = urllib3.PoolManager(retries=False, timeout=5.0)

    @property
    def admin(self) -> AdminClient:
        return AdminClient.of_data_dir(
            url=f"http://127.0.0.1:{self.port}", data_dir=self.cluster.data
        )

    def status(self, path: str) -> int | None:
        """Of a GET; None if nobody answers."""
        try:
            return self._pool.request("GET", f"http://127.0.0.1:{self.port}{path}").status
        except urllib3.exceptions.HTTPError:
            return None

    def deploy(self, plan: bytes) -> DeployedTask:
        (task,) = self.admin.post("tasks", plan)["tasks"]
        return DeployedTask(self, task["task_id"], task["population"])  # type: ignore[arg-type]
