"""Ends processes whose ancestor was killed, where the kernel does not.

Most of a cluster's processes die with their parent by the kernel's hand. Ray's
agents notice by themselves, but try for a minute to tell a Ray that is gone. This
program is given processes on its standard input, as lines of id and start time, and
when that ends, because who wrote it has ended, it kills those that are still there.
"""

import subprocess
import sys
from contextlib import suppress

import psutil


class Watchdog:
    """The program, as a child of the process that it watches."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "server.cluster.watchdog"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        )

    def name_descendants(self) -> None:
        """Has it end all processes that this one has started, when this one has ended."""
        assert self._process.stdin is not None
        for process in psutil.Process().children(recursive=True):
            if process.pid != self._process.pid:
                with suppress(psutil.NoSuchProcess):
                    self._process.stdin.write(f"{process.pid} {process.create_time()!r}\n")
        self._process.stdin.flush()

    def end(self) -> None:
        """Has it end them now, and itself."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def main() -> None:
    """Reads until the end, then kills."""
    named = [line.split() for line in sys.stdin]
    for pid, started in named:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(int(pid))
            # Else the id has been given to another meanwhile.
            if process.create_time() == float(started):
                process.kill()


if __name__ == "__main__":
    main()
