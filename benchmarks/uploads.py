"""(d) A 6 MB upload into the sum, against reading and dropping the body."""

import asyncio

from benchmarks import plans
from benchmarks.http_client import Connection
from benchmarks.measurement import Measurement
from benchmarks.processes import Served, granian, nightshift
from benchmarks.virtual_devices import Tally, VirtualDevice

PARAMETERS = 1_500_000
UPLOADS = 60


def _upload(served: Served, update: bytes) -> float:
    """Server CPU milliseconds per upload, its session included."""
    tally = Tally()
    before = served.cpu_seconds()

    async def crowd() -> None:
        stop = asyncio.Event()
        devices = (
            VirtualDevice(
                number=number,
                port=served.port,
                population=plans.POPULATION,
                update=update,
                tally=tally,
                download=False,
            )
            for number in range(UPLOADS)
        )
        await asyncio.gather(*(device.run(1, stop) for device in devices))

    asyncio.run(crowd())
    return 1e3 * (served.cpu_seconds() - before) / tally.accepted


def _drop(served: Served, update: bytes) -> float:
    """CPU milliseconds for reading and dropping the same body."""

    async def one() -> None:
        connection = Connection("127.0.0.1", served.port)
        await connection.request("PUT", "/v1/sessions/none/update", body=update)
        connection.close()

    async def crowd() -> None:
        await asyncio.gather(*(one() for _ in range(UPLOADS)))

    before = served.cpu_seconds()
    asyncio.run(crowd())
    return 1e3 * (served.cpu_seconds() - before) / UPLOADS


def measure(plan_bytes: bytes) -> list[Measurement]:
    """`plan_bytes`: a plan of PARAMETERS weights."""
    update = plans.update_of(PARAMETERS)
    pace = ("--min-retry-s", "0.2", "--max-retry-s", "2", "--rendezvous-s", "0.5")
    chunk = ("--max-chunk-bytes", str(8 << 20))
    figures = []
    with (
        nightshift("--holdout-fraction", "0", *pace, *chunk) as ours,
        granian("read_and_drop") as drop,
    ):
        ours.admin().post(f"tasks?goal_count={UPLOADS}&rounds=4", plan_bytes)
        for _ in range(4):
            figures.append((_upload(ours, update), _drop(drop, update)))
    # The first pair warms both servers up.
    value, baseline = sorted(figures[1:], key=lambda pair: pair[0] / pair[1])[1]
    return [
        Measurement(
            what="6 MB upload to sum: session, checks, addition",
            value=value,
            baseline=baseline,
            baseline_name="read and drop the body",
            unit="CPU ms",
            target="<= 1.7x",
            met=value / baseline <= 1.7,
        )
    ]
