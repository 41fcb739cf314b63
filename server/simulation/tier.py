"""The server of a simulation: `Population` and `Round` decide, a heap of events is their world.

What the actors do around the machines takes a fixed, short time here. Devices
that are selected draw their fates when they are configured; the round hears of
each at the time when it happens.
"""

import heapq
import itertools
from dataclasses import dataclass, field

import numpy as np

from device_plan.cohort import CohortPolicy
from server.protocol.over_selection import OverSelection
from server.protocol.population import (
    CancelRound,
    Population,
    ReleaseRound,
    RoundEnded,
    RoundReporting,
    StartRound,
    TaskChanged,
    TaskView,
)
from server.protocol.population import Effect as PopulationEffect
from server.protocol.round import (
    Abandon,
    ApplyUpdate,
    Cancelled,
    CloseReporting,
    CloseSelection,
    Commit,
    CommitDone,
    Configure,
    DevicesSelected,
    Effect,
    Event,
    OpenSelection,
    PoolChanged,
    Released,
    Round,
    SessionEnded,
    SumsCollected,
    Tick,
    UpdateAccepted,
    UpdateApplied,
    WakeAt,
)
from server.simulation.availability import Devices, Times
from server.simulation.figures import Figures
from server.simulation.pool import Pool, PoolFactory
from server.simulation.sessions import Fate, Fates, Sessions

TASK = "task"
#: Seconds that selectors take to choose, aggregators to hand over their sums, and
#: the store to commit.
CHOOSING_S, COLLECTING_S, COMMITTING_S = 0.5, 1.0, 0.1


@dataclass
class Ended:
    """Devices whose part is over, for whom windows are wanted.

    Attributes:
        at: When, in milliseconds.
        accepted: Their updates are in the sum.
        silent: They got no answer, and come back by themselves.
    """

    devices: Devices
    at: Times
    accepted: bool = False
    silent: bool = False


@dataclass
class _Open:
    round: Round
    number: int
    opened_at: float
    pool: Pool | None = None
    chosen: Devices = field(default_factory=lambda: np.empty(0, np.int32))
    sessions: Sessions | None = None
    next_session: int = 0
    accepted: int = 0
    configured_at: float | None = None
    closed: bool = False


class Tier:
    """Runs one training task of one population.

    Args:
        cohort: Of its rounds.
        pools: Makes their pools.
        fates: Of the selected devices.
        figures: Where it is counted.
        update_s: Seconds that a model update takes.
    """

    def __init__(
        self,
        *,
        cohort: CohortPolicy,
        pools: PoolFactory,
        fates: Fates,
        figures: Figures,
        update_s: float,
    ) -> None:
        self._cohort = cohort
        self._pools = pools
        self._fates = fates
        self._figures = figures
        self._update_s = update_s
        self._population = Population(name="simulated")
        self._events: list[tuple[float, int, str, Event | Tick | None]] = []
        self._numbers = itertools.count()
        self._open: dict[str, _Open] = {}
        self._over_selection = OverSelection()
        self._head = 0
        self._reporting_s = 0.0
        self.selecting: Pool | None = None
        #: Devices to be answered; whoever drives the simulation takes them from here.
        self.ended: list[Ended] = []
        #: (devices a second, round period) that pace steering is to aim at, when new.
        self.demand: tuple[float, float] | None = None
        view = TaskView(
            task_id=TASK,
            computation="training",
            status="active",
            rounds_target=1 << 60,
            cohort=cohort,
        )
        self._decided(self._population.handle(TaskChanged(view), 0.0), 0.0)

    @property
    def next_event_at(self) -> float:
        """Seconds; nothing happens here before, unless the pool changes."""
        return self._events[0][0] if self._events else float("inf")

    def advance(self, now: float) -> None:
        """Lets everything happen that is due until then."""
        while self._events and self._events[0][0] <= now:
            at, _, round_id, event = heapq.heappop(self._events)
            if not round_id:
                self._decided(self._population.handle(Tick(), at), at)
            elif event is None:
                self._next_session(round_id, at)
            else:
                self._tell(round_id, event, at)

    def pool_changed(self, now: float) -> None:
        """Tells the selecting round how many are waiting."""
        for round_id, opened in list(self._open.items()):
            if opened.pool is not None:
                self._tell(round_id, PoolChanged(len(opened.pool.waiting)), now)

    def _at(self, at: float, round_id: str, event: Event | Tick | None) -> None:
        heapq.heappush(self._events, (at, next(self._numbers), round_id, event))

    def _decided(self, effects: list[PopulationEffect], now: float) -> None:
        for effect in effects:
            match effect:
                case WakeAt(at):
                    self._at(at, "", Tick())
                case StartRound(number=number, base_round=base_round):
                    self._start(number, now, released=base_round is not None)
                case ReleaseRound(round_id=round_id, number=number):
                    self._open[round_id].number = number
                    self._tell(round_id, Released(), now)
                case CancelRound(round_id=round_id):
                    self._tell(round_id, Cancelled("cancelled"), now)

    def _start(self, number: int, now: float, *, released: bool) -> None:
        round_id = f"round-{next(self._numbers)}"
        machine = Round(
            round_id=round_id,
            policy=self._cohort,
            opened_at=now,
            target=self._over_selection.target(self._cohort),
            released=released,
        )
        self._open[round_id] = _Open(machine, number, now)
        self._decided(self._population.round_started(TASK, round_id), now)
        self._do(round_id, machine.start(), now)

    def _tell(self, round_id: str, event: Event, now: float) -> None:
        opened = self._open.get(round_id)
        if opened is not None:
            self._do(round_id, opened.round.handle(event, now), now)

    def _do(self, round_id: str, effects: list[Effect], now: float) -> None:
        opened = self._open[round_id]
        for effect in effects:
            match effect:
                case WakeAt(at):
                    self._at(at, round_id, Tick())
                case OpenSelection(target=target):
                    self._open_selection(opened, target)
                case CloseSelection(take):
                    self._choose(opened, take, now)
                case Configure():
                    self._configure(opened, now)
                    event = RoundReporting(TASK, round_id)
                    self._decided(self._population.handle(event, now), now)
                case CloseReporting():
                    self._close_reporting(opened, now)
                    self._at(now + COLLECTING_S, round_id, SumsCollected(opened.accepted))
                case ApplyUpdate():
                    self._at(now + self._update_s, round_id, UpdateApplied())
                case Commit():
                    self._at(now + COMMITTING_S, round_id, CommitDone())
                case Abandon():
                    self._release(opened, now)
        if opened.round.over and self._open.pop(round_id, None) is not None:
            self._over(round_id, opened, now)

    def _open_selection(self, opened: _Open, target: int) -> None:
        opened.pool = self._pools(opened.round.round_id, target)
        self.selecting = opened.pool
        # Without the wait for devices, which is what pace steering is to change.
        window_s, reporting_s = self._cohort.selection_window_s, self._reporting_s
        at_once = self._cohort.pipelined
        period_s = max(window_s, reporting_s) if at_once else window_s + reporting_s
        self.demand = (target / period_s, period_s)

    def _choose(self, opened: _Open, take: int, now: float) -> None:
        assert opened.pool is not None
        opened.chosen, rest = opened.pool.take(take)
        self._close_pool(opened)
        self._figures.turned_away(now, len(rest))
        self._reject(rest, now)
        sessions = tuple(map(str, opened.chosen.tolist()))
        self._at(now + CHOOSING_S, opened.round.round_id, DevicesSelected(sessions))

    def _configure(self, opened: _Open, now: float) -> None:
        opened.configured_at = now
        opened.sessions = self._fates.draw(opened.chosen, round(now * 1000))
        self._figures.configured(now, opened.sessions)
        self._at(float(opened.sessions.ends[0]) / 1000, opened.round.round_id, None)

    def _next_session(self, round_id: str, now: float) -> None:
        opened = self._open.get(round_id)
        if opened is None or opened.closed or opened.sessions is None:
            return
        sessions, place = opened.sessions, opened.next_session
        opened.next_session = place + 1
        if place + 1 < len(sessions.ends):
            self._at(float(sessions.ends[place + 1]) / 1000, round_id, None)
        fate = Fate(sessions.fates[place])
        session = str(sessions.devices[place])
        part = slice(place, place + 1)
        if fate is Fate.UPLOADED:
            opened.accepted += 1
            self.ended.append(Ended(sessions.devices[part], sessions.ends[part], accepted=True))
            self._tell(round_id, UpdateAccepted(session), now)
        elif fate is Fate.VANISHED:
            self.ended.append(Ended(sessions.devices[part], sessions.ends[part], silent=True))
        else:
            self.ended.append(Ended(sessions.devices[part], sessions.ends[part]))
            self._tell(round_id, SessionEnded(session, "aborted"), now)

    def _close_reporting(self, opened: _Open, now: float) -> None:
        assert opened.configured_at is not None
        seconds = now - opened.configured_at
        self._reporting_s = (self._reporting_s + seconds) / 2 if self._reporting_s else seconds
        self._figures.reported(now, opened.accepted)
        self._release(opened, now)

    def _release(self, opened: _Open, now: float) -> None:
        """Whoever is still in the round will hear, once done, that it is too late."""
        if opened.pool is not None:
            waiting = opened.pool.take(0)[1]
            self._figures.turned_away(now, len(waiting))
            self._reject(waiting, now)
            self._close_pool(opened)
        sessions = opened.sessions
        if opened.closed:
            return
        opened.closed = True
        if sessions is None:
            self._figures.turned_away(now, len(opened.chosen))
            self._reject(opened.chosen, now)
            return
        late = slice(opened.next_session, None)
        silent = sessions.fates[late] == Fate.VANISHED
        for chosen, how in ((silent, True), (~silent, False)):
            if chosen.any():
                devices, ends = sessions.devices[late][chosen], sessions.ends[late][chosen]
                self.ended.append(Ended(devices, ends, silent=how))

    def _close_pool(self, opened: _Open) -> None:
        if self.selecting is opened.pool:
            self.selecting = None
        opened.pool = None

    def _reject(self, devices: Devices, now: float) -> None:
        if len(devices):
            at = np.full(len(devices), round(now * 1000), np.int32)
            self.ended.append(Ended(devices, at))

    def _over(self, round_id: str, opened: _Open, now: float) -> None:
        statistics = opened.round.statistics
        committed = statistics["abandoned_for"] is None
        if committed:
            self._head = max(self._head, opened.number)
        self._over_selection.observe(statistics)
        self._figures.round_over(now, opened.opened_at, statistics)
        event = RoundEnded(TASK, round_id, committed, head_round=self._head)
        self._decided(self._population.handle(event, now), now)
