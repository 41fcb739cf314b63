"""The release checks: what must hold of a plan before a device may get it.

Equality compares the device graph on tflite-runtime with TFF's own client work
on the same examples. Its measure is the relative L2 difference, of the model's
change as one vector and of every other tensor by itself, whichever is largest;
its figure the median over seeds, because a non-smooth activation can flip on
the last bit for a single seed.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from device_plan.compiler.examples import Examples, ExampleSource, batches
from device_plan.compiler.flatbuffer import TrainingGraph
from device_plan.compiler.oracle import Oracle
from device_plan.compiler.runtime import RUNTIME, DeviceRuntime
from device_plan.plan_pb2 import PlanManifest

#: Relative difference above which a plan is refused.
MAX_DIFFERENCE = 1e-5

#: Sessions compared for each case.
SEEDS = range(5)


@dataclass(frozen=True)
class Check:
    """One release check.

    Attributes:
        name: Short, e.g. "equality: one batch".
        passed: Whether the plan may be released as far as this check goes.
        summary: What was found, for people.
        figures: The numbers behind it.
    """

    name: str
    passed: bool
    summary: str
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Subject:
    """A plan under check, and what it is compared with."""

    manifest: PlanManifest
    graph: bytes
    checkpoint: Mapping[str, np.ndarray]
    summands: tuple[int, int]
    training: Oracle
    evaluation: Oracle
    examples: ExampleSource


#: Called with the name of each group of checks before it runs.
Progress = Callable[[str], None]


def run_checks(subject: Subject, progress: Progress = lambda _: None) -> list[Check]:
    """All release checks, in the order in which they are shown."""
    progress("Reading the graph")
    checks = [
        _additivity(subject),
        _initial_weights(subject),
        _builtin_only(subject),
        _signatures(subject),
    ]
    progress("Comparing the device's update with TFF's client work")
    checks += _training(subject)
    progress("Comparing the device's metrics with TFF's evaluation")
    checks += _evaluation(subject)
    return checks


def report(checks: Iterable[Check]) -> dict[str, Any]:
    """The checks as the plan's checks.json."""
    listed = list(checks)
    return {
        "passed": all(check.passed for check in listed),
        "runtime": RUNTIME,
        "checks": [
            {
                "name": check.name,
                "passed": check.passed,
                "summary": check.summary,
                **({"figures": dict(check.figures)} if check.figures else {}),
            }
            for check in listed
        ],
    }


def worst_difference(checks: Iterable[Check]) -> float:
    """The largest median difference to TFF among the equality checks."""
    return max(
        (check.figures["median"] for check in checks if check.figures.get("median") is not None),
        default=0.0,
    )


def relative_difference(
    ours: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray]
) -> float:
    """The largest ||ours - reference|| / ||reference||; anything not finite is infinite.

    The tensors of the model's change (`delta/...`) are one vector. The others, counts
    among them, stand alone: their size must not hide a difference elsewhere.
    """
    squares: dict[str, tuple[float, float]] = {}
    for name, expected in reference.items():
        mine = ours[name]
        if mine.shape != expected.shape:
            return math.inf
        a, b = mine.astype(np.float64), expected.astype(np.float64)
        group = "delta" if name.startswith("delta/") else name
        apart, size = squares.get(group, (0.0, 0.0))
        squares[group] = (
            apart + float(np.sum(np.square(a - b))),
            size + float(np.sum(np.square(b))),
        )
    # Below the smallest normal float32 a size is as good as zero.
    ratios = [math.sqrt(d) / max(math.sqrt(n), 1.2e-38) for d, n in squares.values()]
    return max(r if math.isfinite(r) else math.inf for r in ratios)


def _additivity(subject: Subject) -> Check:
    training, evaluation = subject.summands
    return Check(
        "additivity",
        True,
        f"TFF's accumulate and merge add {training} tensors of an update and "
        f"{evaluation} of an evaluation, from zero",
        {"update_tensors": training, "metric_tensors": evaluation},
    )


def _initial_weights(subject: Subject) -> Check:
    wrong = [
        name
        for name, value in subject.checkpoint.items()
        if value.dtype.kind == "f" and not np.isfinite(value).all()
    ]
    return Check(
        "initial weights",
        not wrong,
        f"{wrong[0]!r} has NaN or infinity: look at its initializer" if wrong else "all finite",
    )


def _builtin_only(subject: Subject) -> Check:
    custom = TrainingGraph(subject.graph).custom_ops()
    kinds = len(subject.manifest.ops)
    return Check(
        "builtin operations",
        not custom,
        f"the graph has operations beyond the builtins: {', '.join(custom)}"
        if custom
        else f"{kinds} kinds of operation, all TFLite builtins, no Flex",
    )


def _signatures(subject: Subject) -> Check:
    graph = TrainingGraph(subject.graph)
    signatures = graph.signatures()
    without = [name for name, signature in signatures.items() if not signature.inputs]
    if without:
        summary = f"signature {without[0]!r} has no input"
    elif not graph.operators_in_first_subgraph():
        summary = "the first subgraph is empty: runtimes would not accelerate the graph"
    else:
        return Check("signatures", True, ", ".join(sorted(signatures)))
    return Check("signatures", False, summary)


def _training(subject: Subject) -> list[Check]:
    size = subject.manifest.batch_size
    several = max(2, subject.manifest.epochs)
    cases = [
        ("one batch", size, 1),
        ("a partial last batch", size + max(1, size // 2), 1),
        (f"{several} epochs", size + max(1, size // 3), several),
    ]
    device = DeviceRuntime(subject.manifest, subject.graph)
    names = [spec.name for spec in subject.manifest.update]

    def compare(examples: Examples, epochs: int) -> float:
        reference = subject.training.work(subject.examples.dataset(examples, size, epochs))
        session = (batch for _ in range(epochs) for batch in batches(examples, size))
        update = device.train(subject.checkpoint, session)
        return relative_difference(update, dict(zip(names, reference, strict=True)))

    return [
        _equality(f"equality: {label}", subject, rows, partial(compare, epochs=epochs))
        for label, rows, epochs in cases
    ]


def _evaluation(subject: Subject) -> list[Check]:
    size = subject.manifest.batch_size
    device = DeviceRuntime(subject.manifest, subject.graph)
    names = [spec.name for spec in subject.manifest.metrics]

    def compare(examples: Examples) -> float:
        reference = subject.evaluation.work(subject.examples.dataset(examples, size, 1))
        metrics = device.evaluate(subject.checkpoint, batches(examples, size))
        return relative_difference(metrics, dict(zip(names, reference, strict=True)))

    return [
        _equality("equality: evaluation, one batch", subject, size, compare),
        _equality(
            "equality: evaluation, summed over batches",
            subject,
            2 * size + max(1, size // 2),
            compare,
        ),
    ]


def _equality(
    name: str,
    subject: Subject,
    rows: int,
    compare: Callable[[Examples], float],
) -> Check:
    differences: list[float] = []
    for seed in SEEDS:
        try:
            differences.append(compare(subject.examples.draw(seed, rows)))
        except (ValueError, RuntimeError) as error:
            return Check(name, False, f"the graph does not run on {RUNTIME}: {error}"[:500])
    median = statistics.median(differences)
    passed = median <= MAX_DIFFERENCE
    comparison = "at most" if passed else "above"
    return Check(
        name,
        passed,
        f"relative difference {median:.1e}, {comparison} {MAX_DIFFERENCE:.0e} "
        f"({len(SEEDS)} seeds, {rows} examples)",
        {
            "median": _rounded(median),
            "largest": _rounded(max(differences)),
            "examples": rows,
            "seeds": len(SEEDS),
        },
    )


def _rounded(difference: float) -> float | None:
    """Two digits, so that the last bits of a sum do not change a plan's bytes; None if infinite."""
    return float(f"{difference:.1e}") if math.isfinite(difference) else None
