"""What Prometheus reads of a process, read with Prometheus' own parser."""

from prometheus_client.parser import text_string_to_metric_families

from server.telemetry.telemetry import Telemetry


def samples(telemetry: Telemetry) -> dict[str, dict[frozenset[tuple[str, str]], float]]:
    """Values by metric and labels."""
    found: dict[str, dict[frozenset[tuple[str, str]], float]] = {}
    for family in text_string_to_metric_families(telemetry.exposition().decode()):
        assert family.documentation, family.name
        for sample in family.samples:
            found.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return found


def value(telemetry: Telemetry, name: str, **labels: str) -> float:
    """Of the sample with exactly these labels."""
    return samples(telemetry)[name][frozenset(labels.items())]
