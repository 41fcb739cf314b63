"""The demo's child processes: each in a group of its own, none left behind."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from nightshift.demo.interruption import Interruption

#: Seconds that children may take to end after SIGTERM before they are killed.
PATIENCE_S = 5.0


class ChildFailed(RuntimeError):
    """A child ended with an error; the message has the end of its log."""


class Child:
    """`nightshift ARGUMENTS` in a process group of its own.

    Args:
        name: For messages and the log file's name.
        arguments: What follows `nightshift`.
        logs: The directory of the log file.
        output: Where its standard output goes; into the log too if None.
        environment: Variables besides those of this process.
    """

    def __init__(
        self,
        *,
        name: str,
        arguments: Sequence[str],
        logs: Path,
        output: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._gone = False
        logs.mkdir(parents=True, exist_ok=True)
        self.log = logs / f"{name}.log"
        with contextlib.ExitStack() as files:
            # Files, not pipes: a grandchild that outlived its parent would hold
            # a pipe open for ever.
            log = files.enter_context(self.log.open("wb"))
            out = log if output is None else files.enter_context(output.open("wb"))
            self._process = subprocess.Popen(
                [sys.executable, "-m", "nightshift", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )

    def check(self) -> None:
        """Raises ChildFailed if it has ended."""
        code = self._process.poll()
        if code is not None:
            raise ChildFailed(f"{self.name} ended with exit code {code}:\n{self._last_lines(15)}")

    def running(self) -> bool:
        return self._process.poll() is None

    def wait(self) -> None:
        """Waits for a good end; raises ChildFailed for another."""
        code = self._process.wait()
        # What the child itself started ends with it.
        self.kill()
        if code != 0:
            self.check()

    def last_line(self) -> str:
        """Of its log so far; "" if there is none."""
        return self._last_lines(1)

    def terminate(self) -> None:
        """Asks the whole group to end."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends what is left of the group, and waits for the child itself."""
        self._signal(signal.SIGKILL)
        self._process.wait()
        # Its number may belong to another process from now on.
        self._gone = True

    def _signal(self, number: signal.Signals) -> None:
        if not self._gone:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def _last_lines(self, count: int) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])


class Children:
    """A context whose children end with it, however it is left.

    Args:
        logs: The directory of log files.
        interruption: In force; it is held off while children start and end.
    """

    def __init__(self, *, logs: Path, interruption: Interruption) -> None:
        self._logs = logs
        self._interruption = interruption
        self._children: list[Child] = []

    def start(
        self,
        name: str,
        *arguments: str,
        output: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Child:
        with self._interruption.deferred():
            child = Child(
                name=name,
                arguments=arguments,
                logs=self._logs,
                output=output,
                environment=environment,
            )
            self._children.append(child)
        return child

    def end(self, *children: Child) -> None:
        """Ends these children and all that they started: first gently, then at once."""
        with self._interruption.deferred():
            for child in children:
                child.terminate()
            deadline = time.monotonic() + PATIENCE_S
            while any(child.running() for child in children) and time.monotonic() < deadline:
                time.sleep(0.02)
            for child in children:
                child.kill()

    def __enter__(self) -> "Children":
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.end(*self._children)
