"""A plan as data: what `nightshift plan show --json` prints, and what text and page render.

docs/mobile-report.md documents the keys.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from device_plan.archive import DevicePart, PlanArchive
from device_plan.plan_pb2 import PlanManifest, TensorSpec
from device_plan.report.cost import DeviceCost, SignatureCost
from device_plan.report.duration import ASSUMPTION, durations
from device_plan.report.measurements import Measured
from device_plan.report.work import Work
from device_plan.signing import signed_by
from device_plan.tflite_operators import first_release

#: The order in which people meet signatures.
SIGNATURES = ("begin", "batch", "finish", "eval")


def describe(
    archive: PlanArchive,
    *,
    examples: int | None = None,
    measured: Sequence[Measured] = (),
    not_measured: str = "",
) -> dict[str, Any]:
    """The plan as JSON's types.

    Args:
        archive: The plan.
        examples: Of the session whose work and time are stated; None takes the
            most that a session uses.
        measured: What was measured of the plan's variants.
        not_measured: Why there are no measurements.

    Raises:
        MalformedGraph: a variant's graph cannot be read.
    """
    manifest, selector = archive.manifest, archive.manifest.example_selector
    training = archive.server_part("training")
    count = examples or selector.max_examples or manifest.batch_size or 1
    return {
        "name": manifest.name,
        "population": manifest.population,
        "digest": archive.digest,
        "signature": {"signed": bool(archive.signature), "key": signed_by(archive.signature)},
        "provenance": archive.provenance,
        "bytes": {
            "archive": len(archive.data),
            "device_part": len(archive.device_part()),
            "graph": len(archive.graph),
            "initial_checkpoint": len(archive.initial_checkpoint),
            "update": _tensor_bytes(manifest.update),
            "evaluation_metrics": _tensor_bytes(manifest.metrics),
        },
        "batch_size": manifest.batch_size,
        "epochs": manifest.epochs,
        "examples": {
            "collection": selector.collection,
            "criteria": selector.criteria,
            "min_examples": selector.min_examples,
            "max_examples": selector.max_examples,
        },
        "tensors": {group: [_tensor(spec) for spec in specs] for group, specs in _groups(manifest)},
        "signatures": _signatures(manifest),
        "seeded": manifest.seeded,
        "weight_tensor": manifest.weight_tensor,
        # JSON has no infinity.
        "max_weight": manifest.max_weight if math.isfinite(manifest.max_weight) else None,
        "ops": [{"name": op.name, "version": op.version, "count": op.count} for op in manifest.ops],
        "min_runtime_version": manifest.min_runtime_version,
        "runtimes": _runtimes(manifest),
        "server_state": [_tensor(spec) for spec in training.state],
        "model_weights": dict(training.model_weights),
        "schedule": archive.schedule,
        "checks": archive.checks,
        "session_examples": count,
        "not_measured": not_measured,
        "variants": [_variant(part, count, measured) for part in archive.variants],
    }


def _variant(part: DevicePart, examples: int, measured: Sequence[Measured]) -> dict[str, Any]:
    cost, manifest = DeviceCost(part), part.manifest
    rows = manifest.batch_size or examples
    signatures = {
        name: cost.signature(name, rows) for name in SIGNATURES if name in cost.file.signatures
    }
    training = cost.training(examples)
    times = durations(cost, part.variant, examples, measured)
    mine = [one for one in measured if one.variant == part.variant]
    operators = cost.file.operators()
    custom = list(cost.file.custom_operators())
    return {
        "name": part.variant,
        "signed": bool(part.signature),
        "bytes": {"device_part": len(part.to_bytes()), "graph": len(part.graph)},
        "custom_ops": custom,
        "only_builtin_ops": not custom,
        "min_runtime_version": cost.file.min_runtime_version(),
        "min_runtime_version_of_the_converter": manifest.min_runtime_version,
        "ops": [
            {
                "name": name,
                "version": version,
                "count": number,
                "min_runtime_version": first_release(name, version),
                "by_signature": {
                    signature: found.operators[name, version]
                    for signature, found in signatures.items()
                    if (name, version) in found.operators
                },
            }
            for (name, version), number in sorted(operators.items())
        ],
        "signatures": {name: _signature_cost(found) for name, found in signatures.items()},
        "session": {
            "examples": examples,
            "epochs": max(1, manifest.epochs),
            "steps": cost.steps(examples),
            "work": _work(training),
            "work_per_example": _work_per(training, examples),
            "bytes_downloaded_once": len(part.to_bytes()),
            "bytes_downloaded": _tensor_bytes(manifest.checkpoint),
            "bytes_uploaded": _tensor_bytes(manifest.update),
            "seconds": [asdict(time) for time in times],
            "assumption": ASSUMPTION if times[0].basis == "assumed" else "",
        },
        "memory": _memory(part, cost, signatures, mine),
        "runtimes": _runtimes(manifest),
        "measured": [one.to_json() for one in mine],
    }


def _signature_cost(cost: SignatureCost) -> dict[str, Any]:
    return {
        "operations": sum(cost.operators.values()),
        "work": _work(cost.work),
        "by_operation": {name: _work(work) for name, work in cost.by_operation.items()},
        "activations_peak_bytes": cost.activations.peak_bytes,
        "assumed": list(cost.assumed),
        "uncounted": cost.uncounted,
    }


def _memory(
    part: DevicePart,
    cost: DeviceCost,
    signatures: Mapping[str, SignatureCost],
    measured: Iterable[Measured],
) -> dict[str, Any]:
    peaks = [found.activations.peak_bytes for found in signatures.values()]
    weights, state = _tensor_bytes(part.manifest.checkpoint), cost.state_bytes()
    resident = [
        {"runtime": one.runtime, "bytes": one.rss_bytes}
        for one in measured
        if one.status == "passed" and one.rss_bytes is not None
    ]
    return {
        "graph_bytes": len(part.graph),
        "checkpoint_bytes": weights,
        "state_bytes": state,
        "activations_peak_bytes": max(peaks, default=0),
        "estimated_bytes": len(part.graph) + weights + state + max(peaks, default=0),
        "measured_rss": sorted(resident, key=lambda found: found["bytes"]),
    }


def _work(work: Work) -> dict[str, int]:
    return {**asdict(work), "bytes_moved": work.bytes_moved}


def _work_per(work: Work, examples: int) -> dict[str, float]:
    return {name: value / examples for name, value in _work(work).items()}


def _signatures(manifest: PlanManifest) -> dict[str, Any]:
    return {
        name: {
            "inputs": [_tensor(spec) for spec in signature.inputs],
            "outputs": [_tensor(spec) for spec in signature.outputs],
        }
        for name, signature in sorted(manifest.signatures.items())
    }


def _runtimes(manifest: PlanManifest) -> list[dict[str, Any]]:
    return [
        {"name": runtime.name, "relative_difference": runtime.relative_difference}
        for runtime in manifest.runtimes
    ]


def _groups(manifest: PlanManifest) -> list[tuple[str, list[TensorSpec]]]:
    groups = [
        ("checkpoint", list(manifest.checkpoint)),
        ("examples", list(manifest.examples)),
        ("update", list(manifest.update)),
        ("metrics", list(manifest.metrics)),
        ("predictions", list(manifest.predictions)),
    ]
    # Every plan has the first four.
    return [(name, specs) for name, specs in groups if specs or name != "predictions"]


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)}


def _tensor_bytes(specs: Iterable[TensorSpec]) -> int:
    return sum(math.prod(spec.shape) * np.dtype(spec.dtype).itemsize for spec in specs)
