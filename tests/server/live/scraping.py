"""A server's metrics, as Prometheus reads them."""

from prometheus_client.parser import text_string_to_metric_families

from tests.server.live.clustered import OneSelector
from tests.server.live.device import request
from tests.server.live.served import Server


def metric(server: Server | OneSelector, name: str, **labels: str) -> float:
    """The first sample that has these labels; 0 if there is none."""
    reply = request(server.port, "GET", "/metrics")
    assert reply.status == 200
    for family in text_string_to_metric_families(reply.body.decode()):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return sample.value
    return 0.0
