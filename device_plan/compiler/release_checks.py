"""The release checks beyond equality: provenance, predicates and resource bounds.

Bonawitz et al. 2019, §7.3: code from auditable sources, tests that pass in
simulation, resources within a safe range. The checks go into the plan, whose
bytes must not depend on the day, so of what is measured they tell the limit
alone; the measured values are in `Release.footprints`, for a report.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from device_plan import checkpoint as files
from device_plan.archive import DevicePart
from device_plan.compiler.checks import Check, Progress
from device_plan.compiler.footprint import Footprint, measure
from device_plan.compiler.model import ModelDescription
from device_plan.compiler.simulation import Simulation, judged, proxy_data
from device_plan.limits import MEBIBYTE
from device_plan.matrix.case import Cases
from device_plan.predicates import Verdict
from device_plan.provenance import Provenance, gather
from device_plan.task import FederatedTask


@dataclass(frozen=True)
class Release:
    """What the checks found.

    Attributes:
        checks: In the order in which they are shown.
        provenance: For provenance.json; None without a task file.
        footprints: Measured, by variant; different in every run.
    """

    checks: list[Check]
    provenance: Provenance | None
    footprints: Mapping[str, Footprint] = field(default_factory=dict)


def release_checks(
    task: FederatedTask,
    *,
    model: ModelDescription,
    processes: tuple[Any, Any] | None = None,
    variants: Sequence[DevicePart],
    cases: Cases,
    task_file: Path | None = None,
    require_provenance: bool = False,
    simulate: bool = True,
    progress: Progress = lambda _: None,
) -> Release:
    """Provenance, predicates and resource bounds of a plan that is otherwise ready.

    Needs a TFF runtime around it (device_plan.compiler.oracle.tff_runtime).

    Args:
        task: The author's task.
        model: Its description.
        processes: See `Simulation`.
        variants: The plan's device parts, best first.
        cases: What the plan was tried with; its checkpoint is the initial model.
        task_file: Where the task is defined; None if in no file.
        require_provenance: Demand a commit, an author, and a reviewer who is not the author.
        simulate: Whether to judge the predicates; without it each fails as not judged.
        progress: Called with a short text when a step begins.

    Raises:
        InvalidTask: proxy data do not fit the model, or the simulation fails.
    """
    progress("Looking up where the task comes from")
    provenance = gather(task, task_file) if task_file is not None else None
    checks = [provenance_check(provenance, required=require_provenance)]
    checks += _predicates(task, model, processes, progress) if simulate else _not_judged(task)
    progress("Measuring time and memory of a training step")
    footprints = measure(
        {part.manifest.variant: part.graph for part in variants}, cases, task.batch_size
    )
    checks += size_checks(task, variants, cases)
    checks += footprint_checks(task, footprints)
    return Release(checks, provenance, footprints)


def provenance_check(provenance: Provenance | None, *, required: bool = False) -> Check:
    """Whether the plan's origin is known, if that is required; in any case what is known of it."""
    if provenance is None:
        return Check("provenance", not required, "the task is in no file: its origin is not known")
    missing = provenance.missing()
    if required and missing:
        return Check("provenance", False, "; ".join(missing))
    commit = f"commit {provenance.commit[:12]}" if provenance.commit else "in no git commit"
    if provenance.uncommitted:
        commit += f", with {len(provenance.uncommitted)} changed files"
    return Check(
        "provenance",
        True,
        f"{commit}; author {provenance.author or 'unknown'}; "
        f"reviewer {provenance.reviewer or 'none'}",
    )


def predicate_check(verdict: Verdict) -> Check:
    predicate = verdict.predicate
    return Check(
        f"predicate: {predicate.metric} {predicate.asks}",
        verdict.holds,
        str(verdict),
        {
            # Two digits, so that the last bits of a sum do not change a plan's bytes.
            "value": float(f"{verdict.value:.2g}") if math.isfinite(verdict.value) else None,
            "rounds": predicate.after_rounds,
            "seed": predicate.seed,
        },
    )


def _predicates(
    task: FederatedTask,
    model: ModelDescription,
    processes: tuple[Any, Any] | None,
    progress: Progress,
) -> list[Check]:
    if not task.predicates:
        return []
    progress("Building the simulation")
    simulation = Simulation(task, model, proxy_data(task), processes)
    checks = []
    for event in judged(simulation, task.predicates):
        if isinstance(event, Verdict):
            checks.append(predicate_check(event))
        else:
            progress(f"Simulating round {event.number + 1} on proxy data")
    return checks


def _not_judged(task: FederatedTask) -> list[Check]:
    return [
        Check(
            f"predicate: {predicate.metric} {predicate.asks}",
            False,
            "not judged: the simulation was left out",
        )
        for predicate in task.predicates
    ]


def size_checks(task: FederatedTask, variants: Sequence[DevicePart], cases: Cases) -> list[Check]:
    """The bytes that a device receives, keeps and sends, against the task's limits.

    Of several variants the largest counts.
    """
    limits = task.limits
    checkpoint = len(files.encode(dict(cases.checkpoint)))
    graph = max(len(part.graph) for part in variants)
    part = max(len(part.to_bytes()) for part in variants)
    update = max(
        len(files.encode(dict(case.reference)))
        for case in cases.cases
        if case.computation == "training"
    )
    return [
        _size("download", part + checkpoint, limits.download_bytes, "plan and checkpoint"),
        _size("graph", graph, limits.graph_bytes, "training.tflite"),
        _size("checkpoint", checkpoint, limits.checkpoint_bytes, "the weights, every round"),
        _size("update", update, limits.update_bytes, "what a device uploads, every round"),
    ]


def _size(name: str, size: int, limit: int, what: str) -> Check:
    passed = size <= limit
    return Check(
        f"resources: {name}",
        passed,
        f"{_bytes(size)}, {'at most' if passed else 'above the limit of'} {_bytes(limit)} ({what})",
        # Signatures and the list of runtimes change the last bytes of a download.
        {"bytes": size, "limit": limit} if name != "download" else {"limit": limit},
    )


def footprint_checks(task: FederatedTask, footprints: Mapping[str, Footprint]) -> list[Check]:
    """Measured memory and time against the task's limits; of several variants the worst counts."""
    limits = task.limits
    broken = [f"{name}: {found.reason}" for name, found in footprints.items() if found.reason]
    if broken:
        return [Check("resources: measurement", False, f"could not be made: {broken[0]}")]
    memory = max(found.rss_bytes for found in footprints.values())
    seconds = max(found.seconds_per_example for found in footprints.values())
    checks = []
    for name, within, allowed, measured, limit in (
        (
            "memory",
            memory <= limits.rss_bytes,
            f"{_bytes(limits.rss_bytes)} of resident memory",
            _bytes(memory),
            limits.rss_bytes,
        ),
        (
            "time",
            seconds <= limits.seconds_per_example,
            f"{limits.seconds_per_example:g} seconds per example in training",
            f"{seconds:.2g}",
            limits.seconds_per_example,
        ),
    ):
        summary = f"at most {allowed}" if within else f"{measured}, above the limit of {allowed}"
        checks.append(Check(f"resources: {name}", within, summary, {"limit": limit}))
    return checks


def _bytes(count: int) -> str:
    if count >= MEBIBYTE:
        return f"{count / MEBIBYTE:.4g} MiB"
    return f"{count / 1024:.3g} KiB" if count >= 1024 else f"{count} bytes"
