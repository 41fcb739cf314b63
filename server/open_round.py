"""A round as one selector sees it, from its opening to its end."""

from __future__ import annotations

from dataclasses import dataclass, field

from server.actors.runtime import Ref
from server.aggregation.admission import Admission
from server.assignment import Opening, Work


@dataclass(slots=True, kw_only=True)
class OpenRound:
    """Mutable; guarded by the selector that owns it. Times are on the selector's clock.

    Attributes:
        opening: What it wants.
        closes_at: When its selection window ends.
        ends_at: When it is over, if nobody says so before.
        selecting: Its pool is open.
        work: What its devices do, once it is configured,
        admission: what an upload must look like,
        deadline_at: when reporting closes,
        configured_at: and since when.
        aggregators: The sums of what this selector receives, by the actor's name.
        accepted: The sessions in each of those sums, likewise.
    """

    opening: Opening
    closes_at: float
    ends_at: float
    selecting: bool = True
    work: Work | None = None
    admission: Admission | None = None
    deadline_at: float = 0.0
    configured_at: float = 0.0
    aggregators: dict[str, Ref] = field(default_factory=dict)
    accepted: dict[str, set[str]] = field(default_factory=dict)
