"""(c) Saturated check-ins, against a bare Flask view on the same granian."""

import base64
import hashlib
import time
from functools import partial

from benchmarks import plans
from benchmarks.closed_loop import answer_all
from benchmarks.measurement import Measurement
from benchmarks.processes import Served, granian, nightshift
from device_plan import wire_pb2 as wire

CONNECTIONS = 64
REQUESTS = 32_000

#: Seconds within which they must be answered.
TIMEOUT_S = 120.0

#: Pairs of loads; the pair with the median ratio is reported.
RUNS = 5

#: Threads of both servers: as `nightshift serve` has them, so that many devices may
#: stall, and so few that they do not hinder one another at the interpreter's lock.
THREADS = (128, 16)


def _requests(count: int) -> list[bytes]:
    """Of 64 devices, whose check-ins are all different."""
    requests = []
    for attempt in range(count):
        number = attempt % CONNECTIONS
        key = base64.urlsafe_b64encode(hashlib.sha256(bytes([number])).digest()).decode()
        body = wire.CheckInRequest(
            protocol_version=1,
            check_in_id=f"benchmark-{number:04}-{attempt:06}",
            runtime=plans.RUNTIME,
        ).SerializeToString()
        head = (
            f"POST /v1/populations/{plans.POPULATION}/checkins HTTP/1.1\r\nHost: bench\r\n"
            "Content-Type: application/x-protobuf\r\nAccept: application/x-protobuf\r\n"
            f"Authorization: Bearer {key.rstrip('=')}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        requests.append(head.encode() + body)
    return requests


def _rates(served: Served) -> tuple[float, float]:
    """Check-ins per CPU second of the server, and per second."""
    requests = _requests(REQUESTS)
    load = partial(answer_all, served.port, connections=CONNECTIONS, timeout_s=TIMEOUT_S)
    load(requests[: REQUESTS // 10])
    before = served.cpu_seconds()
    seconds = load(requests)
    return REQUESTS / (served.cpu_seconds() - before), REQUESTS / seconds


def measure(plan_bytes: bytes) -> list[Measurement]:
    """`plan_bytes`: any plan of `plans.POPULATION`."""
    return [row for threads in THREADS for row in _compared(plan_bytes, threads)]


def _compared(plan_bytes: bytes, threads: int) -> list[Measurement]:
    options = ("--holdout-fraction", "0", "--threads", str(threads))
    with nightshift(*options) as ours, granian("bare_view", threads=threads) as bare:
        client = ours.admin()
        task = client.post("tasks?goal_count=1&rounds=1", plan_bytes)["tasks"][0]
        # Nothing is scheduled: every device is told when to come back.
        client.post(f"tasks/{task['task_id']}/cancel")
        time.sleep(1.0)
        figures = [(_rates(ours), _rates(bare)) for _ in range(RUNS)]
    rows = []
    for place, unit in enumerate(("per CPU s", "per s")):
        pairs = sorted(
            ((own[place], base[place]) for own, base in figures), key=lambda pair: pair[0] / pair[1]
        )
        value, baseline = pairs[RUNS // 2]
        rows.append(
            Measurement(
                what=f"saturated check-ins, {threads} threads",
                value=value,
                baseline=baseline,
                baseline_name="bare Flask view, same granian",
                unit=unit,
                target=">= 4x",
                met=value / baseline >= 4,
            )
        )
    return rows
