"""`nightshift plan show`."""

import json
import math
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from device_plan.archive import PlanArchive
from device_plan.commands.terminal import checks_table, open_plan, output
from device_plan.plan_pb2 import PlanManifest, TensorSpec


@click.command()
@click.argument("plan_file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
def show(plan_file: Path, as_json: bool) -> None:
    """Print what PLAN_FILE holds: tensors, operations, sizes, schedule and checks."""
    archive = open_plan(plan_file)
    if as_json:
        click.echo(json.dumps(_description(archive), indent=2))
        return
    _print_plan(archive)


def _description(archive: PlanArchive) -> dict[str, Any]:
    manifest = archive.manifest
    selector = manifest.example_selector
    return {
        "name": manifest.name,
        "population": manifest.population,
        "digest": archive.digest,
        "bytes": {
            "archive": len(archive.data),
            "device_part": len(archive.device_part()),
            "graph": len(archive.graph),
            "initial_checkpoint": len(archive.initial_checkpoint),
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
        "signatures": {
            name: {
                "inputs": [_tensor(spec) for spec in signature.inputs],
                "outputs": [_tensor(spec) for spec in signature.outputs],
            }
            for name, signature in sorted(manifest.signatures.items())
        },
        "weight_tensor": manifest.weight_tensor,
        # JSON has no infinity.
        "max_weight": manifest.max_weight if math.isfinite(manifest.max_weight) else None,
        "ops": [{"name": op.name, "version": op.version, "count": op.count} for op in manifest.ops],
        "min_runtime_version": manifest.min_runtime_version,
        "runtimes": [
            {"name": runtime.name, "relative_difference": runtime.relative_difference}
            for runtime in manifest.runtimes
        ],
        "server_state": [_tensor(spec) for spec in archive.server_part("training").state],
        "model_weights": dict(archive.server_part("training").model_weights),
        "schedule": archive.schedule,
        "checks": archive.checks,
    }


def _groups(manifest: PlanManifest) -> list[tuple[str, list[TensorSpec]]]:
    return [
        ("checkpoint", list(manifest.checkpoint)),
        ("examples", list(manifest.examples)),
        ("update", list(manifest.update)),
        ("metrics", list(manifest.metrics)),
    ]


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)}


def _print_plan(archive: PlanArchive) -> None:
    manifest, console = archive.manifest, output()
    selector, schedule = manifest.example_selector, archive.schedule
    size, device_bytes = len(archive.data), len(archive.device_part())
    model_bytes = len(archive.initial_checkpoint)
    overview = Table(title=f"Plan {manifest.name}", title_justify="left", show_header=False)
    for label, value in (
        ("population", manifest.population),
        (
            "bytes",
            f"{size:,}; a device downloads {device_bytes:,} once and {model_bytes:,} a round",
        ),
        ("session", f"{manifest.epochs} epochs in batches of {manifest.batch_size}"),
        (
            "examples",
            f"{selector.min_examples} to {selector.max_examples} of {selector.collection!r}"
            + (f" where {selector.criteria}" if selector.criteria else ""),
        ),
        ("weight", _weight(manifest)),
        ("runtime", f"TFLite {manifest.min_runtime_version or 'of any version'} or newer"),
        ("operations", _operations(manifest)),
        ("rounds", f"{schedule['rounds']} of {schedule['cohort']['goal_count']} updates"),
        ("evaluation", _evaluation(schedule)),
    ):
        overview.add_row(label, value)
    console.print(overview)
    # Not in the table, which would break it in two on a narrow terminal.
    click.echo(f"digest {archive.digest}")
    tensors = Table(title="Tensors", title_justify="left")
    for column in ("part", "name", "dtype", "shape"):
        tensors.add_column(column)
    for group, specs in _groups(manifest):
        for index, spec in enumerate(specs):
            shape = " x ".join("batch" if side < 0 else str(side) for side in spec.shape)
            tensors.add_row("" if index else group, spec.name, spec.dtype, shape or "scalar")
        tensors.add_section()
    console.print(tensors)
    console.print(checks_table(archive.checks.get("checks", [])))


def _weight(manifest: PlanManifest) -> str:
    if not manifest.weight_tensor:
        return "none: updates are summed as they are"
    if not math.isfinite(manifest.max_weight):
        return f"{manifest.weight_tensor}, the author's own, without a known bound"
    return f"{manifest.weight_tensor}, at most {manifest.max_weight:g}"


def _operations(manifest: PlanManifest) -> str:
    total = sum(op.count for op in manifest.ops)
    listed = ", ".join(f"{op.name} {op.count}" for op in manifest.ops)
    return f"{total}, all builtin: {listed}"


def _evaluation(schedule: dict[str, Any]) -> str:
    evaluation = schedule.get("evaluation")
    if not evaluation:
        return "none"
    return (
        f"every {evaluation['every_rounds']} rounds "
        f"on {evaluation['cohort']['goal_count']} held-out devices"
    )
