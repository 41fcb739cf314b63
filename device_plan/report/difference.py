"""What differs between two plans, and whether they compute the same."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from device_plan import checkpoint
from device_plan.archive import Computation, PlanArchive
from device_plan.report.description import describe

#: Scalars of a plan's parts by where they stand.
Facts = dict[str, Any]

_COMPUTATIONS: tuple[Computation, ...] = ("training", "evaluation")
_SERVER_GRAPHS = ("prepare", "report", "update")

_MISSING = object()


@dataclass(frozen=True)
class Change:
    """One thing that differs.

    Attributes:
        where: Its place, e.g. "tensors/checkpoint/hidden/kernel".
        old, new: Its value in each plan, of JSON's types; None where it is absent.
        relative_difference: Of tensors, the L2 norm of the change by that of the
            old value; None of anything else, and from zero.
    """

    where: str
    old: Any
    new: Any
    relative_difference: float | None = None


@dataclass(frozen=True)
class Difference:
    """All changes, in groups.

    Attributes:
        computation: What devices and server compute, and from which initial weights.
        task: Whose devices and examples, how many, how often.
        evidence: What is known of the plan: checks, runtimes, provenance, signatures.
        figures: What follows from the rest: operations, bytes, work, memory.
    """

    computation: tuple[Change, ...]
    task: tuple[Change, ...]
    evidence: tuple[Change, ...]
    figures: tuple[Change, ...]

    @property
    def same(self) -> bool:
        return not (self.computation or self.task or self.evidence or self.figures)

    @property
    def verdict(self) -> str:
        """One sentence."""
        if self.same:
            return "The plans are the same."
        if self.computation:
            return "The plans compute different things."
        if self.task:
            return "The same computation for another task: examples, devices or rounds differ."
        return "The same computation: only what is known of it differs."

    def to_json(self) -> dict[str, Any]:
        return {
            "same": self.same,
            "same_computation": not self.computation,
            "verdict": self.verdict,
            **asdict(self),
        }


def compare(old: PlanArchive, new: PlanArchive) -> Difference:
    """Compares two plans.

    Raises:
        MalformedGraph, MalformedPlan, MalformedCheckpoint: a part of a plan cannot be read.
    """
    if old.data == new.data:
        return Difference((), (), (), ())
    plans = (old, new)
    both = frozenset.intersection(
        *(frozenset(part.variant for part in plan.variants) for plan in plans)
    )
    descriptions = [describe(plan) for plan in plans]
    computations = [
        _computation(description, plan, both)
        for description, plan in zip(descriptions, plans, strict=True)
    ]
    return Difference(
        computation=(*_changes(*computations), *_weights(old, new)),
        task=_changes(*map(_task, descriptions)),
        evidence=_changes(*map(_evidence, descriptions)),
        figures=_changes(*(_figures(description, both) for description in descriptions)),
    )


def _changes(old: Facts, new: Facts) -> tuple[Change, ...]:
    order = [*old, *(where for where in new if where not in old)]
    return tuple(
        Change(where, old.get(where), new.get(where))
        for where in order
        if old.get(where, _MISSING) != new.get(where, _MISSING)
    )


def _computation(
    description: Mapping[str, Any], archive: PlanArchive, both: frozenset[str]
) -> Facts:
    facts: Facts = {key: description[key] for key in ("batch_size", "epochs", "seeded")}
    facts |= {key: description[key] for key in ("weight_tensor", "max_weight")}
    facts["variants"] = [variant["name"] for variant in description["variants"]]
    for group, specs in description["tensors"].items():
        facts |= _tensors(f"tensors/{group}", specs)
    for part in archive.variants:
        place = f"variants/{part.variant}"
        facts[f"{place}/graph"] = part.manifest.graph_sha256
        # Of a variant that only one plan has, nothing more can be compared.
        if part.variant not in both:
            continue
        for name, signature in sorted(part.manifest.signatures.items()):
            for side, specs in (("inputs", signature.inputs), ("outputs", signature.outputs)):
                listed = [
                    {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)}
                    for spec in specs
                ]
                facts |= _tensors(f"{place}/{name}/{side}", listed)
    for computation in _COMPUTATIONS:
        server = archive.server_part(computation)
        for graph in _SERVER_GRAPHS:
            data = getattr(server, graph).SerializeToString(deterministic=True)
            facts[f"server/{computation}/{graph}"] = hashlib.sha256(data).hexdigest()
        for side in ("state", "sums", "metrics"):
            specs = [
                {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)}
                for spec in getattr(server, side)
            ]
            facts |= _tensors(f"server/{computation}/{side}", specs)
        facts |= {
            f"server/{computation}/model_weights/{name}": place
            for name, place in sorted(server.model_weights.items())
        }
    return facts


def _tensors(place: str, specs: Iterable[Mapping[str, Any]]) -> Facts:
    return {f"{place}/{spec['name']}": f"{spec['dtype']} {spec['shape']}" for spec in specs}


def _task(description: Mapping[str, Any]) -> Facts:
    chosen = {key: description[key] for key in ("name", "population", "examples", "schedule")}
    return _flat("", chosen)


def _evidence(description: Mapping[str, Any]) -> Facts:
    facts: Facts = {"digest": description["digest"]}
    facts |= _flat("signature", description["signature"])
    facts |= _flat("provenance", description["provenance"] or {})
    for check in description["checks"].get("checks", []):
        result = "passed" if check["passed"] else "FAILED"
        facts[f"checks/{check['name']}"] = f"{result}: {check['summary']}"
    for variant in description["variants"]:
        for runtime in variant["runtimes"]:
            place = f"runtimes/{variant['name']}/{runtime['name']}"
            facts[place] = f"passed, relative difference {runtime['relative_difference']:.1e}"
    return facts


def _figures(description: Mapping[str, Any], both: frozenset[str]) -> Facts:
    facts = _flat("bytes", description["bytes"])
    for variant in description["variants"]:
        place = f"variants/{variant['name']}"
        facts |= _flat(f"{place}/bytes", variant["bytes"])
        if variant["name"] not in both:
            continue
        facts[f"{place}/min_runtime_version"] = variant["min_runtime_version"]
        facts[f"{place}/custom_ops"] = variant["custom_ops"]
        for op in variant["ops"]:
            facts[f"{place}/ops/{op['name']} {op['version']}"] = op["count"]
        for name, signature in variant["signatures"].items():
            facts |= _flat(f"{place}/work/{name}", signature["work"])
        facts |= _flat(f"{place}/memory", variant["memory"])
    return facts


def _flat(place: str, value: Any) -> Facts:
    """Scalars and lists by the path that leads to them."""
    if not isinstance(value, Mapping):
        return {place: value}
    facts: Facts = {}
    for key, item in value.items():
        facts |= _flat(f"{place}/{key}" if place else str(key), item)
    return facts


def _weights(old: PlanArchive, new: PlanArchive) -> list[Change]:
    """How far the initial weights and the server's initial state are from one another."""
    changes: list[Change] = []
    for place, before, after in (
        ("initial weights", old.initial_checkpoint, new.initial_checkpoint),
        ("initial server state", old.initial_state, new.initial_state),
    ):
        ours, theirs = checkpoint.decode(before), checkpoint.decode(after)
        for name in [*ours, *(name for name in theirs if name not in ours)]:
            x, y = ours.get(name), theirs.get(name)
            if x is None or y is None or x.shape != y.shape or not np.array_equal(x, y):
                changes.append(
                    Change(f"{place}/{name}", _norm(x), _norm(y), _relative_difference(x, y))
                )
    return changes


def _norm(value: np.ndarray | None) -> str | None:
    if value is None:
        return None
    norm = float(np.linalg.norm(value.astype(np.float64)))
    return f"{value.dtype} {list(value.shape)}, norm {norm:.6g}"


def _relative_difference(old: np.ndarray | None, new: np.ndarray | None) -> float | None:
    if old is None or new is None or old.shape != new.shape:
        return None
    before, after = old.astype(np.float64), new.astype(np.float64)
    norm = float(np.linalg.norm(before))
    relative = float(np.linalg.norm(after - before)) / norm if norm else np.inf
    return relative if np.isfinite(relative) else None
