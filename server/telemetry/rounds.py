"""Rounds and leases as Prometheus reads them, counted from the registry.

Coordinators and master aggregators may be processes of their own, which live as long
as one round; and a round whose coordinator was killed is ended by another. What
became of all of them is in the registry, so that is where any server counts them.
"""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from server.storage.finished_rounds import FinishedRound
from server.storage.registry import Registry
from server.telemetry.labels import Labels

#: Tasks, and reasons for the end of a round, that are counted apart.
MAX_TASKS = 500
MAX_REASONS = 50

#: What the names of coordinators' leases begin with; the rest is the population.
_COORDINATOR = "coordinator/"

#: Seconds. Rounds of a demo take a second, those of phones at night an hour.
_PHASE_BUCKETS = (0.1, 0.5, 1, 5, 15, 60, 180, 600, 1200, 2400, 3600, 7200, 14400)


class RoundMetrics(Collector):
    """What the registry says, as of the last `read`.

    Every server on a database counts the same rounds, from its own start on.

    Args:
        registry: The server's.
        metrics: Where they go.
    """

    def __init__(self, registry: Registry, metrics: CollectorRegistry) -> None:
        self._leases = registry.leases
        self._finished = registry.rounds.finished()
        self._states: dict[str, tuple[int, bool]] = {}
        self._answered = False
        self._tasks = Labels(MAX_TASKS)
        self._reasons = Labels(MAX_REASONS)
        self._ended = Counter(
            "nightshift_rounds",
            "Rounds that ended, by outcome and by the reason if they were abandoned.",
            ["task", "outcome", "reason"],
            registry=metrics,
        )
        self._devices = Counter(
            "nightshift_round_devices",
            "Devices of ended rounds, by what became of them (selected counts all).",
            ["task", "fate"],
            registry=metrics,
        )
        self._phases = Histogram(
            "nightshift_round_phase_seconds",
            "Seconds that ended rounds spent in each phase.",
            ["computation", "phase"],
            buckets=_PHASE_BUCKETS,
            registry=metrics,
        )
        self._target = Gauge(
            "nightshift_round_target_devices",
            "Devices that the task's newest ended round wanted: its goal, over-selected.",
            ["task"],
            registry=metrics,
        )
        self._drop_out = Gauge(
            "nightshift_round_drop_out_ratio",
            "Share of the selected devices that the task's newest ended round lost.",
            ["task"],
            registry=metrics,
        )
        metrics.register(self)

    def read(self) -> str:
        """Counts what has ended since the last call, and sees who holds the leases.

        Raises:
            DatabaseUnavailable: nothing was counted, and no lease is known to be held.
        """
        self._answered = False
        self._states = {name: (epoch, False) for name, (epoch, _) in self._states.items()}
        for each in self._finished.take():
            self._count(each)
        self._states = {
            name.removeprefix(_COORDINATOR): (state.epoch, bool(state.owner) and not state.expired)
            for name, state in self._leases.holders(_COORDINATOR).items()
        }
        self._answered = True
        return f"{len(self._states)} leases"

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield GaugeMetricFamily(
            "nightshift_database_up",
            "1 if the database answered: rounds and leases are as they are now.",
            value=float(self._answered),
        )
        yield GaugeMetricFamily(
            "nightshift_rounds_open", "Rounds that are open.", value=self._finished.open
        )
        epochs = GaugeMetricFamily(
            "nightshift_lease_epoch",
            "How often the population's coordinator has changed, or taken its lease anew.",
            labels=["population"],
        )
        held = GaugeMetricFamily(
            "nightshift_lease_held", "1 while somebody coordinates it.", labels=["population"]
        )
        for population, (epoch, is_held) in self._states.items():
            epochs.add_metric([population], epoch)
            held.add_metric([population], float(is_held))
        yield from (epochs, held)

    def _count(self, finished: FinishedRound) -> None:
        task, statistics = self._tasks.of(finished.task_id), finished.statistics
        self._ended.labels(task, finished.outcome, self._reasons.of(finished.reason or "")).inc()
        for fate in ("selected", "accepted", "dropped", "unfinished"):
            self._devices.labels(task, fate).inc(statistics.get(fate, 0))
        for how, count in statistics.get("ended", {}).items():
            self._devices.labels(task, self._reasons.of(how)).inc(count)
        for phase, seconds in statistics.get("seconds", {}).items():
            self._phases.labels(finished.computation, phase).observe(seconds)
        if "target" in statistics:
            self._target.labels(task).set(statistics["target"])
        if statistics.get("selected"):
            self._drop_out.labels(task).set(statistics.get("dropped", 0) / statistics["selected"])
