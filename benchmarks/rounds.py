"""(a) Server CPU per update and (b) a round's wall time, 1,000 devices of 100 KB."""

import asyncio
import time
from dataclasses import dataclass

from benchmarks import plans
from benchmarks.measurement import Measurement
from benchmarks.processes import nightshift
from benchmarks.virtual_devices import Tally, VirtualDevice

DEVICES = 1_000
PARAMETERS = 25_000
ROUNDS = 6


@dataclass(frozen=True, kw_only=True)
class Flower:
    """Server CPU per update of Flower's SuperLink.

    Attributes:
        ms: Milliseconds.
        source: Where the figure is from, for the table.
    """

    ms: float
    source: str


#: As measured when this project began; `--flower` measures it in the same run.
NOTED_FLOWER = Flower(ms=120.0, source="Flower 1.41, 100 nodes: noted figure, not measured here")


def measure(plan_bytes: bytes, flower: Flower = NOTED_FLOWER) -> list[Measurement]:
    """`plan_bytes`: a plan of PARAMETERS weights. `flower`: the baseline of (a)."""
    update = plans.update_of(PARAMETERS)
    tally = Tally()
    # An accelerated pace: the devices come back at once, so that rounds follow one another.
    pace = ("--min-retry-s", "0.2", "--max-retry-s", "2", "--rendezvous-s", "0.5")
    with nightshift("--holdout-fraction", "0", "--poll-interval-s", "0.5", *pace) as served:
        client = served.admin()
        path = f"tasks?goal_count={DEVICES}&rounds={ROUNDS}"
        task = client.post(path, plan_bytes)["tasks"][0]["task_id"]
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
                )
                for number in range(DEVICES)
            )
            await asyncio.gather(*(device.run(ROUNDS, stop) for device in devices))

        asyncio.run(crowd())
        cpu = served.cpu_seconds() - before
        while client.get(f"tasks/{task}")["head_round"] < ROUNDS:
            time.sleep(0.05)
        rounds = client.get(f"tasks/{task}/rounds")["rounds"]
    committed = [record for record in rounds if record["outcome"] == "committed"]
    # From the first device's assignment: what comes before is the selection
    # window, which is chosen, and training, which these devices leave out.
    walls = sorted(
        sum(
            seconds
            for phase, seconds in record["statistics"]["seconds"].items()
            if phase != "selecting"
        )
        for record in committed
    )
    wall = walls[len(walls) // 2]
    per_update = 1e3 * cpu / tally.accepted
    return [
        Measurement(
            what=f"server CPU per 100 KB update, {DEVICES} devices",
            value=per_update,
            baseline=flower.ms,
            baseline_name=flower.source,
            unit="ms",
            target="<= 1 ms",
            met=per_update <= 1.0,
        ),
        Measurement(
            what=f"round beyond training and selection window, {DEVICES} x 100 KB",
            value=wall,
            unit="s",
            target="<= 3 s",
            met=wall <= 3.0,
        ),
    ]
