"""Everything that a process counts, and how Prometheus reads it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from server.telemetry.check_ins import CheckInCounts
from server.telemetry.failures import FailureTelemetry
from server.telemetry.traffic import TrafficCounts

#: Of what `Telemetry.exposition` returns.
CONTENT_TYPE = CONTENT_TYPE_LATEST


@dataclass(frozen=True, kw_only=True)
class SelectorState:
    """What is now in a selector.

    Attributes:
        sessions: Live sessions, by population and state.
        estimated_devices: Of each population, as pace steering estimates them.
        upload_memory: Bytes of unfinished uploads.
        draining: Whether it accepts no more check-ins.
    """

    sessions: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    estimated_devices: Mapping[str, float] = field(default_factory=dict)
    upload_memory: int = 0
    draining: bool = False


# A second series for each counter, of when it was made, which nobody asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Telemetry:
    """The counts of one process; each part is told what happens by whoever does it.

    Nothing that happens for every request goes through the Prometheus library,
    which would cost as much as a check-in: `_HotCounts` reads the integers when
    they are asked for.
    """

    def __init__(self) -> None:
        #: For more metrics that are to be shown.
        self.metrics = CollectorRegistry()
        self.check_ins = CheckInCounts()
        self.traffic = TrafficCounts()
        self.failures = FailureTelemetry(self.metrics)
        #: Asked at each scrape; set by who has a selector.
        self.selector_state: Callable[[], SelectorState] = SelectorState
        self.metrics.register(_HotCounts(self))
        ProcessCollector(registry=self.metrics)
        PlatformCollector(registry=self.metrics)
        GCCollector(registry=self.metrics)

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.metrics)


class _HotCounts(Collector):
    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def describe(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        # An unchecked collector: its labels are known only when it is read.
        return iter(())

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        yield from self._counts()
        yield from self._state()

    def _counts(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        check_ins = CounterMetricFamily(
            "nightshift_check_ins",
            "Check-ins, by population, whether they were accepted, and why not.",
            labels=["population", "outcome", "reason"],
        )
        for population, reason, count in self._telemetry.check_ins.items():
            outcome = "rejected" if reason else "accepted"
            check_ins.add_metric([population, outcome, reason], count)
        yield check_ins
        yield GaugeMetricFamily(
            "nightshift_arrivals_per_second",
            "Check-ins per second over the last ten seconds.",
            value=self._telemetry.check_ins.per_second,
        )
        up = CounterMetricFamily(
            "nightshift_upload_bytes", "Bytes of updates received.", labels=["population"]
        )
        for population, size in self._telemetry.traffic.items_up():
            up.add_metric([population], size)
        yield up
        yield CounterMetricFamily(
            "nightshift_download_bytes",
            "Bytes of plans and checkpoints sent.",
            value=self._telemetry.traffic.total_down,
        )

    def _state(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        state = self._telemetry.selector_state()
        sessions = GaugeMetricFamily(
            "nightshift_sessions",
            "Live sessions, by population and state.",
            labels=["population", "state"],
        )
        for population, by_state in state.sessions.items():
            for name, count in by_state.items():
                sessions.add_metric([population, name], count)
        yield sessions
        devices = GaugeMetricFamily(
            "nightshift_estimated_devices",
            "The population's size as pace steering estimates it.",
            labels=["population"],
        )
        for population, estimate in state.estimated_devices.items():
            devices.add_metric([population], estimate)
        yield devices
        yield GaugeMetricFamily(
            "nightshift_upload_memory_bytes",
            "Bytes held for unfinished uploads.",
            value=state.upload_memory,
        )
        yield GaugeMetricFamily(
            "nightshift_draining",
            "1 while the process accepts no more check-ins because it ends.",
            value=float(state.draining),
        )
