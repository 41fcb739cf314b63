"""Bugs put into the server's own classes, to show that the explorer finds such."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest import mock

import numpy as np
from sqlalchemy import ColumnElement

from device_plan.wire_pb2 import Reason
from server.actors.aggregator import Aggregator
from server.actors.selector import Selector
from server.session import Session, SessionTable, State
from server.storage import rounds
from server.storage.leases import Lease
from server.storage.schema import rounds as rounds_table


@contextmanager
def _no_fence() -> Iterator[None]:
    """A commit looks neither at the lease nor at what became of the round meanwhile."""

    def is_the_round(_lease: Lease, round_id: str) -> tuple[ColumnElement[bool], ...]:
        return (rounds_table.c.round_id == round_id,)

    with (
        mock.patch.object(rounds, "check_fence"),
        mock.patch.object(rounds, "_is_open_under", is_the_round),
    ):
        yield


@contextmanager
def _counts_retries() -> Iterator[None]:
    """That an update was added is forgotten, so a submit that is repeated adds it again."""
    end = SessionTable.end

    def forgetful(
        self: SessionTable, session: Session, *, state: State, reason: Reason, now: float
    ) -> None:
        if state is State.ACCEPTED:
            session.state = State.REPORTED
        else:
            end(self, session, state=state, reason=reason, now=now)

    def add(self: Aggregator, session_id: str, views: tuple[np.ndarray, ...]) -> bool:
        if self._accumulator is None:
            return False
        self._accumulator.add(views)
        self._sessions.add(session_id)
        return True

    with (
        mock.patch.object(SessionTable, "end", forgetful),
        mock.patch.object(Aggregator, "add", add),
    ):
        yield


@contextmanager
def _leaks_slots() -> Iterator[None]:
    """A session whose device has vanished goes on counting towards the quota."""
    leave = Selector._leave

    def leaking(self: Selector, session: Session, how: Any, reason: Reason) -> None:
        leave(self, session, how, reason)
        if how == "expired":
            self._sessions.live[session.population] += 1

    with mock.patch.object(Selector, "_leave", leaking):
        yield


#: By the name that the command knows them by.
PLANTED: Mapping[str, Callable[[], AbstractContextManager[None]]] = {
    "no-fence": _no_fence,
    "double-count": _counts_retries,
    "slot-leak": _leaks_slots,
}
