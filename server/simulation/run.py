"""One simulation: a fleet checks in, the state machines decide, the clock is virtual."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.protocol.pace_steering import PaceSteering
from server.simulation.availability import Availability, Devices, Times
from server.simulation.calendar import NEVER, Calendar, seconds_of
from server.simulation.figures import HOUR_S, Figures
from server.simulation.pool import pools
from server.simulation.scenario import Scenario
from server.simulation.sessions import Fates
from server.simulation.tier import Tier

#: Steps on a page of the calendar.
STEPS = 600
#: Devices whose availability is measured each hour.
_SAMPLE = 20_000
#: Relative half-width of the delays that devices draw by themselves.
_OWN_SPREAD = 0.2

#: Told the simulated seconds that are done.
Progress = Callable[[float], None]


def run(
    scenario: Scenario, *, one_by_one: bool = False, progress: Progress = lambda _: None
) -> dict[str, Any]:
    """Simulates, and returns the figures as JSON values.

    Args:
        one_by_one: Every check-in is a call of its own on `Quota` and `PaceSteering`,
            as in the server; else they go in batches. For small fleets.
        progress: Called now and then.
    """
    return _Run(scenario, one_by_one=one_by_one).whole(progress)


class _Run:
    def __init__(self, scenario: Scenario, *, one_by_one: bool) -> None:
        self._scenario = scenario
        self._end_ms = round(scenario.seconds * 1000)
        self._step_ms = round(scenario.step_s * 1000)
        self._rng = np.random.default_rng([scenario.seed, 5])
        self._availability = Availability(
            count=scenario.devices,
            zones=scenario.time_zones,
            habits=scenario.habits,
            seed=scenario.seed,
        )
        self._until = np.zeros(scenario.devices, np.int32)
        due = np.full(scenario.devices, NEVER, np.int32)
        self._calendar = Calendar(due, step_ms=self._step_ms, steps=STEPS)
        self._figures = Figures(seconds=scenario.seconds, goal_count=scenario.cohort.goal_count)
        fates = Fates(scenario, self._availability, self._until)
        self._tier = Tier(
            cohort=scenario.cohort,
            pools=pools(one_by_one=one_by_one, seed=scenario.seed),
            fates=fates,
            figures=self._figures,
            update_s=scenario.update_s,
        )
        self._pacing = Pacing(scenario, one_by_one=one_by_one)
        self._unsupported = round(scenario.unsupported * scenario.devices)

    def whole(self, progress: Progress) -> dict[str, Any]:
        self._roll_out()
        scenario, page_ms = self._scenario, self._calendar.page_ms
        wake_ms = None
        if scenario.wake_at_s is not None:
            wake_ms = round(scenario.wake_at_s * 1000) // page_ms * page_ms
        hour = 0
        for begin in range(0, self._end_ms, page_ms):
            if begin == wake_ms:
                self._wake(begin)
            while hour * HOUR_S * 1000 < min(begin + page_ms, self._end_ms):
                self._figures.available(hour, self._available_share(hour))
                hour += 1
            self._calendar.turn_to(begin)
            for step in range(STEPS):
                if begin + step * self._step_ms >= self._end_ms:
                    break
                self._step(begin, step)
            progress(min(begin + page_ms, self._end_ms) / 1000)
        # The first day is when the fleet arrives and the day's course is learnt.
        settled_s = 86_400.0 if scenario.days >= 2 else 0.0
        return self._figures.to_json(
            settled_s=settled_s, wake_at_s=None if wake_ms is None else wake_ms / 1000
        )

    def _roll_out(self) -> None:
        scenario = self._scenario
        size = 1 << 20
        for first in range(0, scenario.devices, size):
            devices = np.arange(first, min(first + size, scenario.devices), dtype=np.int32)
            told = self._rng.random(len(devices)) * scenario.rollout_s * 1000
            begin, end = self._availability.next_stretch(devices, told.astype(np.int32))
            self._calendar.due[devices], self._until[devices] = begin, end

    def _wake(self, begin: int) -> None:
        scenario = self._scenario
        due, size = self._calendar.due, 1 << 20
        for first in range(0, scenario.devices, size):
            devices = np.arange(first, min(first + size, scenario.devices), dtype=np.int32)
            chosen = self._rng.random(len(devices)) < scenario.wake_share
            devices = devices[chosen & (due[devices] != NEVER)]
            at = begin + self._rng.random(len(devices)) * scenario.wake_within_s * 1000
            now = np.full(len(devices), begin, np.int32)
            start, end = self._availability.next_stretch(devices, now)
            idle = start == begin
            devices = devices[idle]
            due[devices], self._until[devices] = at[idle].astype(np.int32), end[idle]

    def _available_share(self, hour: int) -> float:
        count = min(_SAMPLE, self._scenario.devices)
        at = np.full(count, hour * HOUR_S * 1000, np.int32)
        begin, _ = self._availability.next_stretch(np.arange(count, dtype=np.int32), at)
        return float((begin == at).mean())

    def _step(self, begin: int, step: int) -> None:
        begins_ms = begin + step * self._step_ms
        now = begins_ms / 1000
        tier = self._tier
        devices = self._calendar.take(step)
        if not len(devices) and tier.next_event_at > now and not tier.ended:
            return
        tier.advance(now)
        if tier.demand is not None:
            self._pacing.steer(*tier.demand)
            tier.demand = None
        if len(devices):
            self._arrive(devices, begins_ms, now, step)
        self._waiting(now, step)
        ended, tier.ended = tier.ended, []
        for silent, accepted in ((True, False), (False, False), (False, True)):
            chosen = [e for e in ended if e.silent is silent and e.accepted is accepted]
            if chosen:
                who = np.concatenate([e.devices for e in chosen])
                at = np.concatenate([e.at for e in chosen])
                if silent:
                    self._come_by_themselves(who, at, step)
                else:
                    self._answer(who, at, now, step, accepted=accepted)

    def _arrive(self, devices: Devices, begins_ms: int, now: float, step: int) -> None:
        figures = self._figures
        at = self._calendar.due[devices]
        by_second = seconds_of(at, begins_ms // 1000 * 1000, -(-self._step_ms // 1000))
        figures.arrived(begins_ms // 1000, by_second)
        lost = self._rng.random(len(devices)) < self._scenario.loss
        if lost.any():
            figures.count("no_answer", now, int(lost.sum()))
            self._come_by_themselves(devices[lost], at[lost], step)
            devices, at = devices[~lost], at[~lost]
        unsupported = devices < self._unsupported
        if unsupported.any():
            self._refuse(devices[unsupported], at[unsupported], now, step)
            devices, at = devices[~unsupported], at[~unsupported]
        self._pacing.observe(devices, now)
        if (pool := self._tier.selecting) is None:
            turned_away = devices
        else:
            self._calendar.due[devices] = NEVER
            turned_away = pool.offer(devices)
            at = np.full(len(turned_away), begins_ms, np.int32)
        figures.turned_away(now, len(turned_away))
        self._answer(turned_away, at, now, step)

    def _waiting(self, now: float, step: int) -> None:
        pool = self._tier.selecting
        if pool is None:
            return
        waiting = pool.waiting
        self._figures.waiting(now, len(waiting))
        gone = waiting[self._until[waiting] <= now * 1000]
        if len(gone):
            pool.leave(gone)
            self._figures.count("withdrawn", now, len(gone))
            self._answer(gone, np.full(len(gone), now * 1000, np.int32), now, step)
        self._tier.pool_changed(now)

    def _answer(
        self, devices: Devices, at: Times, now: float, step: int, *, accepted: bool = False
    ) -> None:
        if not self._scenario.steered:
            self._come_by_themselves(devices, at, step)
        elif len(devices):
            delays = self._pacing.delays(len(devices), now, self._rng, accepted=accepted)
            self._come_back(devices, at + delays * 1000, step)

    def _refuse(self, devices: Devices, at: Times, now: float, step: int) -> None:
        self._figures.count("unsupported", now, len(devices))
        if not self._scenario.steered:
            self._come_by_themselves(devices, at, step)
            return
        low, high = self._scenario.pace.permanent.if_rejected
        delays = low + (high - low) * self._rng.random(len(devices))
        self._come_back(devices, at + delays * 1000, step)

    def _come_by_themselves(self, devices: Devices, at: Times, step: int) -> None:
        spread = 1 + _OWN_SPREAD * (2 * self._rng.random(len(devices), np.float32) - 1)
        self._come_back(devices, at + self._scenario.own_retry_s * 1000 * spread, step)

    def _come_back(self, devices: Devices, at: NDArray[np.floating], step: int) -> None:
        """Once the delay is over, and as soon as the device is available then."""
        when = np.minimum(at, NEVER - 1).astype(np.int32)
        # What happens after the end need not be known.
        away = np.flatnonzero((when >= self._until[devices]) & (when < self._end_ms))
        if len(away):
            begin, end = self._availability.next_stretch(devices[away], when[away])
            when[away] = begin
            self._until[devices[away]] = end
        self._calendar.schedule(devices, when, step)


class Pacing:
    """Pace steering of all selectors; devices go to any of them.

    Args:
        scenario: Names the policy and how many there are.
        one_by_one: A call for each device.
    """

    def __init__(self, scenario: Scenario, *, one_by_one: bool) -> None:
        self._steered = scenario.steered
        self._one_by_one = one_by_one
        self._selectors = [PaceSteering(policy=scenario.pace) for _ in range(scenario.selectors)]
        self._turn = 0
        rng = random.Random(f"{scenario.seed} hashes")
        self._salt = np.uint64(rng.getrandbits(63))

    def steer(self, demand_per_s: float, round_period_s: float) -> None:
        share = 1 / len(self._selectors)
        for pace in self._selectors:
            pace.steer(
                demand_per_s=demand_per_s * share, round_period_s=round_period_s, share=share
            )

    def observe(self, devices: Devices, now: float) -> None:
        if not self._steered:
            return
        bits = devices.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + self._salt
        bits = (bits ^ (bits >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
        hashes = (bits >> np.uint64(32)).tolist()
        many = len(self._selectors)
        for place, pace in enumerate(self._selectors):
            if self._one_by_one:
                for each in hashes[place::many]:
                    pace.observe(each, now)
            else:
                pace.observe_all(hashes[place::many], now)

    def delays(
        self, count: int, now: float, rng: np.random.Generator, *, accepted: bool
    ) -> NDArray[np.float64]:
        """Drawn as devices draw them, from the windows of as many answers."""
        low, high = np.empty(count), np.empty(count)
        many = len(self._selectors)
        for place, pace in enumerate(self._selectors):
            low[place::many], high[place::many] = self._windows(
                pace, len(range(place, count, many)), now, accepted
            )
        return low + (high - low) * rng.random(count)

    def _windows(
        self, pace: PaceSteering, count: int, now: float, accepted: bool
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if not count:
            return np.empty(0), np.empty(0)
        if self._one_by_one:
            windows, places = [pace.current(now) for _ in range(count)], np.arange(count)
        else:
            answers, first = pace.answers(now, count)
            windows, places = list(answers), (first + np.arange(count)) % len(answers)
        edges = np.array([w.if_accepted if accepted else w.if_rejected for w in windows])
        return edges[places, 0], edges[places, 1]
