"""The demo's child processes: each in a group of its own, none left behind."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

#: Seconds a child may take to end after SIGTERM before it is killed.
PATIENCE_S = 8.0


class ChildFailed(RuntimeError):
    """A child ended with an error; the message has the end of its log."""


class Child:
    """`nightshift ARGUMENTS` in a process group of its own, its output in a log file.

    Args:
        name: For messages and the log file's name.
        arguments: What follows `nightshift`.
        logs: The directory of log files.
    """

    def __init__(self, *, name: str, arguments: Sequence[str], logs: Path) -> None:
        self.name = name
        logs.mkdir(parents=True, exist_ok=True)
        self.log = logs / f"{name}.log"
        # A file, not a pipe: a grandchild that outlived its parent would hold
        # the pipe open for ever.
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "nightshift", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def check(self) -> None:
        """Raises ChildFailed if it has ended."""
        code = self._process.poll()
        if code is not None:
            raise ChildFailed(f"{self.name} ended with exit code {code}:\n{self._last_lines()}")

    def wait(self) -> None:
        """Waits for a good end; raises ChildFailed for another."""
        if self._process.wait() != 0:
            self.check()

    def running(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        """Ends the child's whole group, first gently."""
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + PATIENCE_S
        while self._process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _last_lines(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])


class Children:
    """A context whose children end with it, in the reverse order of their start."""

    def __init__(self, *, logs: Path) -> None:
        self._logs = logs
        self._children: list[Child] = []

    def start(self, name: str, *arguments: str) -> Child:
        child = Child(name=name, arguments=arguments, logs=self._logs)
        self._children.append(child)
        return child

    def __enter__(self) -> "Children":
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        for child in reversed(self._children):
            child.stop()
