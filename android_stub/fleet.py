"""Many virtual devices in few processes, against any server.

settings = FleetSettings(server="http://127.0.0.1:8750", population="digits/demo",
                         devices=120, data=Path("devices"), state_dir=Path("fleet"))
with Fleet(settings) as fleet:
    ...
    print(fleet.progress().session_shapes)
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO

import android_stub
from android_stub.fleet_settings import FleetProgress, FleetSettings

__all__ = ["Fleet", "FleetFailed", "FleetProgress", "FleetSettings", "run_fleet"]

#: Seconds after which a process that was told to stop is killed.
STOP_S = 1.8


class FleetFailed(RuntimeError):
    """A process of the fleet died; the message has the end of its log."""


class Fleet:
    """Starts, watches and stops a fleet's processes.

    Start it from a thread that lives as long as the fleet: on Linux the
    kernel kills the children when that thread ends.

    Raises:
        ValueError: the example data is missing; the message names the file.
    """

    def __init__(self, settings: FleetSettings) -> None:
        settings.examples().check()
        self.settings = settings
        self._children: list[subprocess.Popen[bytes]] = []
        self._readers: list[threading.Thread] = []
        self._latest: dict[int, FleetProgress] = {}
        self._lock = threading.Lock()

    def start(self) -> None:
        """Returns at once; the devices import their examples and check in by themselves."""
        if self._children:
            raise RuntimeError("the fleet was started before")
        self.settings.state_dir.mkdir(parents=True, exist_ok=True)
        try:
            for process in range(min(self.settings.processes, self.settings.devices)):
                self._start_process(process)
        except BaseException:
            self.stop()
            raise

    def _start_process(self, process: int) -> None:
        root = str(Path(android_stub.__file__).resolve().parent.parent)
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        with self._log(process).open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "android_stub.fleet_process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=os.environ | {"PYTHONPATH": path},
            )
        self._children.append(child)
        order = {
            "settings": self.settings.to_json(),
            "process": process,
            "parent": os.getpid(),
        }
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(json.dumps(order).encode() + b"\n")
        child.stdin.flush()
        reader = threading.Thread(
            target=self._read, args=(process, child.stdout), name=f"fleet-{process}", daemon=True
        )
        reader.start()
        self._readers.append(reader)

    def _log(self, process: int) -> Path:
        return self.settings.state_dir / f"fleet-{process}.log"

    def _read(self, process: int, lines: IO[bytes]) -> None:
        for line in lines:
            # A killed child may leave half a line.
            with contextlib.suppress(ValueError):
                figures = FleetProgress.from_json(line)
                with self._lock:
                    self._latest[process] = figures

    def progress(self) -> FleetProgress:
        """The figures since the start, as of the processes' latest messages."""
        with self._lock:
            total = FleetProgress.total(self._latest.values())
        total.processes = sum(child.poll() is None for child in self._children)
        return total

    def check(self) -> None:
        """Raises FleetFailed if a process has died."""
        for process, child in enumerate(self._children):
            code = child.poll()
            if code not in (None, 0):
                log = self._log(process).read_text(errors="replace").strip().splitlines()
                raise FleetFailed(
                    f"process {process} of the fleet ended with {code}; "
                    f"the end of {self._log(process)}: " + " | ".join(log[-5:])
                )

    def stop(self) -> FleetProgress:
        """Ends all processes within two seconds and returns the last figures."""
        for child in self._children:
            if child.poll() is None:
                with contextlib.suppress(OSError):
                    child.send_signal(signal.SIGTERM)
        until = time.monotonic() + STOP_S
        for child in self._children:
            try:
                child.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        for reader in self._readers:
            reader.join(1.0)
        for child in self._children:
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
        return self.progress()

    def __enter__(self) -> "Fleet":
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def run_fleet(
    settings: FleetSettings,
    *,
    stop: threading.Event | None = None,
    seconds: float | None = None,
    every_s: float = 1.0,
    on_progress: Callable[[FleetProgress], None] | None = None,
) -> FleetProgress:
    """Runs a fleet until `stop` is set or `seconds` have passed; returns the last figures.

    Raises:
        ValueError: the example data is missing.
        FleetFailed: a process died.
    """
    stop = stop or threading.Event()
    until = None if seconds is None else time.monotonic() + seconds
    fleet = Fleet(settings)
    with fleet:
        while True:
            left = every_s if until is None else min(every_s, until - time.monotonic())
            if left <= 0 or stop.wait(left):
                break
            fleet.check()
            if on_progress is not None:
                on_progress(fleet.progress())
    return fleet.progress()
