"""The release checks: what must hold of a plan before a device may get it.

Equality compares the device graph on tflite-runtime with TFF's own client work
on the same examples. Its measure is the relative L2 difference, of the model's
change as one vector and of every other tensor by itself, whichever is largest;
its figure the median over seeds, because a non-smooth activation can flip on
the last bit for a single seed. Sessions of several steps are compared beside
TFF's own conditioning (`cases`).
"""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from device_plan.compiler.cases import ROUNDINGS, compute_cases
from device_plan.compiler.examples import ExampleSource
from device_plan.compiler.flatbuffer import TrainingGraph
from device_plan.compiler.oracle import Oracle
from device_plan.compiler.runtime import RUNTIME, execute
from device_plan.matrix.case import MAX_DIFFERENCE, Case, Cases
from device_plan.plan_pb2 import PlanManifest


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

    def cases(self) -> Cases:
        """What it is tried with; the same for all variants of a plan."""
        return compute_cases(
            self.manifest, self.checkpoint, self.training, self.evaluation, self.examples
        )


#: Called with the name of each group of checks before it runs.
Progress = Callable[[str], None]


def plan_checks(subject: Subject) -> list[Check]:
    """The checks of what all variants of a plan share."""
    return [_additivity(subject), initial_weights(subject.checkpoint)]


def variant_checks(subject: Subject, cases: Cases) -> list[Check]:
    """The checks of one variant's graph, in the order in which they are shown.

    Args:
        subject: The plan with this variant.
        cases: The subject's; all variants have the same.
    """
    graph = [_builtin_only(subject), _signatures(subject)]
    return graph + _equality(subject, cases)


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


def _additivity(subject: Subject) -> Check:
    training, evaluation = subject.summands
    return Check(
        "additivity",
        True,
        f"TFF's accumulate and merge add {training} tensors of an update and "
        f"{evaluation} of an evaluation, from zero",
        {"update_tensors": training, "metric_tensors": evaluation},
    )


def initial_weights(checkpoint: Mapping[str, np.ndarray]) -> Check:
    """Whether the model that devices first get is finite."""
    wrong = [
        name
        for name, value in checkpoint.items()
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


def _equality(subject: Subject, cases: Cases) -> list[Check]:
    found = execute({"": subject.graph}, cases)[""]
    return [
        _does_not_run(name, found.reason)
        if len(found.drawn.get(name, ())) < len(draws)
        else _compare(name, draws, found.drawn[name])
        for name, draws in cases.by_name().items()
    ]


def _compare(name: str, draws: Sequence[Case], differences: Sequence[float]) -> Check:
    median = statistics.median(differences)
    limit, rows = draws[0].limit, draws[0].examples
    passed = median <= limit
    comparison = "at most" if passed else "above"
    badly = (
        f"; TFF's own moves by {limit / ROUNDINGS:.0e} when its weights move by one rounding"
        if limit > MAX_DIFFERENCE
        else ""
    )
    return Check(
        f"equality: {name}",
        passed,
        f"relative difference {median:.1e}, {comparison} {limit:.0e} "
        f"({len(draws)} seeds, {rows} examples{badly})",
        {
            "median": _rounded(median),
            "largest": _rounded(max(differences)),
            "limit": _rounded(limit),
            "examples": rows,
            "seeds": len(draws),
        },
    )


def _does_not_run(name: str, reason: str) -> Check:
    return Check(f"equality: {name}", False, f"the graph does not run on {RUNTIME}: {reason}"[:500])


def _rounded(difference: float) -> float | None:
    """Two digits, so that the last bits of a sum do not change a plan's bytes; None if infinite."""
    return float(f"{difference:.1e}") if math.isfinite(difference) else None
