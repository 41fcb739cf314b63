"""`make bench`: every figure beside its baseline, in one table."""

import os

# Before numpy is imported: what is measured is one core's work.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import argparse
import importlib
import signal
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from benchmarks import checkins, flower, plans, rounds, sum_kernel, uploads
from benchmarks.measurement import Measurement, table

#: Commands with arguments of their own: they answer a question instead of measuring.
APART = (
    *("accuracy", "cluster", "failover", "layers", "load"),
    *("random-models", "selectors", "training-steps"),
)


def main() -> None:
    if sys.argv[1:2] and sys.argv[1] in APART:
        module = importlib.import_module(f"benchmarks.{sys.argv[1].replace('-', '_')}")
        sys.exit(module.main(sys.argv[2:]))
    parser = argparse.ArgumentParser(description=__doc__)
    baseline = parser.add_mutually_exclusive_group()
    baseline.add_argument(
        "--flower",
        action="store_true",
        help="measure Flower's server in this run (minutes; installs it apart the first time)",
    )
    baseline.add_argument(
        "--flower-ms",
        type=float,
        default=None,
        help="server CPU per update that `python -m benchmarks.flower` printed on this machine",
    )
    parser.add_argument("only", nargs="*", help="rounds, checkins, uploads, sums; default: all")
    arguments = parser.parse_args()
    wanted = set(arguments.only) or {"rounds", "checkins", "uploads", "sums"}
    if arguments.flower and "rounds" not in wanted:
        parser.error("--flower is the baseline of rounds, which are not measured")
    # So that the servers under measurement are ended on a SIGTERM too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console()
    measurements: list[Measurement] = []
    with tempfile.TemporaryDirectory() as directory, console.status("measuring …") as status:
        small = plans.build(
            Path(directory) / "small.plan", parameters=rounds.PARAMETERS, goal_count=rounds.DEVICES
        ).read_bytes()
        if "rounds" in wanted:
            baseline_of_rounds = rounds.NOTED_FLOWER
            if arguments.flower_ms is not None:
                baseline_of_rounds = rounds.Flower(
                    ms=arguments.flower_ms, source="Flower: --flower-ms, measured before"
                )
            if arguments.flower:
                status.update("Flower's SuperLink, 100 nodes …")
                try:
                    baseline_of_rounds = flower.baseline()
                except flower.FlowerError as error:
                    sys.exit(str(error))
            status.update("rounds of 1,000 devices …")
            measurements += rounds.measure(small, baseline_of_rounds)
        if "checkins" in wanted:
            status.update("check-ins …")
            measurements += checkins.measure(small)
        if "uploads" in wanted:
            status.update("uploads of 6 MB …")
            large = plans.build(
                Path(directory) / "large.plan",
                parameters=uploads.PARAMETERS,
                goal_count=uploads.UPLOADS,
            ).read_bytes()
            measurements += uploads.measure(large)
        if "sums" in wanted:
            status.update("the sum kernel …")
            measurements += sum_kernel.measure()
    console.print(table("Nightshift benchmarks", measurements))


if __name__ == "__main__":
    main()
