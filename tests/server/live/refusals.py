"""What a refusal must look like: a 4xx, a documented reason, a sentence, and the windows."""

import functools
import re
from collections.abc import Mapping

from tests.house import ROOT
from tests.server.live.device import Reply


@functools.cache
def documented() -> Mapping[str, frozenset[int]]:
    """The statuses that docs/protocol.md gives each reason."""
    text = (ROOT / "docs" / "protocol.md").read_text()
    _, _, section = text.partition("## Reasons")
    found: dict[str, frozenset[int]] = {}
    for statuses, names in re.findall(r"^\| ([0-9, ]+) \| (`[^|]+`) \|", section, re.MULTILINE):
        for name in re.findall(r"`([A-Z_]+)`", names):
            found[name] = frozenset(int(status) for status in statuses.split(","))
    return found


def assert_refusal(reply: Reply) -> None:
    """Some refusal, as the documentation has it."""
    assert 400 <= reply.status < 500, (reply.status, reply.body)
    assert reply.status in documented()[reply.reason], (reply.status, reply.error)
    assert reply.error.message


def assert_refused(reply: Reply, status: int, reason: str, *, windows: bool = True) -> None:
    """This refusal. Its device learns when to come back, if its population is known."""
    assert (reply.status, reply.reason) == (status, reason), reply.error
    assert_refusal(reply)
    if windows:
        assert reply.error.retry_windows.if_rejected.max_delay_ms > 0
