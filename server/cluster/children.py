"""Child processes that end with this one, however it ends."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def with_parent(number: signal.Signals) -> Callable[[], None]:
    """For `subprocess`: has the kernel send the child a signal when its parent dies.

    The parent is the thread that starts it, which therefore must live as long as
    the process: call it from the main thread.
    """
    libc = ctypes.CDLL(None)

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, number)

    return ask


def start(
    command: Sequence[str], *, log: Path, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Starts a child in a session of its own: Ctrl-C reaches only who ends it in order.

    Args:
        command: The program and its arguments.
        log: Where its output is appended.
        environment: Added to this process's.
    """
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=with_parent(signal.SIGKILL),
        )


def end(processes: Sequence[subprocess.Popen[bytes]], *, within_s: float) -> None:
    """SIGTERM for all; SIGKILL for those that have not ended in time."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
    for process in processes:
        try:
            process.wait(within_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
