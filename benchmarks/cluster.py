"""What a partial sum costs on its way over Ray, against sums that stay in one process.

`python -m benchmarks cluster`. A selector sums what it receives and ships one partial
sum a round to the master aggregator, which is another process. It is behind a mailbox
of Ray's, as selectors are.
"""

import copy
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from rich.console import Console

from benchmarks.measurement import Measurement, table
from device_plan.checkpoint import encode
from device_plan.plan_pb2 import PlanManifest, TensorSpec
from server.actors.aggregator import PartialSum, merged
from server.actors.runtime import Actor, Ref
from server.aggregation.accumulator import Accumulator
from server.aggregation.admission import Admission
from server.cluster.ray_node import (
    NAMESPACE,
    configure,
    disconnect,
    environment,
    make_token,
    start_head,
)

#: Weights of the model, as many as the next-word model of Hard et al. 2018.
PARAMETERS = 1_500_000

#: Updates of one round that one selector receives.
UPDATES = 100

RUNS = 15


def admission() -> Admission:
    specs = [TensorSpec(name="delta", dtype="float32", shape=[PARAMETERS])]
    specs.append(TensorSpec(name="weight", dtype="float32"))
    manifest = PlanManifest(update=specs, weight_tensor="weight", max_weight=1e6)
    return Admission(manifest=manifest, training=True)


def update() -> bytes:
    delta = np.random.default_rng(0).normal(size=PARAMETERS).astype(np.float32)
    return encode({"delta": delta, "weight": np.asarray(1, np.float32)})


class Selector(Actor):
    """Sums in the process of the benchmark."""

    def __init__(self) -> None:
        self._admission = admission()
        self._data = update()
        self._total = PartialSum(Accumulator(layout=admission().layout), frozenset())

    def receive(self) -> float:
        """Checks one update and adds it; seconds."""
        began = time.perf_counter()
        self._total.accumulator.add(self._admission.admit(self._data))
        return time.perf_counter() - began

    def flush(self) -> PartialSum:
        return self._total

    def one_update(self) -> tuple[np.ndarray, ...]:
        return self._admission.admit(self._data)


class Master(Actor):
    """Merges, and says how long that took."""

    def collect(self, selector: Ref) -> float:
        """Seconds from asking for a partial sum until it is merged."""
        total = PartialSum(Accumulator(layout=admission().layout), frozenset())
        began = time.perf_counter()
        merged([total, selector.ask("flush")])
        return time.perf_counter() - began

    def collect_update(self, selector: Ref) -> float:
        """Seconds from asking for an update until it is added."""
        total = Accumulator(layout=admission().layout)
        began = time.perf_counter()
        total.add(selector.ask("one_update"))
        return time.perf_counter() - began


def measure() -> list[Measurement]:
    """Medians of one run, of ours and of its baselines in turn."""
    # After its environment: Ray reads that when it is imported.
    from server.cluster.ray_system import RaySystem

    system = RaySystem(namespace=NAMESPACE, apart=(Master,))
    selector = system.spawn(Selector, dispatch="inline")
    master = system.spawn(Master)
    seconds: dict[str, list[float]] = {"flush": [], "ship": [], "merge": [], "add": []}
    for run in range(RUNS + 2):
        taken = {
            "flush": master.ask("collect", selector),
            "ship": master.ask("collect_update", selector),
            "merge": in_process(selector.ask("flush")),
            "add": median(selector.ask("receive") for _ in range(5)),
        }
        if run >= 2:
            for name, value in taken.items():
                seconds[name].append(value)
    system.shutdown()
    flush, ship, merge, add = (1e3 * median(seconds[name]) for name in seconds)
    megabytes = 4 * PARAMETERS / 1e6
    return [
        Measurement(
            what=f"a partial sum of {megabytes:g} MB over Ray, merged",
            value=flush,
            baseline=merge,
            baseline_name="merged in process",
            unit="ms",
            target="told",
            met=True,
        ),
        Measurement(
            what=f"{UPDATES} updates checked and summed here, one flush over Ray, per update",
            value=(UPDATES * add + flush) / UPDATES,
            baseline=(UPDATES * add + merge) / UPDATES,
            baseline_name="all in process",
            unit="ms",
            target="<= 2x",
            met=UPDATES * add + flush <= 2 * (UPDATES * add + merge),
        ),
        Measurement(
            what="the same",
            value=(UPDATES * add + flush) / UPDATES,
            baseline=ship,
            baseline_name="each update over Ray",
            unit="ms",
            target="<= 0.25x",
            met=(UPDATES * add + flush) / UPDATES <= 0.25 * ship,
        ),
    ]


def in_process(part: PartialSum) -> float:
    """Seconds that a merge takes where both sums are."""
    part = copy.deepcopy(part)
    total = PartialSum(Accumulator(layout=admission().layout), frozenset())
    began = time.perf_counter()
    merged([total, part])
    return time.perf_counter() - began


def main(_arguments: list[str]) -> int:
    """Prints the table."""
    # Short: Ray's sockets are in it.
    directory = Path(tempfile.mkdtemp(prefix="nightshift-bench-"))
    try:
        token = make_token(directory / "token")
        configure(environment(token))
        start_head(temporary=directory / "ray", token_file=token)
        Console().print(table("A round's sums over Ray", measure()))
    finally:
        disconnect()
        shutil.rmtree(directory, ignore_errors=True)
    return 0
