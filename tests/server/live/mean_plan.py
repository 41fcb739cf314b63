"""A plan whose server part is made by hand: the model moves by the mean of the updates.

The next weights are the old ones plus delta / weight, in float32, where delta
and weight are sums. Run as a program to write the plan, because it needs
TensorFlow: `python -m tests.server.live.mean_plan FILE`. The plans of tests are
this one for other populations and cohorts, made without TensorFlow.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from device_plan.archive import DevicePart, PlanArchive, write_archive
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

#: Weights of the model; an update of it takes three chunks of 4096 bytes.
PARAMETERS = 3000

#: The largest weight that a device may claim.
MAX_WEIGHT = 1000.0

#: On which the plan claims to have passed.
RUNTIME = "tflite-runtime 2.14.0"

Update = Mapping[str, np.ndarray]


def update_of(seed: int, *, weight: float = 1.0) -> dict[str, np.ndarray]:
    """An update of whole numbers, whose float32 sums are exact in any order."""
    delta = np.random.default_rng(seed).integers(-1000, 1000, PARAMETERS)
    return {
        "delta": delta.astype(np.float32),
        "weight": np.asarray(weight, np.float32),
        "num_examples": np.asarray(1, np.int64),
    }


def moved(weights: np.ndarray, updates: Sequence[Update]) -> np.ndarray:
    """What the plan makes of the weights, computed by numpy."""
    delta = sum((u["delta"] for u in updates), np.zeros(PARAMETERS, np.float32))
    weight = sum((u["weight"] for u in updates), np.float32(0))
    moved: np.ndarray = weights + delta / weight
    return moved


#: The cohort of tests that know each device of a round: as many are selected as the
#: policy says, and none waits for the next round meanwhile.
STEADY = {"selection_window_s": 0.05, "adaptive_over_selection": False, "pipelined": False}


def plan_for(
    population: str, *, base: Path, evaluation: Mapping[str, Any] | None = None, **cohort: Any
) -> bytes:
    """The plan at `base` for another population, with this CohortPolicy over `STEADY`.

    Args:
        population: The population.
        base: A plan that this module wrote.
        evaluation: The CohortPolicy of its evaluation after every round, if it has one.
        cohort: The CohortPolicy of its training.
    """
    plan = PlanArchive.open(base)
    manifest = PlanManifest()
    manifest.CopyFrom(plan.manifest)
    manifest.population = population
    policy = CohortPolicy.from_json({**STEADY, **cohort})
    return write_archive(
        variants=[DevicePart(manifest=manifest, graph=plan.graph)],
        training=plan.server_part("training"),
        evaluation=plan.server_part("evaluation"),
        initial_state=plan.initial_state,
        initial_checkpoint=plan.initial_checkpoint,
        checks=plan.checks,
        schedule={
            "name": population,
            "population": population,
            "rounds": 100_000,
            "cohort": policy.to_json(),
            "evaluation": evaluation
            and {
                "every_rounds": 1,
                "cohort": CohortPolicy.from_json({**STEADY, **evaluation}).to_json(),
            },
        },
    )


def _specs(shapes: Mapping[str, tuple[str, Sequence[int]]]) -> list[TensorSpec]:
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


def _server_part(tf: Any) -> ServerPart:
    state = _specs({"weights": ("float32", [PARAMETERS])})
    sums = _specs(
        {
            "delta": ("float32", [PARAMETERS]),
            "weight": ("float32", []),
            "num_examples": ("int64", []),
        }
    )
    metrics = _specs({"num_examples": ("int64", [])})
    return ServerPart(
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


def _evaluation_part(tf: Any) -> ServerPart:
    """Of an evaluation whose devices count their examples and nothing else."""
    state = _specs({"seen": ("int64", [])})
    sums = _specs({"num_examples": ("int64", [])})
    return ServerPart(
        prepare=_graph(tf, state, state, lambda seen: [tf.identity(seen)]),
        report=_graph(tf, sums, sums, lambda count: [tf.identity(count)]),
        update=_graph(
            tf,
            [*state, *sums],
            [*state, *sums],
            lambda seen, count: [seen + count, tf.identity(count)],
        ),
        state=state,
        sums=sums,
        metrics=sums,
    )


def _write(path: Path) -> None:
    import tensorflow as tf

    part = _server_part(tf)
    start = encode({"weights": np.arange(PARAMETERS, dtype=np.float32)})
    path.write_bytes(
        write_archive(
            variants=[
                DevicePart(
                    manifest=PlanManifest(
                        name="mean",
                        checkpoint=part.state,
                        update=part.sums,
                        metrics=part.metrics,
                        weight_tensor="weight",
                        max_weight=MAX_WEIGHT,
                        runtimes=[Runtime(name=RUNTIME)],
                    ),
                    graph=b"none: the devices of these tests compute nothing",
                )
            ],
            training=part,
            evaluation=_evaluation_part(tf),
            initial_state=start,
            initial_checkpoint=start,
            checks={},
            schedule={},
        )
    )


if __name__ == "__main__":
    _write(Path(sys.argv[1]))
