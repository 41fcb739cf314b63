"""Ctrl-C at any moment, and yet no child process that nobody knows of."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

#: Ctrl-C, a supervisor's request to end, and a terminal that was closed.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interruption:
    """A context in which the first of these signals raises KeyboardInterrupt.

    Later ones are ignored, so that an impatient second Ctrl-C does not end the
    cleaning up. A signal that was ignored before stays ignored. Enter it in the
    main thread.
    """

    def __init__(self) -> None:
        self._before: dict[signal.Signals, Any] = {}
        self._deferring = False
        self._arrived = False
        self._raised = False

    def __enter__(self) -> "Interruption":
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """A signal that arrives inside raises at the end, not in the middle."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False
        self._raise_if_arrived()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._arrived = True
        if not self._deferring:
            self._raise_if_arrived()

    def _raise_if_arrived(self) -> None:
        if self._arrived and not self._raised:
            self._raised = True
            raise KeyboardInterrupt
