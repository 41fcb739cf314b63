"""Builds a plan archive from a task, and checks an existing one against its task."""

import contextlib
import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from device_plan import checkpoint as files
from device_plan.archive import DevicePart, PlanArchive, write_archive
from device_plan.compiler import additivity, naming
from device_plan.compiler.checks import (
    Check,
    Subject,
    initial_weights,
    plan_checks,
    report,
    variant_checks,
    worst_difference,
)
from device_plan.compiler.device_graph import DeviceGraph, Names, build_device_graph
from device_plan.compiler.examples import ExampleSource
from device_plan.compiler.flatbuffer import TrainingGraph
from device_plan.compiler.footprint import Footprint
from device_plan.compiler.metric_operations import naming_the_metric
from device_plan.compiler.model import ModelDescription, describe
from device_plan.compiler.oracle import Oracle, initial_state, start_worker, tff_runtime
from device_plan.compiler.prediction import Prediction
from device_plan.compiler.process import Form, evaluation_form, training_form
from device_plan.compiler.release_checks import release_checks
from device_plan.compiler.runtime import RUNTIME
from device_plan.compiler.server_part import server_part
from device_plan.compiler.weighting import Weighting, find_weighting
from device_plan.matrix.case import Cases
from device_plan.plan_pb2 import ExampleSelector, PlanManifest, Runtime
from device_plan.task import FederatedTask
from device_plan.task_file import InvalidTask
from tflite_models.lowering import Profile

#: The graphs of a plan, best first, and whom they are for.
PROFILES: dict[Profile, str] = {"modern": "current runtimes", "legacy": "old runtimes"}

#: Called with a short text when a step begins.
Progress = Callable[[str], None]


@dataclass(frozen=True)
class BuiltPlan:
    """A plan and the checks it went through.

    Attributes:
        data: The archive; None if a check failed.
        footprints: What each variant needed of this machine, another thing in every run.
    """

    data: bytes | None
    manifest: PlanManifest
    checks: list[Check]
    footprints: Mapping[str, Footprint] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)


@dataclass(frozen=True)
class CheckedPlan:
    """What the checks found of an existing plan, and the cases they tried it with."""

    checks: list[Check]
    cases: Cases


@dataclass(frozen=True)
class _Author:
    """All that follows from the author's task alone, before anything is lowered."""

    task: FederatedTask
    model: ModelDescription
    training: Form
    evaluation: Form
    prediction: Prediction
    summands: tuple[int, int]


def build_plan(
    task: FederatedTask,
    progress: Progress = lambda _: None,
    *,
    task_file: Path | None = None,
    require_provenance: bool = False,
    simulate: bool = True,
) -> BuiltPlan:
    """Compiles and checks the task's plan.

    Args:
        task: The author's.
        progress: See `Progress`.
        task_file, require_provenance, simulate: See `release_checks`.

    Raises:
        InvalidTask: the task cannot become a plan; the message says why.
    """
    with tff_runtime(), _rarely_collected():
        author = _read(task, progress)
        names = _names(author)
        try:
            graphs = _lower(author, names, progress)
        except InvalidTask as error:
            known = author.model.metric_operations
            raise InvalidTask(naming_the_metric(str(error), known)) from error
        progress("Computing the initial model")
        start_worker()
        state = initial_state(author.training, task.seed)
        oracle = Oracle(author.training, state)
        weights = dict(zip(names.checkpoint, oracle.checkpoint(), strict=True))
        if not (finite := initial_weights(weights)).passed:
            raise InvalidTask(f"the initial weight {finite.summary}")
        weighting = find_weighting(task, author.model, oracle, names.update)
        variants = [
            DevicePart(
                manifest=_manifest(author, graph, names, weighting, profile), graph=graph.data
            )
            for profile, graph in graphs.items()
        ]
        checked = _check(author, variants, weights, oracle, progress)
        checks, cases = checked.checks, checked.cases
        manifest = variants[0].manifest
        if not all(check.passed for check in checks):
            return BuiltPlan(None, manifest, checks)
        release = release_checks(
            task,
            model=author.model,
            processes=(author.training.process, author.evaluation.process),
            variants=variants,
            cases=cases,
            task_file=task_file,
            require_provenance=require_provenance,
            simulate=simulate,
            progress=progress,
        )
        checks += release.checks
        if not all(check.passed for check in checks):
            return BuiltPlan(None, manifest, checks, release.footprints)
        for part in variants:
            part.manifest.runtimes.append(
                Runtime(name=RUNTIME, relative_difference=worst_difference(checks))
            )
        progress("Writing the archive")
        training = server_part(
            author.training, author.model, checkpoint=manifest.checkpoint, sums=manifest.update
        )
        evaluated = {spec.name: spec for spec in manifest.checkpoint}
        evaluation = server_part(
            author.evaluation,
            author.model,
            checkpoint=[evaluated[name] for name in names.evaluated],
            sums=manifest.metrics,
        )
        data = write_archive(
            variants=variants,
            training=training,
            evaluation=evaluation,
            initial_state=files.encode(
                dict(zip(naming.state_names(author.training), state, strict=True))
            ),
            initial_checkpoint=files.encode(weights),
            checks=report(checks),
            schedule=task.schedule(),
            provenance=release.provenance.to_json() if release.provenance else None,
        )
        return BuiltPlan(data, PlanArchive.from_bytes(data).manifest, checks, release.footprints)


def check_plan(
    archive: PlanArchive, task: FederatedTask, progress: Progress = lambda _: None
) -> CheckedPlan:
    """The release checks of all variants of an existing plan against its task.

    Raises:
        InvalidTask: the task cannot become a plan, or not one with these tensors.
    """
    with tff_runtime(), _rarely_collected():
        author = _read(task, progress)
        checkpoint = naming.checkpoint_names(author.training, author.model)
        names = (
            ("checkpoint", checkpoint, archive.manifest.checkpoint),
            ("update", naming.update_names(author.training, author.model), archive.manifest.update),
            (
                "metrics",
                naming.update_names(author.evaluation, author.model),
                archive.manifest.metrics,
            ),
            ("examples", [spec.name for spec in author.model.examples], archive.manifest.examples),
        )
        for what, expected, specs in names:
            found = [spec.name for spec in specs]
            if found != expected:
                raise InvalidTask(
                    f"this is not the plan of that task: its {what} are {', '.join(found)}; "
                    f"the task's would be {', '.join(expected)}"
                )
        start_worker()
        stored = files.decode(archive.initial_state)
        state = [stored[name] for name in naming.state_names(author.training)]
        weights = files.decode(archive.initial_checkpoint)
        oracle = Oracle(author.training, state)
        return _check(author, archive.variants, weights, oracle, progress)


@contextlib.contextmanager
def _rarely_collected() -> Iterator[None]:
    """Looks for garbage in cycles less often: graphs are millions of objects that stay.

    With Python's own thresholds that search is a tenth of a build.
    """
    before = gc.get_threshold()
    gc.set_threshold(100_000, 50, 50)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _read(task: FederatedTask, progress: Progress) -> _Author:
    progress("Building the learning process with TFF")
    model = describe(task)
    # Refused here rather than after a minute of checks, as what follows below.
    ExampleSource(task, model).draw(0, 1)
    training = training_form(task)
    progress("Building the evaluation with TFF")
    evaluation = evaluation_form(task)
    summands = additivity.prove(training), additivity.prove(evaluation)
    for leaf in training.prepare.inputs:
        leaf.spec()
    return _Author(task, model, training, evaluation, Prediction(task, model), summands)


def _names(author: _Author) -> Names:
    """What the plan's tensors are called. Raises InvalidTask if names collide."""
    model, training, evaluation = author.model, author.training, author.evaluation
    checkpoint = naming.checkpoint_names(training, model)
    naming.check_distinct(checkpoint, model.examples)
    return Names(
        examples=model.examples,
        checkpoint=checkpoint,
        evaluated=_evaluated(author, checkpoint),
        update=naming.update_names(training, model),
        metrics=naming.update_names(evaluation, model),
        weights=[*model.trainable, *model.non_trainable],
        predictions=[spec.name for spec in author.prediction.specs],
    )


def _lower(author: _Author, names: Names, progress: Progress) -> dict[Profile, DeviceGraph]:
    """The device graph of each profile; the legacy one only if it differs."""
    graphs: dict[Profile, DeviceGraph] = {}
    for profile, what in PROFILES.items():
        if profile == "legacy" and not graphs["modern"].has_legacy_form:
            break
        progress(f"Lowering the client's work to TFLite for {what}")
        graphs[profile] = build_device_graph(
            author.training.work,
            author.evaluation.work,
            author.prediction,
            names,
            max_batch=author.task.batch_size,
            profile=profile,
        )
    return graphs


def _check(
    author: _Author,
    variants: Sequence[DevicePart],
    weights: dict[str, np.ndarray],
    oracle: Oracle,
    progress: Progress,
) -> CheckedPlan:
    """The checks of a plan and of each of its variants, on this environment's runtime."""
    evaluation = Oracle(author.evaluation, _evaluation_state(author, weights))
    examples = ExampleSource(author.task, author.model)
    subjects = [
        Subject(
            manifest=part.manifest,
            graph=part.graph,
            checkpoint=weights,
            summands=author.summands,
            training=oracle,
            evaluation=evaluation,
            examples=examples,
        )
        for part in variants
    ]
    progress("Computing updates and metrics with TFF")
    cases = subjects[0].cases()
    checks = plan_checks(subjects[0])
    for place, subject in enumerate(subjects):
        variant = subject.manifest.variant
        progress(f"Comparing the updates and metrics of the {variant or 'device'} graph with TFF's")
        found = variant_checks(subject, cases)
        # The best variant is the plan to most people; only further ones are named.
        checks += [replace(c, name=f"{variant}: {c.name}") for c in found] if place else found
    return CheckedPlan(checks, cases)


def _evaluated(author: _Author, checkpoint: list[str]) -> list[str]:
    names = naming.checkpoint_names(author.evaluation, author.model)
    missing = [name for name in names if name not in checkpoint]
    if missing:
        raise InvalidTask(
            f"evaluation needs {missing[0]!r}, which the training process does not send to "
            "devices: the process must broadcast the whole model"
        )
    return names


def _manifest(
    author: _Author, graph: DeviceGraph, names: Names, weighting: Weighting, profile: Profile
) -> PlanManifest:
    task, parsed = author.task, TrainingGraph(graph.data)
    return PlanManifest(
        name=task.name,
        population=task.population,
        checkpoint=[
            leaf.spec(name)
            for leaf, name in zip(author.training.prepare.outputs, names.checkpoint, strict=True)
        ],
        examples=author.model.examples,
        update=[
            leaf.spec(name)
            for leaf, name in zip(author.training.zero.outputs, names.update, strict=True)
        ],
        metrics=[
            leaf.spec(name)
            for leaf, name in zip(author.evaluation.zero.outputs, names.metrics, strict=True)
        ],
        signatures=graph.signatures,
        batch_size=task.batch_size,
        epochs=task.epochs,
        example_selector=ExampleSelector(
            collection=task.examples.collection,
            criteria=task.examples.criteria,
            min_examples=task.examples.min_examples,
            max_examples=task.examples.max_examples,
        ),
        ops=parsed.ops(),
        min_runtime_version=parsed.min_runtime_version(),
        weight_tensor=weighting.tensor,
        max_weight=weighting.largest,
        variant=profile,
        seeded=graph.seeded,
        predictions=author.prediction.specs,
    )


def _evaluation_state(author: _Author, weights: dict[str, np.ndarray]) -> list[np.ndarray]:
    """fed_eval's state with the model to evaluate, and no metrics of earlier rounds."""
    form = author.evaluation
    authors = naming.model_weights(author.model, naming.state_names(form))
    by_place = {place: weights[name] for name, place in authors.items()}
    return [
        by_place[leaf.name] if leaf.name in by_place else np.zeros(leaf.spec().shape, leaf.dtype)
        for leaf in form.prepare.inputs
    ]
