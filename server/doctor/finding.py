"""What a check found."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

#: "warning": it works, but not as it should. "wrong": it does not. "skipped": there
#: was nothing to check.
Status = Literal["fine", "warning", "wrong", "skipped"]


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report.

    Attributes:
        check: What was looked at.
        detail: What was found.
        remedy: What to do; "" if it is fine.
    """

    check: str
    status: Status
    detail: str
    remedy: str = ""


def fine(check: str, detail: str) -> Finding:
    return Finding(check, "fine", detail)


def warning(check: str, detail: str, remedy: str) -> Finding:
    return Finding(check, "warning", detail, remedy)


def wrong(check: str, detail: str, remedy: str) -> Finding:
    return Finding(check, "wrong", detail, remedy)


def skipped(check: str, detail: str) -> Finding:
    return Finding(check, "skipped", detail)


def examine(check: str, findings: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """The findings of a check; if it fails itself, that is one."""
    try:
        yield from findings()
    except Exception as error:
        text = (str(error).splitlines() or [""])[0]
        yield wrong(check, f"{type(error).__name__}: {text}", "see the message; then ask again")
