"""How many devices a round needs, which ones, and how long it waits for them."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

#: Values of an attribute that a cohort may be stratified by.
MAX_STRATA = 100
#: Characters of an attribute's name or value, as on the wire.
MAX_ATTRIBUTE_LENGTH = 64
#: The stratum of the devices whose attribute has none of the named values.
OTHERS = ""


@dataclass(frozen=True, kw_only=True)
class Strata:
    """Shares of the cohort by an attribute that devices report when they check in.

    A stratum is named by the attribute's value; the devices that have no or another
    value are the stratum "", whose share is what the others leave.

    Raises:
        ValueError: a value is out of its range; the message names it.
    """

    #: The attribute's name, e.g. "country".
    attribute: str
    #: The share of the cohort for each value, e.g. {"de": 0.5, "fr": 0.25}; at most 1 in all.
    shares: Mapping[str, float] = field(hash=False)
    #: Places that a stratum cannot fill stay empty; else the other strata fill them.
    strict: bool = False

    def __post_init__(self) -> None:
        if not _is_text(self.attribute):
            raise ValueError(
                "the attribute of strata must be a text of 1 to "
                f"{MAX_ATTRIBUTE_LENGTH} characters, not {self.attribute!r}"
            )
        if not isinstance(self.shares, Mapping) or not 1 <= len(self.shares) <= MAX_STRATA:
            raise ValueError(
                f"the shares of strata must be a mapping of 1 to {MAX_STRATA} values, "
                f"not {self.shares!r}"
            )
        shares: dict[str, float] = {}
        for value, share in self.shares.items():
            if not _is_text(value):
                raise ValueError(
                    "a value of the strata's attribute must be a text of 1 to "
                    f"{MAX_ATTRIBUTE_LENGTH} characters, not {value!r}"
                )
            shares[value] = _number(f"the share of {value!r}", share)
            if not 0.0 < shares[value] <= 1.0:
                raise ValueError(
                    f"the share of {value!r} must be above 0 and at most 1, not {share}"
                )
        if math.fsum(shares.values()) > 1.0 + 1e-9:
            raise ValueError(
                f"the shares of strata must be at most 1 together, not {math.fsum(shares.values())}"
            )
        if not isinstance(self.strict, bool):
            raise ValueError(f"strict must be true or false, not {self.strict!r}")
        object.__setattr__(self, "shares", shares)

    @property
    def names(self) -> tuple[str, ...]:
        """All strata, that of the others last."""
        return (*self.shares, OTHERS)

    def share(self, stratum: str) -> float:
        """The stratum's share of the cohort. Raises KeyError if there is no such stratum."""
        if stratum != OTHERS:
            return self.shares[stratum]
        left = 1.0 - math.fsum(self.shares.values())
        # What rounding leaves of shares that are 1 together is not a share.
        return left if left > 1e-9 else 0.0

    @property
    def all_shares(self) -> dict[str, float]:
        """Every stratum's share of the cohort, that of the others last; together 1."""
        return {stratum: self.share(stratum) for stratum in self.names}

    def of(self, attributes: Mapping[str, str]) -> str:
        """The stratum of a device with these attributes."""
        value = attributes.get(self.attribute, OTHERS)
        return value if value in self.shares else OTHERS

    @classmethod
    def from_json(cls, values: Any) -> "Strata":
        """Raises ValueError for an unknown, missing or out-of-range value."""
        if not isinstance(values, Mapping):
            raise ValueError(f"strata must be an object, not {values!r}")
        known = [each.name for each in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(f"unknown setting {unknown[0]!r} of strata; known: {', '.join(known)}")
        for name in ("attribute", "shares"):
            if name not in values:
                raise ValueError(f"strata need {name}")
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class Participation:
    """How often a device may take part in a task; a part of `CohortPolicy`."""

    #: Seconds from a device's update until it may be selected again; 0: none.
    min_separation_s: float
    #: Updates that one device may give; 0: no bound.
    max_participations: int


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
    #: Derive the over-selection from the drop-out of the task's recent rounds; the first
    #: rounds use the one above.
    adaptive_over_selection: bool = True
    #: The derived over-selection is at least this,
    over_selection_min: float = 1.0
    #: and at most this, or the one above if that is more.
    over_selection_max: float = 2.0
    #: A round with at least this fraction of the goal commits when its window ends.
    minimum_fraction: float = 0.8
    #: Seconds over which check-ins are sampled before devices are chosen.
    selection_window_s: float = 10.0
    #: Seconds after which selection ends with what there is, or abandons the round.
    selection_timeout_s: float = 60.0
    #: Seconds from configuration until stragglers are cut off.
    reporting_window_s: float = 120.0
    #: Seconds without another update after which a round that has its minimum cuts its
    #: stragglers off; 0: only when the reporting window ends.
    straggler_grace_s: float = 0.0
    #: The selection of a training task's next round fills while a round reports.
    pipelined: bool = True
    #: By which attribute of the devices the cohort is stratified; None: not at all.
    strata: Strata | None = None
    #: Seconds from a device's update to the task until it may be selected for it again.
    min_separation_s: float = 0.0
    #: Updates that one device may give to the task; 0: no bound.
    max_participations: int = 0
    #: The task's share of devices, relative to the population's other tasks of its kind.
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.goal_count <= 100_000:
            raise ValueError(f"goal_count must be from 1 to 100000, not {self.goal_count}")
        for name in ("over_selection", "over_selection_min", "over_selection_max"):
            value = getattr(self, name)
            if not 1.0 <= value <= 10.0:
                raise ValueError(f"{name} must be from 1.0 to 10.0, not {value}")
        if self.over_selection_min > self.over_selection_max:
            raise ValueError(
                f"over_selection_min ({self.over_selection_min}) must be at most "
                f"over_selection_max ({self.over_selection_max})"
            )
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
        for name in ("straggler_grace_s", "min_separation_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be 0 or a number of seconds, not {value}")
        if not 0 <= self.max_participations <= 1_000_000_000:
            raise ValueError(
                f"max_participations must be from 0 to 1000000000, not {self.max_participations}"
            )
        if not 0.001 <= self.weight <= 1000.0:
            raise ValueError(f"weight must be from 0.001 to 1000, not {self.weight}")

    @property
    def selection_target(self) -> int:
        """Devices to select: the goal times the over-selection, rounded up."""
        return self.selected_at(self.over_selection)

    def selected_at(self, over_selection: float) -> int:
        """Devices to select with another over-selection, rounded up."""
        # Rounding first keeps 10 * 1.1 = 11.000000000000002 from becoming 12.
        return math.ceil(round(self.goal_count * over_selection, 6))

    @property
    def minimum_count(self) -> int:
        """Updates below which a round is abandoned; at least one."""
        return max(1, math.ceil(round(self.goal_count * self.minimum_fraction, 6)))

    @property
    def participation(self) -> Participation | None:
        """How often a device may take part; None if that is not bounded."""
        if not self.min_separation_s and not self.max_participations:
            return None
        return Participation(
            min_separation_s=self.min_separation_s, max_participations=self.max_participations
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "CohortPolicy":
        """Raises ValueError for an unknown, missing or out-of-range value."""
        known = {each.name: each.type for each in fields(cls)}
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(f"unknown cohort setting {unknown[0]!r}; known: {', '.join(known)}")
        if "goal_count" not in values:
            raise ValueError("the cohort needs a goal_count")
        settings: dict[str, Any] = {}
        for name, value in values.items():
            if known[name] is bool:
                if not isinstance(value, bool):
                    raise ValueError(f"{name} must be true or false, not {value!r}")
                settings[name] = value
            elif name == "strata":
                settings[name] = None if value is None else Strata.from_json(value)
            elif known[name] is int:
                settings[name] = _whole_number(name, value)
            else:
                settings[name] = _number(name, value)
        return cls(**settings)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= MAX_ATTRIBUTE_LENGTH


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} must be a number, not {value!r}")
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError(f"{name} is out of range: {value!r}") from error


def _whole_number(name: str, value: Any) -> int:
    if not math.isfinite(_number(name, value)):
        raise ValueError(f"{name} is out of range: {value!r}")
    if value != int(value):
        raise ValueError(f"{name} must be a whole number, not {value!r}")
    return int(value)
