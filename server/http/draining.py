"""Ending without losing what devices have computed.

On SIGTERM a server refuses check-ins at once, and goes on until the uploads that
are under way are in their sums, but not for ever. On SIGINT it ends.

The signals of granian's worker are taken by a thread of ours: granian would stop
to listen at the first one. The main process sends SIGTERM to its worker when it
gets one itself; a supervisor that signals every process of a group sends a second
one, which changes nothing.
"""

import os
import signal
import threading
import time
from collections.abc import Callable

from server.telemetry.logs import event_log

_log = event_log("server.draining")

#: Seconds after which devices may come back that are refused meanwhile, to another
#: selector or to the next process here: from, to. Spread, so that they do not come at once.
RETRY_S = (2.0, 10.0)

#: Seconds that requests under way may take when nothing is waited for any more. A client
#: that hangs would hold the end up for ever.
STOP_TIMEOUT_S = 3.0

#: Seconds between two looks at the uploads under way.
_LOOK_S = 0.05

_ENDING = {signal.SIGTERM, signal.SIGINT}


class Drain:
    """Whether this process drains, and what it still waits for.

    Args:
        under_way: How many sessions upload, or have something to upload.
        least_s: Seconds that a drain takes at least, for load balancers to notice.
        most_s: Seconds after which it ends whatever is under way.
        on_begin: Called once, at the beginning: refuses what is to be refused.
    """

    def __init__(
        self,
        *,
        under_way: Callable[[], int],
        least_s: float,
        most_s: float,
        on_begin: Callable[[], None],
    ) -> None:
        self._under_way = under_way
        self._least_s = min(least_s, most_s)
        self._most_s = most_s
        self._on_begin = on_begin
        self._began_at: float | None = None

    @property
    def began(self) -> bool:
        return self._began_at is not None

    def begin(self) -> None:
        """Refuses check-ins from now on. Harmless when repeated."""
        if self._began_at is None:
            self._began_at = time.monotonic()
            self._on_begin()
            _log.info("drain_began", uploads=self._under_way(), most_s=self._most_s)

    @property
    def done(self) -> bool:
        """Whether nothing need be waited for any more."""
        if self._began_at is None:
            return False
        age = time.monotonic() - self._began_at
        if age < self._least_s:
            return False
        left = self._under_way()
        if left and age < self._most_s:
            return False
        _log.info("drain_ended", uploads_lost=left, seconds=round(age, 3))
        return True


def end_on_signals(drain: Callable[[], Drain | None], close: Callable[[], None]) -> None:
    """Has this process drain and end on SIGTERM, and end at once on SIGINT.

    To be called from the main thread before it starts others, which must not take
    the signals either.

    Args:
        drain: What to drain, once there is something.
        close: Stores what is in memory only. It is called if the main thread does not end
            in time, because a request hangs; it must bear being called twice at once.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)

    def wait() -> None:
        number = signal.sigwait(_ENDING)
        draining = drain()
        if number == signal.SIGTERM and draining is not None:
            draining.begin()
            while not draining.done:
                if signal.sigtimedwait({signal.SIGINT}, _LOOK_S) is not None:
                    break
        # Granian's own handler; it only sets an event, so that any thread may call it.
        handler = signal.getsignal(signal.SIGTERM)
        if callable(handler):
            handler(signal.SIGTERM, None)
        signal.sigtimedwait({signal.SIGINT}, STOP_TIMEOUT_S)
        _log.warning("requests_cut_off", seconds=STOP_TIMEOUT_S)
        close()
        os._exit(0)

    threading.Thread(target=wait, name="signals", daemon=True).start()
