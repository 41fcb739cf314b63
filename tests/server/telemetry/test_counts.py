"""Counts of the hot path are exact without a lock, and their labels are bounded."""

import sys
import threading
from collections.abc import Iterator

import pytest

from device_plan.wire_pb2 import NO_TASK, ROUND_FULL, UNKNOWN_POPULATION
from server.telemetry.check_ins import MAX_POPULATIONS, OTHERS, CheckInCounts
from server.telemetry.traffic import TrafficCounts


@pytest.fixture
def switching_as_often_as_possible() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-7)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("switching_as_often_as_possible")
def test_no_count_is_lost_among_threads() -> None:
    check_ins, traffic = CheckInCounts(), TrafficCounts()
    threads, each = 8, 20_000

    def count() -> None:
        for _ in range(each):
            check_ins.told("a", 0)
            check_ins.told("b", ROUND_FULL)
            check_ins.refused("nobody's", UNKNOWN_POPULATION)
            traffic.up("a", 3)
            traffic.down(5)

    running = [threading.Thread(target=count) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert sorted(check_ins.items()) == [
        ("", "UNKNOWN_POPULATION", threads * each),
        ("a", "", threads * each),
        ("b", "ROUND_FULL", threads * each),
    ]
    assert check_ins.total == 3 * threads * each
    assert list(traffic.items_up()) == [("a", 3 * threads * each)]
    assert traffic.total_down == 5 * threads * each


def test_names_that_devices_make_up_become_no_labels() -> None:
    counts = CheckInCounts()
    for number in range(1000):
        counts.refused(f"made up {number}", UNKNOWN_POPULATION)
    assert list(counts.items()) == [("", "UNKNOWN_POPULATION", 1000)]


def test_more_populations_than_are_counted_apart_are_counted_together() -> None:
    counts, traffic = CheckInCounts(), TrafficCounts()
    for number in range(MAX_POPULATIONS + 50):
        for _ in range(2):
            counts.told(f"population {number}", NO_TASK)
            traffic.up(f"population {number}", 1)
    labels = {population for population, _, _ in counts.items()}
    assert len(labels) == MAX_POPULATIONS + 1
    assert {name: count for name, _, count in counts.items()}[OTHERS] == 100
    assert dict(traffic.items_up())[OTHERS] == 100


def test_arrivals_per_second_are_the_mean_of_the_last_seconds() -> None:
    counts = CheckInCounts()
    assert counts.per_second == 0.0
    for second in range(30):
        counts.sample(float(second))
        for _ in range(7 if second < 15 else 40):
            counts.told("a", 0)
    assert counts.per_second == pytest.approx(40.0)
