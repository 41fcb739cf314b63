"""Child processes that do not outlive their parent."""

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable

#: linux/prctl.h
_PR_SET_PDEATHSIG = 1


def die_with_parent(parent_pid: int) -> None:
    """Asks the kernel to kill this process when the parent's starting thread ends.

    Args:
        parent_pid: As the parent knows itself: it may have died before this call.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(1)


def when_input_ends(act: Callable[[], None]) -> None:
    """Calls `act` on a thread when standard input ends, as it does with the parent."""

    def watch() -> None:
        with contextlib.suppress(OSError, ValueError):
            while os.read(0, 4096):
                pass
        act()

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
