"""Whether a device may take part again, after what is known of its past."""

from typing import Literal, Protocol

from device_plan.cohort import Participation

#: Why a device may not: its last time is too recent, or it was there often enough.
Ineligible = Literal["recent", "enough"]


class Past(Protocol):
    """What is known of a device's participations in a task's committed rounds."""

    @property
    def count(self) -> int:
        """How many."""

    @property
    def last_at(self) -> float:
        """When the last one was, in seconds."""


def eligible(policy: Participation, past: Past, now: float) -> Ineligible | None:
    """None if the device may take part at ``now`` (seconds), else why not.

    A clock that was set back makes no device wait longer than the separation.
    """
    if policy.max_participations and past.count >= policy.max_participations:
        return "enough"
    if 0 <= now - past.last_at < policy.min_separation_s:
        return "recent"
    return None
