"""Waiting for something to become true, for as long as it may reasonably take."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: Seconds; far above what anything here takes on a slow machine.
PATIENCE_S = 60.0


def eventually(
    what: Callable[[], T | None], *, within: float = PATIENCE_S, every: float = 0.01
) -> T:
    """The first result that is true."""
    deadline = time.monotonic() + within
    while not (result := what()):
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        time.sleep(every)
    return result
