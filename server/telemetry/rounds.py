"""What is counted and logged of rounds: by whoever runs them, as they go."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from server.telemetry.labels import Labels
from server.telemetry.logs import event_log

_log = event_log("server.rounds")

#: Tasks, and reasons for the end of a round, that are counted apart.
MAX_TASKS = 500
MAX_REASONS = 50

#: Seconds. Rounds of a demo take a second, those of phones at night an hour.
_PHASE_BUCKETS = (0.1, 0.5, 1, 5, 15, 60, 180, 600, 1200, 2400, 3600, 7200, 14400)
_UPDATE_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


@dataclass(frozen=True, kw_only=True)
class RoundEnd:
    """A round that has ended; picklable, so that it may be told to another process.

    Attributes:
        reason: Why it was abandoned, a word of `server.protocol.round`; "" if it was not.
        detail: A sentence more.
        statistics: Of the `Round`: devices by what became of them, "target", and
            "seconds" by phase.
    """

    population: str
    task_id: str
    computation: str
    round_id: str
    number: int
    outcome: Literal["committed", "abandoned"]
    seconds: float
    reason: str = ""
    detail: str = ""
    statistics: Mapping[str, Any] = field(default_factory=dict)


class RoundTelemetry:
    """Counts rounds and logs their events. Thread-safe.

    Args:
        registry: Where its metrics go.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._tasks = Labels(MAX_TASKS)
        self._reasons = Labels(MAX_REASONS)
        self._ended = Counter(
            "nightshift_rounds",
            "Rounds that ended, by outcome and by the reason if they were abandoned.",
            ["task", "outcome", "reason"],
            registry=registry,
        )
        self._devices = Counter(
            "nightshift_round_devices",
            "Devices of ended rounds, by what became of them (selected counts all).",
            ["task", "fate"],
            registry=registry,
        )
        self._phases = Histogram(
            "nightshift_round_phase_seconds",
            "Seconds that ended rounds spent in each phase.",
            ["computation", "phase"],
            buckets=_PHASE_BUCKETS,
            registry=registry,
        )
        self._target = Gauge(
            "nightshift_round_target_devices",
            "Devices that the task's newest ended round wanted: its goal, over-selected.",
            ["task"],
            registry=registry,
        )
        self._drop_out = Gauge(
            "nightshift_round_drop_out_ratio",
            "Share of the selected devices that the task's newest ended round lost.",
            ["task"],
            registry=registry,
        )
        self._open: set[str] = set()
        Gauge(
            "nightshift_rounds_open", "Rounds that are open here.", registry=registry
        ).set_function(lambda: len(self._open))
        self._updates = Histogram(
            "nightshift_model_update_seconds",
            "Seconds of a round's model update, by computation and whether it succeeded.",
            ["computation", "outcome"],
            buckets=_UPDATE_BUCKETS,
            registry=registry,
        )

    def opened(
        self, *, population: str, task_id: str, round_id: str, number: int, target: int
    ) -> None:
        """A round begins to select devices.

        Args:
            population: Whose devices.
            task_id: The round's task.
            round_id: The round.
            number: The task's own count.
            target: Devices wanted.
        """
        self._open.add(round_id)
        _log.info(
            "round_opened",
            population=population,
            task_id=task_id,
            round_id=round_id,
            number=number,
            target=target,
        )

    def configured(self, *, round_id: str, selected: int, seconds: float) -> None:
        """The round's devices have their assignments, so long after it was opened."""
        _log.info("round_configured", round_id=round_id, selected=selected, seconds=_s(seconds))

    def closed(self, *, round_id: str, reason: str, accepted: int, seconds: float) -> None:
        """The round takes no more updates, so long after it was opened."""
        _log.info(
            "round_closed",
            round_id=round_id,
            reason=reason,
            accepted=accepted,
            seconds=_s(seconds),
        )

    def updated(
        self, *, round_id: str, computation: str, seconds: float, failure: str = ""
    ) -> None:
        """The model update has ended; `failure` says why there is no result."""
        self._updates.labels(computation, "failed" if failure else "done").observe(seconds)
        if failure:
            _log.error(
                "model_update_failed", round_id=round_id, failure=failure, seconds=_s(seconds)
            )

    def ended(self, end: RoundEnd) -> None:
        """The round is committed or abandoned; to be told once, by whoever ended it."""
        task = self._tasks.of(end.task_id)
        self._open.discard(end.round_id)
        self._ended.labels(task, end.outcome, self._reasons.of(end.reason)).inc()
        statistics = end.statistics
        for fate in ("selected", "accepted", "dropped", "unfinished"):
            self._devices.labels(task, fate).inc(statistics.get(fate, 0))
        for how, count in statistics.get("ended", {}).items():
            self._devices.labels(task, self._reasons.of(how)).inc(count)
        for phase, seconds in statistics.get("seconds", {}).items():
            self._phases.labels(end.computation, phase).observe(seconds)
        if "target" in statistics:
            self._target.labels(task).set(statistics["target"])
        if statistics.get("selected"):
            self._drop_out.labels(task).set(statistics.get("dropped", 0) / statistics["selected"])
        say = _log.info if end.outcome == "committed" else _log.warning
        say(
            f"round_{end.outcome}",
            population=end.population,
            task_id=end.task_id,
            round_id=end.round_id,
            number=end.number,
            seconds=_s(end.seconds),
            **({"reason": end.reason, "detail": end.detail} if end.reason else {}),
            statistics=dict(statistics),
        )


def _s(seconds: float) -> float:
    return round(seconds, 3)
