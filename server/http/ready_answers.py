"""Answers to check-ins that are the same for many devices, encoded once.

A saturated server says one of few things: which reason, and when to come back.
Pace steering gives the same few windows to everybody for a while, so the bytes
need not be made anew for each device. They are looked up by the windows' identity,
which is cheaper than to compare them: pace steering keeps the objects for as long
as it gives them out, and this keeps them for as long as it knows their bytes.
"""

from collections.abc import Callable

from google.protobuf.message import Message

from device_plan import wire_pb2 as wire
from server.http.messages import encode
from server.protocol.pace_steering import Window, Windows

#: Answers that are kept at once, and windows likewise; when there are more, all are
#: forgotten. A population has some tens: reasons, slices of a window, two encodings.
MAX_KEPT = 1024


class ReadyAnswers:
    """Any number of threads may ask: at worst two of them encode the same answer.

    Args:
        rejection: Makes the answer to a device that is turned away for a reason.
    """

    def __init__(self, rejection: Callable[[wire.Reason, wire.RetryWindows], Message]) -> None:
        self._rejection = rejection
        # Each with the windows, so that no other object can get their identity.
        self._bodies: dict[tuple[int, wire.Reason, bool], tuple[Windows, bytes]] = {}
        self._windows: dict[int, tuple[Windows, wire.RetryWindows]] = {}

    def windows(self, windows: Windows) -> wire.RetryWindows:
        """The windows as a message, which must not be changed."""
        kept = self._windows.get(id(windows))
        if kept is None:
            kept = (windows, retry_windows(windows))
            if len(self._windows) >= MAX_KEPT:
                self._windows.clear()
            self._windows[id(windows)] = kept
        return kept[1]

    def body(self, reason: wire.Reason, windows: Windows, *, json: bool) -> bytes:
        """The encoded answer to a device that is turned away."""
        key = (id(windows), reason, json)
        kept = self._bodies.get(key)
        if kept is None:
            message = self._rejection(reason, self.windows(windows))
            kept = (windows, encode(message, json=json))
            if len(self._bodies) >= MAX_KEPT:
                self._bodies.clear()
            self._bodies[key] = kept
        return kept[1]


def retry_windows(windows: Windows) -> wire.RetryWindows:
    """Windows of seconds as a message, in whole milliseconds."""
    return wire.RetryWindows(
        if_accepted=_window(windows.if_accepted), if_rejected=_window(windows.if_rejected)
    )


def _window(seconds: Window) -> wire.RetryWindow:
    return wire.RetryWindow(
        min_delay_ms=round(seconds[0] * 1000), max_delay_ms=round(seconds[1] * 1000)
    )
