"""(c) Saturated check-ins a core, against a bare Flask view on the same granian."""

import asyncio
import base64
import hashlib
import time

from benchmarks import plans
from benchmarks.http_client import Connection
from benchmarks.measurement import Measurement
from benchmarks.processes import Served, granian, nightshift
from device_plan import wire_pb2 as wire

CONNECTIONS = 64
REQUESTS = 16_000


async def _load(port: int, requests: int) -> None:
    async def one(number: int) -> None:
        connection = Connection("127.0.0.1", port)
        key = base64.urlsafe_b64encode(hashlib.sha256(bytes([number])).digest()).decode()
        headers = (
            "Content-Type: application/x-protobuf\r\nAccept: application/x-protobuf\r\n"
            f"Authorization: Bearer {key.rstrip('=')}\r\n"
        )
        for attempt in range(requests // CONNECTIONS):
            body = wire.CheckInRequest(
                protocol_version=1,
                check_in_id=f"benchmark-{number:04}-{attempt:06}",
                runtime="tflite-runtime 2.14.0",
            ).SerializeToString()
            reply = await connection.request(
                "POST", f"/v1/populations/{plans.POPULATION}/checkins", headers=headers, body=body
            )
            if reply.status != 200:
                raise RuntimeError(f"a check-in was answered {reply.status}: {reply.body!r}")
        connection.close()

    await asyncio.gather(*(one(number) for number in range(CONNECTIONS)))


def _per_core(served: Served) -> float:
    """Check-ins per CPU second of the server."""
    asyncio.run(_load(served.port, REQUESTS // 10))
    before = served.cpu_seconds()
    asyncio.run(_load(served.port, REQUESTS))
    return REQUESTS / (served.cpu_seconds() - before)


def measure(plan_bytes: bytes) -> list[Measurement]:
    """`plan_bytes`: any plan of `plans.POPULATION`."""
    with nightshift("--holdout-fraction", "0") as ours, granian("bare_view") as bare:
        client = ours.admin()
        task = client.post("tasks?goal_count=1&rounds=1", plan_bytes)["tasks"][0]
        # Nothing is scheduled: every device is told when to come back.
        client.post(f"tasks/{task['task_id']}/cancel")
        time.sleep(1.0)
        figures = [(_per_core(ours), _per_core(bare)) for _ in range(3)]
    ratios = sorted(figures, key=lambda pair: pair[0] / pair[1])
    value, baseline = ratios[1]
    return [
        Measurement(
            what="saturated check-ins",
            value=value,
            baseline=baseline,
            baseline_name="bare Flask view, same granian",
            unit="per CPU s",
            target=">= 0.9x",
            met=value / baseline >= 0.9,
        )
    ]
