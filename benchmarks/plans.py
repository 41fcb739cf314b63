"""Plans of any size for measuring the server: a mean of updates, and no device graph.

Run as a program, because it needs TensorFlow:
`python -m benchmarks.plans FILE PARAMETERS GOAL_COUNT SELECTION_WINDOW_S`.
"""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from device_plan.archive import DevicePart, write_archive
from device_plan.checkpoint import encode
from device_plan.cohort import CohortPolicy
from device_plan.plan_pb2 import (
    Binding,
    GraphFunction,
    PlanManifest,
    Runtime,
    ServerPart,
    TensorSpec,
)

#: The population of these plans.
POPULATION = "benchmark/mean"

#: On which the plans claim to have passed, and which the virtual devices report.
RUNTIME = "tflite-runtime 2.14.0"


def update_of(parameters: int) -> bytes:
    """An update as a device would send it."""
    rng = np.random.default_rng(0)
    return encode(
        {
            "delta": rng.normal(size=parameters).astype(np.float32),
            "weight": np.float32(1),
            "num_examples": np.int64(1),
        }
    )


def build(path: Path, *, parameters: int, goal_count: int, selection_window_s: float = 0.5) -> Path:
    """Writes a plan with `parameters` float32 weights, in a process of its own."""
    arguments = (path, parameters, goal_count, selection_window_s)
    subprocess.run(
        [sys.executable, "-m", "benchmarks.plans", *map(str, arguments)],
        check=True,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return path


def _specs(shapes: dict[str, tuple[str, Sequence[int]]]) -> list[TensorSpec]:
    return [TensorSpec(name=n, dtype=d, shape=s) for n, (d, s) in shapes.items()]


def _graph(
    tf: Any, inputs: list[TensorSpec], outputs: list[TensorSpec], compute: Callable[..., Any]
) -> GraphFunction:
    with tf.Graph().as_default() as graph:
        fed = [tf.compat.v1.placeholder(spec.dtype, list(spec.shape)) for spec in inputs]
        results = compute(*fed)
    return GraphFunction(
        graph_def=graph.as_graph_def().SerializeToString(),
        inputs=[Binding(spec=s, tensor=t.name) for s, t in zip(inputs, fed, strict=True)],
        outputs=[Binding(spec=s, tensor=t.name) for s, t in zip(outputs, results, strict=True)],
    )


def _write(path: Path, parameters: int, goal_count: int, selection_window_s: float) -> None:
    import tensorflow as tf

    state = _specs({"weights": ("float32", [parameters])})
    sums = _specs(
        {
            "delta": ("float32", [parameters]),
            "weight": ("float32", []),
            "num_examples": ("int64", []),
        }
    )
    metrics = _specs({"num_examples": ("int64", [])})
    part = ServerPart(
        prepare=_graph(tf, state, state, lambda weights: [tf.identity(weights)]),
        report=_graph(tf, sums, sums, lambda *values: [tf.identity(v) for v in values]),
        update=_graph(
            tf,
            [*state, *sums],
            [*state, *metrics],
            lambda weights, delta, weight, count: [weights + delta / weight, tf.identity(count)],
        ),
        state=state,
        sums=sums,
        metrics=metrics,
        model_weights={"weights": "weights"},
    )
    zeros = encode({"weights": np.zeros(parameters, np.float32)})
    cohort = CohortPolicy(
        goal_count=goal_count,
        over_selection=1.0,
        adaptive_over_selection=False,
        minimum_fraction=1.0,
        selection_window_s=selection_window_s,
        selection_timeout_s=selection_window_s + 120.0,
        reporting_window_s=120.0,
    )
    path.write_bytes(
        write_archive(
            variants=[
                DevicePart(
                    manifest=PlanManifest(
                        name="mean",
                        population=POPULATION,
                        checkpoint=state,
                        update=sums,
                        metrics=metrics,
                        weight_tensor="weight",
                        max_weight=1e6,
                        runtimes=[Runtime(name=RUNTIME)],
                    ),
                    graph=b"none: these devices compute nothing",
                )
            ],
            training=part,
            evaluation=part,
            initial_state=zeros,
            initial_checkpoint=zeros,
            checks={},
            schedule={
                "name": "mean",
                "population": POPULATION,
                "rounds": 1000,
                "cohort": cohort.to_json(),
                "evaluation": None,
            },
        )
    )


if __name__ == "__main__":
    _write(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
