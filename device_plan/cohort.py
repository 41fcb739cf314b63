"""How many devices a round needs, and how long it waits for them."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True, kw_only=True)
class CohortPolicy:
    """The author's wish for the cohort of each round (Bonawitz et al. 2019, §2.2 and §3.3).

    Raises:
        ValueError: a value is out of its range; the message names it.
    """

    #: Updates that complete a round.
    goal_count: int
    #: Devices selected per update wanted; 1.3 covers the 6-10 % drop-out and the stragglers.
    over_selection: float = 1.3
    #: A round with at least this fraction of the goal commits when its window ends.
    minimum_fraction: float = 0.8
    #: Seconds over which check-ins are sampled before devices are chosen.
    selection_window_s: float = 10.0
    #: Seconds after which selection ends with what there is, or abandons the round.
    selection_timeout_s: float = 60.0
    #: Seconds from configuration until stragglers are cut off.
    reporting_window_s: float = 120.0

    def __post_init__(self) -> None:
        if not 1 <= self.goal_count <= 100_000:
            raise ValueError(f"goal_count must be from 1 to 100000, not {self.goal_count}")
        if not 1.0 <= self.over_selection <= 10.0:
            raise ValueError(f"over_selection must be from 1.0 to 10.0, not {self.over_selection}")
        if not 0.0 < self.minimum_fraction <= 1.0:
            raise ValueError(
                f"minimum_fraction must be above 0 and at most 1, not {self.minimum_fraction}"
            )
        for name in ("selection_window_s", "selection_timeout_s", "reporting_window_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a positive number of seconds, not {value}")
        if self.selection_timeout_s < self.selection_window_s:
            raise ValueError(
                f"selection_timeout_s ({self.selection_timeout_s}) must not be shorter than "
                f"selection_window_s ({self.selection_window_s})"
            )

    @property
    def selection_target(self) -> int:
        """Devices to select: the goal times the over-selection, rounded up."""
        # Rounding first keeps 10 * 1.1 = 11.000000000000002 from becoming 12.
        return math.ceil(round(self.goal_count * self.over_selection, 6))

    @property
    def minimum_count(self) -> int:
        """Updates below which a round is abandoned; at least one."""
        return max(1, math.ceil(round(self.goal_count * self.minimum_fraction, 6)))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "CohortPolicy":
        """Raises ValueError for an unknown, missing or out-of-range value."""
        known = {field.name: field.type for field in fields(cls)}
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(f"unknown cohort setting {unknown[0]!r}; known: {', '.join(known)}")
        if "goal_count" not in values:
            raise ValueError("the cohort needs a goal_count")
        numbers: dict[str, Any] = {}
        for name, value in values.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"{name} must be a number, not {value!r}")
            try:
                numbers[name] = int(value) if name == "goal_count" else float(value)
            except (OverflowError, ValueError) as error:
                raise ValueError(f"{name} is out of range: {value!r}") from error
            if name == "goal_count" and value != numbers[name]:
                raise ValueError(f"goal_count must be a whole number, not {value!r}")
        return cls(**numbers)
