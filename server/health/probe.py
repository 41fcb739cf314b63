"""Checks that cannot hurt: asked at most once a second, and never waited for long."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

#: Seconds that a check's result is given again.
CACHED_S = 1.0

#: Seconds that a probe waits for a check.
TIMEOUT_S = 2.0


class NotWell(RuntimeError):
    """A check found something wrong; the message says what."""


@dataclass(frozen=True)
class Result:
    """What a check found."""

    ok: bool
    detail: str


class Probe:
    """One check, run on a thread of its own.

    A check that hangs, because the database does, holds that thread and no
    request; it is not run again before it has returned.

    Args:
        name: The check's.
        check: Returns a detail, or raises: `NotWell`, or whatever it met.
        timeout_s: Seconds that `result` waits.
    """

    def __init__(
        self, name: str, check: Callable[[], str], *, timeout_s: float = TIMEOUT_S
    ) -> None:
        self.name = name
        self._check = check
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._result = Result(False, "not checked yet")
        self._fresh_until = 0.0
        self._running: threading.Event | None = None
        self._since = 0.0

    def result(self) -> Result:
        """The check's newest result, at most `CACHED_S` old, or that it does not answer."""
        with self._lock:
            if time.monotonic() < self._fresh_until:
                return self._result
            running = self._running
            if running is None:
                running = self._running = threading.Event()
                self._since = time.monotonic()
                threading.Thread(
                    target=self._run, args=(running,), name=f"probe-{self.name}", daemon=True
                ).start()
            since = self._since
        if running.wait(max(0.0, since + self._timeout_s - time.monotonic())):
            return self._result
        return Result(False, f"no answer for {time.monotonic() - since:.1f} s")

    def _run(self, done: threading.Event) -> None:
        try:
            result = Result(True, self._check())
        except NotWell as error:
            result = Result(False, str(error))
        except Exception as error:
            # The first line: drivers append whole statements and links.
            text = (str(error).splitlines() or [""])[0]
            result = Result(False, f"{type(error).__name__}: {text}")
        with self._lock:
            self._result = result
            self._fresh_until = time.monotonic() + CACHED_S
            self._running = None
        done.set()


def report(probes: Sequence[Probe]) -> tuple[bool, dict[str, dict[str, object]]]:
    """Whether all are well, and each by name: {"ok": ..., "detail": ...}."""
    results = {probe.name: probe.result() for probe in probes}
    checks: dict[str, dict[str, object]] = {
        name: {"ok": result.ok, "detail": result.detail} for name, result in results.items()
    }
    return all(result.ok for result in results.values()), checks
