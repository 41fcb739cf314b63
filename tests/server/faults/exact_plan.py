"""A plan whose updates say who sent them for which round, and an update that keeps it.

A device's update is 1 and the stamp of its round at the device's own place of two
vectors of whole numbers. So the sum of a round says how often each device is in
it, and whether anything was meant for another round; the model update only
writes the sums into the metrics.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from device_plan.archive import DevicePart, PlanArchive, write_archive
from device_plan.checkpoint import decode, encode
from device_plan.plan_pb2 import PlanManifest, Runtime, ServerPart, TensorSpec
from server.model_update.updater import UpdateFailed, UpdateResult
from tests.server.faults.world import World

#: Devices that there can be in a run.
DEVICES = 24

#: On which the plan claims to have passed.
RUNTIME = "tflite-runtime 2.14.0"

POPULATION = "faults"


def stamp(round_id: str) -> int:
    """A number that no other round of a run has, but by the rarest chance."""
    return zlib.crc32(round_id.encode()) % (1 << 30) + 1


def update_of(device: int, round_id: str) -> bytes:
    """What a device uploads."""
    counts, stamps = np.zeros(DEVICES, np.int64), np.zeros(DEVICES, np.int64)
    counts[device] = 1
    stamps[device] = stamp(round_id)
    return encode({"counts": counts, "stamps": stamps})


def plan() -> PlanArchive:
    """The plan; no graph of it is ever run."""
    vector = [
        TensorSpec(name="counts", dtype="int64", shape=[DEVICES]),
        TensorSpec(name="stamps", dtype="int64", shape=[DEVICES]),
    ]
    model = [TensorSpec(name="round", dtype="int64", shape=[])]
    start = encode({"round": np.asarray(0, np.int64)})
    manifest = PlanManifest(
        name="exact",
        population=POPULATION,
        checkpoint=model,
        update=vector,
        metrics=vector,
        runtimes=[Runtime(name=RUNTIME)],
    )
    part = ServerPart(state=model, sums=vector)
    return PlanArchive(
        write_archive(
            variants=[DevicePart(manifest=manifest, graph=b"none")],
            training=part,
            evaluation=part,
            initial_state=start,
            initial_checkpoint=start,
            checks={},
            schedule={},
        )
    )


@dataclass(frozen=True)
class Summed:
    """What a round's metrics say of its sum.

    Attributes:
        base: The model from which the state was updated; None for an evaluation.
        counts: How often each device is in the sum.
        stamps: The sum of what each device said of its round.
    """

    base: int | None
    counts: tuple[int, ...]
    stamps: tuple[int, ...]

    @classmethod
    def of(cls, metrics: Mapping[str, Any]) -> Summed:
        """Raises KeyError if the metrics are not those of `ExactUpdater`."""
        return cls(metrics["base"], tuple(metrics["counts"]), tuple(metrics["stamps"]))


class ExactUpdater:
    """Stands in for TensorFlow: the next model is the number of the next round.

    Args:
        world: The run.
    """

    def __init__(self, world: World) -> None:
        self._world = world

    def apply(
        self,
        population: str,  # noqa: ARG002
        plan_digest: str,  # noqa: ARG002
        computation: str,
        state: bytes | None,
        sums: Mapping[str, np.ndarray],
    ) -> UpdateResult:
        """See server.actors.services.RoundUpdater."""
        world = self._world
        world.effect()
        fault = world.injector.at(f"update {computation}")
        world.time.sleep(world.rng.uniform(0.01, 0.3))
        world.strike(fault, "before")
        if fault is not None and fault.kind == "fail":
            raise UpdateFailed("injected")
        base = None if state is None else int(decode(state)["round"])
        metrics = {
            "base": base,
            "counts": sums["counts"].tolist(),
            "stamps": sums["stamps"].tolist(),
        }
        following = None if base is None else encode({"round": np.asarray(base + 1, np.int64)})
        world.strike(fault, "after")
        return UpdateResult(state=following, checkpoint=following, metrics=metrics)
