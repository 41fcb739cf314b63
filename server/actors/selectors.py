"""The selectors of a tier, as one round's master aggregator sees them: as one.

A selector that does not answer is dropped from the round. Its devices are lost
to the round, nobody else's, and it may answer again in the next one.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, Protocol

from device_plan.cohort import Strata
from device_plan.wire_pb2 import Reason
from server.actors.aggregator import PartialSum
from server.actors.runtime import Ref
from server.assignment import Chosen, Opening, Work
from server.protocol.allocation import allocate

_log = logging.getLogger(__name__)

#: Seconds that a selector may take to answer a master aggregator.
ANSWER_S = 10.0


class SelectorDirectory(Protocol):
    """Which selectors there are."""

    def members(self) -> Mapping[str, Ref]:
        """Those that take part in rounds opened now, by id."""


class SelectorGroup:
    """The selectors of one round. Until it has its devices, more may come.

    Args:
        round_id: The round.
        members: Those there are at its beginning, by id.
        rng: For the choice among their devices.
        answer_s: Seconds that a selector may take to answer.
    """

    def __init__(
        self,
        *,
        round_id: str,
        members: Mapping[str, Ref],
        rng: random.Random,
        answer_s: float = ANSWER_S,
    ) -> None:
        self._round_id = round_id
        self._members = dict(members)
        self._rng = rng
        self._answer_s = answer_s
        self._waiting: dict[str, int] = {}
        self._chosen: dict[str, tuple[str, bytes]] = {}
        self._lost: list[str] = []

    @property
    def refs(self) -> tuple[Ref, ...]:
        """The members that still take part."""
        return tuple(self._members.values())

    def device(self, session_id: str) -> bytes:
        """The device of a session that was chosen."""
        return self._chosen[session_id][1]

    def open(self, opening: Opening) -> None:
        """Opens the selection everywhere."""
        self._ask_all("open_selection", opening)

    def admit(self, found: Mapping[str, Ref], opening: Opening) -> list[Ref]:
        """Opens the selection at those that have come since: those of them that take part."""
        new = {name: ref for name, ref in found.items() if name not in self._members}
        self._members |= new
        self._ask_each("open_selection", dict.fromkeys(new, (opening,)))
        return [ref for name, ref in new.items() if name in self._members]

    def pool_changed(self, selector_id: str, waiting: int) -> int:
        """A selector's pool holds so many devices: those of all pools together."""
        if selector_id in self._members:
            self._waiting[selector_id] = waiting
        return sum(self._waiting.values())

    def waiting(self) -> int:
        """Devices in all pools, asked for."""
        reports = self._ask_all("pool", self._round_id)
        self._waiting = {
            name: sum(report.waiting.values()) for name, report in reports.items() if report
        }
        return sum(self._waiting.values())

    def take(self, count: int, strata: Strata | None) -> tuple[Chosen, ...]:
        """So many devices, or all if there are fewer, as if there were one pool.

        A device that waits at two selectors is taken once; the other session is
        rejected by whoever configures the round.
        """
        asked = self._ask_all("pool", self._round_id)
        reports = {name: report for name, report in asked.items() if report}
        shares = allocate(reports, count, strata, self._rng)
        taken = self._ask_each(
            "take", {name: (self._round_id, counts) for name, counts in shares.items()}
        )
        known = {device_id for _, device_id in self._chosen.values()}
        chosen: list[Chosen] = []
        twice: dict[str, list[str]] = {}
        for name, sessions in taken.items():
            for each in sessions:
                if each.device_id in known:
                    twice.setdefault(name, []).append(each.session_id)
                    continue
                known.add(each.device_id)
                self._chosen[each.session_id] = (name, each.device_id)
                chosen.append(each)
        self._reject(twice, Reason.NOT_SELECTED)
        return tuple(chosen)

    def reject(self, sessions: tuple[str, ...], reason: Reason) -> None:
        """Ends sessions that were taken and may not take part."""
        by_selector: dict[str, list[str]] = {}
        for session_id in sessions:
            by_selector.setdefault(self._chosen.pop(session_id)[0], []).append(session_id)
        self._reject(by_selector, reason)

    def configure(self, sessions: tuple[str, ...], work: Work) -> None:
        """Gives the chosen devices their assignment; every other one is rejected."""
        by_selector: dict[str, list[str]] = {name: [] for name in self._members}
        for session_id in sessions:
            name = self._chosen[session_id][0]
            if name in by_selector:
                by_selector[name].append(session_id)
        self._ask_each(
            "configure",
            {name: (self._round_id, tuple(own), work) for name, own in by_selector.items()},
        )

    def close(self, reason: Reason) -> list[PartialSum]:
        """Ends the round everywhere: the sums of those selectors that answer."""
        answers = self._ask_all("close_round", self._round_id, reason)
        return [part for part in answers.values() if part is not None]

    def end(self, reason: Reason) -> None:
        """Ends the round everywhere, without a sum."""
        for ref in self._members.values():
            ref.tell("end_round", self._round_id, reason)

    def drop(self, ref_name: str) -> None:
        """A selector has died: it takes part no more."""
        for name, ref in list(self._members.items()):
            if ref.name == ref_name:
                self._drop(name)

    def take_lost(self) -> list[str]:
        """Chosen sessions of selectors that were dropped since the last call."""
        lost, self._lost = self._lost, []
        return lost

    def _reject(self, by_selector: Mapping[str, list[str]], reason: Reason) -> None:
        self._ask_each(
            "reject",
            {name: (self._round_id, tuple(own), reason) for name, own in by_selector.items()},
        )

    def _drop(self, name: str) -> None:
        del self._members[name]
        self._waiting.pop(name, None)
        self._lost += [session for session, (own, _) in self._chosen.items() if own == name]

    def _ask_all(self, method: str, *arguments: Any) -> dict[str, Any]:
        return self._ask_each(method, dict.fromkeys(self._members, arguments))

    def _ask_each(self, method: str, arguments: Mapping[str, tuple[Any, ...]]) -> dict[str, Any]:
        """The answers by member. Whoever has none is dropped."""
        asked: dict[str, Future[Any]] = {
            name: self._members[name].request(method, *own)
            for name, own in arguments.items()
            if name in self._members
        }
        answers = {}
        for name, future in asked.items():
            try:
                answers[name] = future.result(self._answer_s)
            except Exception as error:
                _log.warning(
                    "round %s goes on without selector %s, which did not answer %s: %r",
                    self._round_id,
                    name,
                    method,
                    error,
                )
                future.cancel()
                # When it wakes, its devices must not go on for a round that does without them.
                self._members[name].tell("end_round", self._round_id, Reason.ROUND_OVER)
                self._drop(name)
        return answers
