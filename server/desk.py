"""A selector's desk for one population: its settings, pools, pace and counts."""

from __future__ import annotations

import functools
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from device_plan import runtimes
from device_plan.wire_pb2 import RUNTIME_NOT_SUPPORTED, Computation
from server.assignment import Answer, Variants
from server.open_round import OpenRound
from server.protocol.holdout import Holdout
from server.protocol.pace_steering import PacePolicy, PaceSteering
from server.protocol.quota import Quota
from server.upload import UploadMemory

#: Runtimes that are counted apart when their devices are turned away.
MAX_COUNTED_RUNTIMES = 64

#: Devices whose last participation a selector remembers itself. The registry
#: remembers all that matter; this only answers most of them before they wait.
REMEMBERED_PARTICIPANTS = 100_000

#: A population's devices report few different runtimes, each of them many times.
variant_for = functools.lru_cache(maxsize=4096)(runtimes.choose)


@dataclass(frozen=True, kw_only=True)
class PopulationSettings:
    """What a selector must know of a population to serve it.

    Attributes:
        holdout_fraction: The share of its devices that evaluate and never train.
        pace: The bounds on retry windows.
        offers: The variants of each task that goes on, by what it computes.
        resting: No task is active: devices need not come back soon.
        max_sessions: Sessions that may be open here at once; None: no bound.
        max_upload_bytes: Likewise, bytes of unfinished uploads.
    """

    name: str
    holdout_fraction: float
    holdout_salt: bytes
    pace: PacePolicy
    offers: Mapping[Computation, Sequence[Variants]] = field(default_factory=dict)
    resting: bool = False
    max_sessions: int | None = None
    max_upload_bytes: int | None = None


class Desk:
    """Mutable; guarded by the selector that owns it.

    Args:
        settings: Of the population.
        quota: For its pools.
        memory: Of the whole selector; the population's share is taken from it.
    """

    def __init__(self, *, settings: PopulationSettings, quota: Quota, memory: UploadMemory) -> None:
        self.settings = settings
        self.holdout = Holdout(settings.holdout_salt, settings.holdout_fraction)
        self.quota = quota
        self.pace = PaceSteering(policy=settings.pace)
        self.memory = UploadMemory(limit=settings.max_upload_bytes, within=memory)
        #: Check-ins turned away, by what their runtime was taken for.
        self.unsupported: Counter[str] = Counter()
        #: Seconds that recent rounds took from their configuration to their end.
        self.reporting_s = 0.0
        self._participated: OrderedDict[tuple[str, bytes], float] = OrderedDict()

    def update(self, settings: PopulationSettings) -> None:
        """The population's tasks or limits have changed."""
        rests = settings.resting and not self.settings.resting
        self.settings = settings
        self.holdout = Holdout(settings.holdout_salt, settings.holdout_fraction)
        self.memory.limit = settings.max_upload_bytes
        if rests:
            self.pace.steer(demand_per_s=0.0, round_period_s=1.0)

    def steer(self, opened: Sequence[OpenRound]) -> None:
        """Aims pace steering at what the population's open rounds can use.

        A task wants its round's devices once a period: the selection window and the
        time it reports, or the longer of the two if its rounds are pipelined. That
        it may have to wait for devices is left out, because that is what pace
        steering is to change. Several selectors share the demand, and each sees all
        devices, which check in at any of them.

        Args:
            opened: The population's rounds, oldest first.
        """
        newest = {each.opening.task_id: each.opening for each in opened}
        periods = {
            task_id: max(opening.window_s, self.reporting_s)
            if opening.pipelined
            else opening.window_s + self.reporting_s
            for task_id, opening in newest.items()
        }
        demand_per_s = sum(
            opening.capacity / opening.selectors / periods[task_id]
            for task_id, opening in newest.items()
            if periods[task_id] > 0
        )
        if demand_per_s > 0:
            self.pace.steer(
                demand_per_s=demand_per_s,
                round_period_s=max(periods.values()),
                share=1 / max(opening.selectors for opening in newest.values()),
            )

    def reported_for(self, seconds: float) -> None:
        """A round has ended so long after its configuration."""
        self.reporting_s = (self.reporting_s + seconds) / 2 if self.reporting_s else seconds

    def supports(self, computation: Computation, runtime: str) -> bool:
        """Whether a task of that kind has a variant for the runtime, or there is no task."""
        offers = self.settings.offers.get(computation, ())
        return not offers or any(variant_for(variants, runtime) for variants in offers)

    def unsupported_answer(self, runtime: str) -> Answer:
        """What a device is told whose runtime no task supports; it is counted."""
        known = runtimes.parse(runtime)
        name = "unknown" if known is None else str(known)
        if name not in self.unsupported and len(self.unsupported) >= MAX_COUNTED_RUNTIMES:
            name = "others"
        self.unsupported[name] += 1
        passed = runtimes.summary(
            other
            for offers in self.settings.offers.values()
            for variants in offers
            for _, others in variants
            for other in others
        )
        return Answer(
            reason=RUNTIME_NOT_SUPPORTED,
            message=f"no task of this population passed its checks on {runtime!r}; they did on: "
            f"{passed}. Update the app's TFLite runtime",
            windows=self.pace.policy.permanent,
        )

    def participated(self, task_id: str, device_id: bytes, now: float) -> None:
        """A device's update for a task with a minimum separation is in the sum."""
        self._participated[task_id, device_id] = now
        self._participated.move_to_end((task_id, device_id))
        if len(self._participated) > REMEMBERED_PARTICIPANTS:
            self._participated.popitem(last=False)

    def separation_left(self, opened: OpenRound, device_id: bytes, now: float) -> float:
        """Seconds until the device may take part in the round's task again, as known here."""
        separation_s = opened.opening.min_separation_s
        if not separation_s:
            return 0.0
        last = self._participated.get((opened.opening.task_id, device_id))
        return 0.0 if last is None else max(0.0, last + separation_s - now)
