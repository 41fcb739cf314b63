"""What a run is about: where the server's parts are, its tasks, its devices."""

from __future__ import annotations

from dataclasses import dataclass, replace

from device_plan.cohort import CohortPolicy, Strata

_COHORT = CohortPolicy(
    goal_count=3,
    over_selection=1.34,
    minimum_fraction=0.6,
    selection_window_s=1.0,
    selection_timeout_s=6.0,
    reporting_window_s=8.0,
)

_SMALL_COHORT = replace(_COHORT, goal_count=2, minimum_fraction=0.5)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Attributes:
    name: For people.
    selectors: Selector processes; 0: everything is in one process.
    devices: How many there are.
    cohort: Of each training round.
    evaluates: Whether there is an evaluation task too, and held-out devices.
    evaluation_cohort: Of each evaluation round.
    drop_out: The share of selected devices of which nothing more is heard.
    abort: The share that aborts.
    lease_ttl_s: Seconds a coordinator's lease lives.
    skew_s: How far apart the machines' wall clocks are.
    """

    name: str
    selectors: int = 0
    devices: int = 7
    cohort: CohortPolicy = _COHORT
    evaluates: bool = False
    evaluation_cohort: CohortPolicy = _SMALL_COHORT
    drop_out: float = 0.08
    abort: float = 0.04
    lease_ttl_s: float = 5.0
    skew_s: float = 0.0

    @property
    def holdout_fraction(self) -> float:
        """The share of devices that evaluate and never train."""
        return 0.3 if self.evaluates else 0.0

    @property
    def servers(self) -> tuple[str, ...]:
        """The processes that devices reach, by name."""
        if not self.selectors:
            return ("server",)
        return tuple(f"selector-{number}" for number in range(1, self.selectors + 1))


SETTINGS = (
    Setting(name="embedded"),
    Setting(name="cluster", selectors=2),
    Setting(name="embedded with evaluation", evaluates=True, devices=10),
    Setting(name="cluster with wrong clocks", selectors=3, skew_s=2.0),
    Setting(
        name="embedded with strata and separation",
        devices=9,
        cohort=replace(
            _COHORT,
            strata=Strata(attribute="country", shares={"de": 0.5}),
            min_separation_s=2.0,
        ),
    ),
    Setting(
        name="cluster without pipelining",
        selectors=2,
        cohort=replace(_COHORT, pipelined=False),
    ),
)
