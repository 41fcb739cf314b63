"""One round of one task, as a state machine (Bonawitz et al. 2019, §2.2-2.3 and §3.3).

    created -> selecting -> choosing -> reporting -> collecting -> updating -> committing
                                                                          -> committed
    and from everywhere before committed: -> abandoned

*Selection.* Devices are sampled for the whole selection window, so that fast
networks are not favoured. When it ends with the target in the pool, the target
is taken; otherwise the pool stays open until the target is reached, or until
the timeout, when the round starts with at least the minimum or is abandoned.
A round that is *pipelined* (§4.3 of the paper) selects while the round before it
still reports: it takes nobody, and does not time out, until it is released by
the model that its devices start from.

*Reporting.* Every selected device has until the deadline. Reporting closes as
soon as the goal is in the sum, the window has elapsed, every device has
finished one way or the other, or those that are left can no longer bring the
round to its minimum. If the policy has a straggler grace, it also closes when the
minimum is in and no update has come for that long: devices that vanish say
nothing, and a goal out of reach would cost the whole window. What is still out
at the end is a straggler, and is cut off.

*Commit.* Only a sum of at least the minimum count is applied, and what has been
applied is committed once. Everything else leaves the model untouched.

The round never waits for ever: in every phase it has asked to be woken, except
before its release, for which the coordinator answers, and while a commit is
under way, whose answer only the store can give.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from device_plan.cohort import CohortPolicy
from server.protocol.round_messages import (
    Abandon,
    ApplyUpdate,
    Cancelled,
    CloseReporting,
    CloseSelection,
    ClosingReason,
    Commit,
    CommitDone,
    CommitRefused,
    Configure,
    DevicesSelected,
    Effect,
    Ending,
    Event,
    OpenSelection,
    PoolChanged,
    Released,
    SessionEnded,
    SumsCollected,
    UpdateAccepted,
    UpdateApplied,
    UpdateFailed,
)
from server.protocol.waking import Tick, WakeAt

__all__ = [
    "Abandon",
    "ApplyUpdate",
    "Cancelled",
    "CloseReporting",
    "CloseSelection",
    "Commit",
    "CommitDone",
    "CommitRefused",
    "Configure",
    "DevicesSelected",
    "Effect",
    "Ending",
    "Event",
    "OpenSelection",
    "Phase",
    "PoolChanged",
    "Released",
    "Round",
    "SessionEnded",
    "SumsCollected",
    "Tick",
    "UpdateAccepted",
    "UpdateApplied",
    "UpdateFailed",
    "WakeAt",
]

#: Seconds within which selectors choose and aggregators hand over their sums.
ANSWER_TIMEOUT_S = 60.0
#: Seconds that the model update may take.
UPDATE_TIMEOUT_S = 600.0


class Phase(StrEnum):
    """Where a round is. The last two are final."""

    CREATED = "created"
    SELECTING = "selecting"
    CHOOSING = "choosing"
    REPORTING = "reporting"
    COLLECTING = "collecting"
    UPDATING = "updating"
    COMMITTING = "committing"
    COMMITTED = "committed"
    ABANDONED = "abandoned"


#: Why a round is abandoned when a phase has lasted until its deadline.
_OVERDUE = {
    Phase.CHOOSING: "selection_not_answered",
    Phase.COLLECTING: "sums_not_collected",
    Phase.UPDATING: "update_timed_out",
}


class Round:
    """Decides one round. Events that come late, twice or from nowhere change nothing.

    Args:
        round_id: For whoever drives the round.
        policy: The cohort wanted.
        opened_at: Seconds, on the clock that all later times are read from.
        target: Devices to select, at least the policy's minimum count; by default
            what the policy says.
        released: The model that its devices start from is there already.
        answer_timeout_s: Seconds until a missing answer of selectors or
            aggregators abandons the round.
        update_timeout_s: The same for the model update.

    Raises:
        ValueError: the target is below the policy's minimum count.
    """

    def __init__(
        self,
        *,
        round_id: str,
        policy: CohortPolicy,
        opened_at: float,
        target: int | None = None,
        released: bool = True,
        answer_timeout_s: float = ANSWER_TIMEOUT_S,
        update_timeout_s: float = UPDATE_TIMEOUT_S,
    ) -> None:
        self.round_id = round_id
        self.policy = policy
        self.target = policy.selection_target if target is None else target
        if self.target < policy.minimum_count:
            raise ValueError(
                f"round {round_id!r} cannot select {self.target} devices, fewer than its minimum "
                f"of {policy.minimum_count} updates"
            )
        self._answer_timeout_s = answer_timeout_s
        self._update_timeout_s = update_timeout_s
        self._opened_at = opened_at
        self._released_at = opened_at if released else None
        self._phase = Phase.CREATED
        self._phase_since = opened_at
        self._seconds: dict[str, float] = {}
        # When the phase is looked at again, whatever else happens.
        self._due: float | None = None
        self._waiting = 0
        self._selected = 0
        self._live: set[str] = set()
        self._accepted: set[str] = set()
        self._last_accepted_at = opened_at
        self._deadline_at = opened_at
        self._in_sum: int | None = None
        self._ended: dict[str, int] = {}
        self._closed_by: ClosingReason | None = None
        self._abandoned_for: str | None = None

    @property
    def phase(self) -> Phase:
        """Where the round is now."""
        return self._phase

    @property
    def over(self) -> bool:
        """Whether the round has ended; it has no effects any more."""
        return self._phase in (Phase.COMMITTED, Phase.ABANDONED)

    @property
    def statistics(self) -> dict[str, Any]:
        """What the round's history keeps, as JSON values.

        ``target``: devices wanted; ``selected`` devices; ``accepted`` updates (in the
        sum, once that is known); ``ended``: sessions without an update, by how;
        ``unfinished``: sessions of which nothing has been heard; ``dropped``:
        those that left their update out, cut off stragglers among them, but not
        those that the round had no need of any more; ``seconds`` spent in each
        phase that has ended; ``closed_by``: why reporting closed, or None;
        ``abandoned_for``: the reason, or None.
        """
        return {
            "target": self.target,
            "selected": self._selected,
            "accepted": len(self._accepted) if self._in_sum is None else self._in_sum,
            "ended": dict(self._ended),
            "unfinished": len(self._live),
            "dropped": self._dropped,
            "seconds": dict(self._seconds),
            "closed_by": self._closed_by,
            "abandoned_for": self._abandoned_for,
        }

    def start(self) -> list[Effect]:
        """Opens the selection; a second call does nothing."""
        if self._phase is not Phase.CREATED:
            return []
        window_ends_at = self._opened_at + self.policy.selection_window_s
        opening = OpenSelection(self.target, window_ends_at)
        until = window_ends_at if self._released_at is not None else None
        return [opening, *self._enter(Phase.SELECTING, self._opened_at, until=until)]

    def handle(self, event: Event, now: float) -> list[Effect]:
        """The effects of an event that happened at ``now``, in the order to do them."""
        if self.over or self._phase is Phase.CREATED:
            return []
        effects = self._answered(event, now)
        if not effects:
            effects = self._look_at_the_clock(now)
        if not effects and isinstance(event, Tick) and self._due is not None:
            # Woken too early: without this nobody would wake the round again.
            return [WakeAt(self._due)]
        return effects

    def _answered(self, event: Event, now: float) -> list[Effect]:
        match event, self._phase:
            case PoolChanged(waiting), Phase.SELECTING:
                self._waiting = waiting
            case Released(), Phase.SELECTING if self._released_at is None:
                return self._release(now)
            case DevicesSelected(sessions), Phase.CHOOSING:
                return self._configure(sessions, now)
            case UpdateAccepted(session), _:
                return self._finished(session, None, now)
            case SessionEnded(session, how), _:
                return self._finished(session, how, now)
            case SumsCollected(accepted), Phase.COLLECTING:
                return self._collected(accepted, now)
            case UpdateApplied(), Phase.UPDATING:
                return [Commit(), *self._enter(Phase.COMMITTING, now)]
            case UpdateFailed(reason), Phase.UPDATING:
                return self._abandon("update_failed", now, reason)
            case CommitDone(), Phase.COMMITTING:
                return self._enter(Phase.COMMITTED, now)
            case CommitRefused(reason), Phase.COMMITTING:
                return self._abandon("commit_refused", now, reason)
            case Cancelled(reason), phase if phase is not Phase.COMMITTING:
                return self._abandon("cancelled", now, reason)
        return []

    def _look_at_the_clock(self, now: float) -> list[Effect]:
        if self._phase is Phase.SELECTING:
            return self._look_at_the_pool(now)
        if self._due is None or now < self._due:
            return []
        if self._phase is Phase.REPORTING:
            return self._look_for_stragglers(now)
        return self._abandon(_OVERDUE[self._phase], now)

    @property
    def _dropped(self) -> int:
        cut_off = self._closed_by in ("window_elapsed", "grace_elapsed")
        stragglers = len(self._live) if cut_off else 0
        left = sum(count for how, count in self._ended.items() if how != "goal_reached")
        return left + stragglers

    def _release(self, now: float) -> list[Effect]:
        self._released_at = now
        self._due = max(now, self._opened_at + self.policy.selection_window_s)
        return self._look_at_the_pool(now) or [WakeAt(self._due)]

    def _look_at_the_pool(self, now: float) -> list[Effect]:
        released_at = self._released_at
        if released_at is None or now < self._opened_at + self.policy.selection_window_s:
            return []
        target, minimum = self.target, self.policy.minimum_count
        # Devices that a released round is still short of get at least one window.
        timeout_at = max(
            self._opened_at + self.policy.selection_timeout_s,
            released_at + self.policy.selection_window_s,
        )
        timed_out = now >= timeout_at
        if self._waiting >= target or (timed_out and self._waiting >= minimum):
            take = CloseSelection(min(self._waiting, target))
            until = now + self._answer_timeout_s
            return [take, *self._enter(Phase.CHOOSING, now, until=until)]
        if timed_out:
            detail = f"{self._waiting} devices in the pool, {minimum} needed"
            return self._abandon("too_few_devices", now, detail)
        if self._due != timeout_at:
            self._due = timeout_at
            return [WakeAt(timeout_at)]
        return []

    def _configure(self, sessions: Iterable[str], now: float) -> list[Effect]:
        chosen = tuple(dict.fromkeys(sessions))
        self._selected = len(chosen)
        self._live = set(chosen)
        if len(chosen) < self.policy.minimum_count:
            detail = f"{len(chosen)} devices chosen, {self.policy.minimum_count} needed"
            return self._abandon("too_few_devices", now, detail)
        self._deadline_at = now + self.policy.reporting_window_s
        entered = self._enter(Phase.REPORTING, now, until=self._deadline_at)
        return [Configure(chosen, self._deadline_at), *entered]

    def _finished(self, session: str, how: Ending | None, now: float) -> list[Effect]:
        if how == "lost" and session in self._accepted:
            self._accepted.remove(session)
        elif session in self._live:
            self._live.remove(session)
        else:
            return []
        if how is None:
            self._accepted.add(session)
            self._last_accepted_at = now
        else:
            self._ended[how] = self._ended.get(how, 0) + 1
        if self._phase is not Phase.REPORTING:
            return []
        accepted = len(self._accepted)
        if accepted >= self.policy.goal_count:
            return self._close_reporting("goal_reached", now)
        if accepted + len(self._live) < self.policy.minimum_count:
            return self._close_reporting("minimum_out_of_reach", now)
        if not self._live:
            return self._close_reporting("all_ended", now)
        return self._wake_for_stragglers()

    def _reporting_ends_at(self) -> float:
        grace_s = self.policy.straggler_grace_s
        if not grace_s or len(self._accepted) < self.policy.minimum_count:
            return self._deadline_at
        return min(self._deadline_at, self._last_accepted_at + grace_s)

    def _wake_for_stragglers(self) -> list[Effect]:
        # One wake at a time is enough: each update only puts the end off.
        ends_at = self._reporting_ends_at()
        if self._due is not None and ends_at >= self._due:
            return []
        self._due = ends_at
        return [WakeAt(ends_at)]

    def _look_for_stragglers(self, now: float) -> list[Effect]:
        if now >= self._deadline_at:
            return self._close_reporting("window_elapsed", now)
        ends_at = self._reporting_ends_at()
        if now >= ends_at:
            return self._close_reporting("grace_elapsed", now)
        self._due = ends_at
        return [WakeAt(ends_at)]

    def _close_reporting(self, reason: ClosingReason, now: float) -> list[Effect]:
        self._closed_by = reason
        until = now + self._answer_timeout_s
        return [CloseReporting(reason), *self._enter(Phase.COLLECTING, now, until=until)]

    def _collected(self, accepted: int, now: float) -> list[Effect]:
        self._in_sum = accepted
        if accepted < self.policy.minimum_count:
            detail = f"{accepted} updates in the sum, {self.policy.minimum_count} needed"
            return self._abandon("too_few_updates", now, detail)
        until = now + self._update_timeout_s
        return [ApplyUpdate(accepted), *self._enter(Phase.UPDATING, now, until=until)]

    def _abandon(self, reason: str, now: float, detail: str = "") -> list[Effect]:
        self._abandoned_for = reason
        self._enter(Phase.ABANDONED, now)
        return [Abandon(reason, detail)]

    def _enter(self, phase: Phase, now: float, *, until: float | None = None) -> list[Effect]:
        if self._phase is not Phase.CREATED:
            self._seconds[self._phase] = max(0.0, now - self._phase_since)
        self._phase = phase
        self._phase_since = now
        self._due = until
        return [] if until is None else [WakeAt(until)]
