"""`nightshift serve` as a process tree that may be killed and started again."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import urllib3

from device_plan.checkpoint import decode
from server.admin_client import AdminClient, AdminError
from tests.house import ROOT
from tests.server.live.waiting import eventually

#: Settings that make rounds short and devices welcome at once.
FAST = (
    *("--holdout-fraction", "0", "--poll-interval-s", "0.02", "--round-retry-s", "0.05"),
    *("--min-retry-s", "0.05", "--max-retry-s", "1", "--rendezvous-s", "0.1"),
    *("--max-chunk-bytes", "4096", "--lease-ttl-s", "0.6"),
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """A server on a data directory of its own.

    Args:
        directory: For data and log.
        options: Of `nightshift serve`.
    """

    def __init__(self, directory: Path, options: Sequence[str] = FAST) -> None:
        self.data = directory / "data"
        self.log = directory / "server.log"
        self.port = free_port()
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._pool = urllib3.PoolManager(retries=False, timeout=5.0)

    def start(self) -> None:
        """Returns when it answers; the model update may still be loading TensorFlow."""
        command = [sys.executable, "-m", "nightshift", "serve", "--data-dir", str(self.data)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--port", str(self.port), *self._options],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        eventually(lambda: self._running() and self.status("/healthz") == 200)

    def _running(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()[-4000:]
        return True

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        assert self._process is not None, "not started"
        return self._process

    def status(self, path: str) -> int | None:
        """Of a GET; None if nobody answers."""
        try:
            return self._pool.request("GET", f"http://127.0.0.1:{self.port}{path}").status
        except urllib3.exceptions.HTTPError:
            return None

    def processes(self) -> list[psutil.Process]:
        """The server's first process, granian's worker and the model update, if they live."""
        first = psutil.Process(self.process.pid)
        return [first, *first.children(recursive=True)]

    def worker(self) -> psutil.Process:
        """The process that answers requests."""
        return psutil.Process(self.process.pid).children()[0]

    def model_update(self) -> psutil.Process | None:
        """The process that has TensorFlow."""
        found = [p for p in self.processes() if "server.model_update.process" in p.cmdline()]
        return found[0] if found else None

    def kill(self) -> None:
        """SIGKILL for every process at once, as when a machine dies."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """SIGTERM, as a supervisor sends it, unless it has ended already."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(30)

    def errors(self) -> list[str]:
        """What the log calls an error."""
        lines = self.log.read_text().splitlines()
        marks = ('"level": "error"', '"level": "critical"', "ERROR", "Traceback")
        return [line for line in lines if any(mark in line for mark in marks)]

    @property
    def admin(self) -> AdminClient:
        return AdminClient.of_data_dir(url=f"http://127.0.0.1:{self.port}", data_dir=self.data)

    def admin_with(self, token: str) -> AdminClient:
        """The operator's API with another token."""
        return AdminClient(url=f"http://127.0.0.1:{self.port}", token=token)

    def status_with(self, token: str, path: str, body: bytes | None = None) -> int:
        """Of a request of the operator's API: a POST if it has a body."""
        response = self._pool.request(
            "GET" if body is None else "POST",
            f"http://127.0.0.1:{self.port}/v1/admin/{path}",
            body=body,
            headers={"Authorization": f"Bearer {token}"},
        )
        return response.status

    def deploy(self, plan: bytes) -> "DeployedTask":
        (task,) = self.admin.post("tasks", plan)["tasks"]
        return DeployedTask(self, task["task_id"], task["population"])


class DeployedTask:
    """A training task of a server, as its operator sees it."""

    def __init__(self, server: Server, task_id: str, population: str) -> None:
        self.server = server
        self.task_id = task_id
        self.population = population

    def _get(self, what: str = "") -> dict[str, Any]:
        return self.server.admin.get(f"tasks/{self.task_id}{what}")

    @property
    def status(self) -> str:
        return str(self._get()["status"])

    @property
    def head(self) -> int:
        """The number of the newest model."""
        return int(self._get()["head_round"])

    def rounds(self) -> list[dict[str, Any]]:
        rounds: list[dict[str, Any]] = self._get("/rounds")["rounds"]
        return rounds

    def round(self, round_id: str) -> dict[str, Any]:
        return next(record for record in self.rounds() if record["round_id"] == round_id)

    def ended(self, round_id: str) -> dict[str, Any]:
        """The round, once it is committed or abandoned."""

        def over() -> dict[str, Any] | None:
            record = self.round(round_id)
            return record if record["outcome"] != "open" else None

        return eventually(over)

    def weights(self, number: int) -> np.ndarray:
        """Of a committed model."""
        data = self.server.admin.get_bytes(f"tasks/{self.task_id}/models/{number}/weights")
        return decode(data)["weights"]

    def act(self, action: str) -> None:
        self.server.admin.post(f"tasks/{self.task_id}/{action}")

    def epoch(self) -> int:
        """Of the coordinator that has opened a round; 0 if nobody answers or none is open."""
        try:
            return max(
                (r["lease_epoch"] for r in self.rounds() if r["outcome"] == "open"), default=0
            )
        except AdminError:
            return 0
