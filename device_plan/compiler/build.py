"""Builds a plan archive from a task, and checks an existing one against its task."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from device_plan import checkpoint as files
from device_plan.archive import DevicePart, PlanArchive, write_archive
from device_plan.compiler import additivity, naming
from device_plan.compiler.checks import (
    Check,
    Subject,
    report,
    run_checks,
    worst_difference,
)
from device_plan.compiler.device_graph import DeviceGraph, build_device_graph
from device_plan.compiler.examples import ExampleSource
from device_plan.compiler.flatbuffer import TrainingGraph
from device_plan.compiler.model import ModelDescription, describe
from device_plan.compiler.oracle import Oracle, initial_state, start_worker, tff_runtime
from device_plan.compiler.process import Form, evaluation_form, training_form
from device_plan.compiler.runtime import RUNTIME
from device_plan.compiler.server_part import server_part
from device_plan.plan_pb2 import ExampleSelector, PlanManifest, Runtime
from device_plan.task import FederatedTask
from device_plan.task_file import InvalidTask

#: Called with a short text when a step begins.
Progress = Callable[[str], None]


@dataclass(frozen=True)
class BuiltPlan:
    """A plan and the checks it went through.

    Attributes:
        data: The archive; None if a check failed.
    """

    data: bytes | None
    manifest: PlanManifest
    checks: list[Check]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)


@dataclass(frozen=True)
class _Author:
    """All that follows from the author's task alone, before anything is lowered."""

    task: FederatedTask
    model: ModelDescription
    training: Form
    evaluation: Form
    summands: tuple[int, int]


def build_plan(task: FederatedTask, progress: Progress = lambda _: None) -> BuiltPlan:
    """Compiles and checks the task's plan.

    Raises:
        InvalidTask: the task cannot become a plan; the message says why.
    """
    with tff_runtime():
        author = _read(task, progress)
        progress("Lowering the client's work to TFLite")
        checkpoint = naming.checkpoint_names(author.training, author.model)
        naming.check_distinct(checkpoint, author.model.examples)
        update = naming.update_names(author.training, author.model)
        metrics = naming.update_names(author.evaluation, author.model)
        graph = build_device_graph(
            author.training.work,
            author.evaluation.work,
            examples=author.model.examples,
            checkpoint=checkpoint,
            evaluated=_evaluated(author, checkpoint),
            update=update,
            metrics=metrics,
        )
        progress("Computing the initial model")
        start_worker()
        state = initial_state(author.training, task.seed)
        oracle = Oracle(author.training, state)
        manifest = _manifest(author, graph, checkpoint, update, metrics)
        weights = dict(zip(checkpoint, oracle.checkpoint(), strict=True))
        _set_weight(manifest, author, oracle)
        subject = _subject(author, manifest, graph.data, weights, oracle)
        checks = run_checks(subject, progress)
        if not all(check.passed for check in checks):
            return BuiltPlan(None, manifest, checks)
        manifest.runtimes.append(
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
            checkpoint=[evaluated[name] for name in _evaluated(author, checkpoint)],
            sums=manifest.metrics,
        )
        data = write_archive(
            variants=[DevicePart(manifest=manifest, graph=graph.data)],
            training=training,
            evaluation=evaluation,
            initial_state=files.encode(
                dict(zip(naming.state_names(author.training), state, strict=True))
            ),
            initial_checkpoint=files.encode(weights),
            checks=report(checks),
            schedule=task.schedule(),
        )
        return BuiltPlan(data, PlanArchive.from_bytes(data).manifest, checks)


def check_plan(
    archive: PlanArchive, task: FederatedTask, progress: Progress = lambda _: None
) -> list[Check]:
    """The release checks of an existing plan against its task.

    Raises:
        InvalidTask: the task cannot become a plan, or not one with these tensors.
    """
    with tff_runtime():
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
        subject = _subject(
            author,
            archive.manifest,
            archive.graph,
            files.decode(archive.initial_checkpoint),
            Oracle(author.training, state),
        )
        return run_checks(subject, progress)


def _read(task: FederatedTask, progress: Progress) -> _Author:
    progress("Building the learning process with TFF")
    model = describe(task)
    training = training_form(task)
    progress("Building the evaluation with TFF")
    evaluation = evaluation_form(task)
    summands = additivity.prove(training), additivity.prove(evaluation)
    for leaf in training.prepare.inputs:
        # Refused here rather than after a minute of checks.
        leaf.spec()
    return _Author(task, model, training, evaluation, summands)


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
    author: _Author,
    graph: DeviceGraph,
    checkpoint: list[str],
    update: list[str],
    metrics: list[str],
) -> PlanManifest:
    task, parsed = author.task, TrainingGraph(graph.data)
    return PlanManifest(
        name=task.name,
        population=task.population,
        checkpoint=[
            leaf.spec(name)
            for leaf, name in zip(author.training.prepare.outputs, checkpoint, strict=True)
        ],
        examples=author.model.examples,
        update=[
            leaf.spec(name) for leaf, name in zip(author.training.zero.outputs, update, strict=True)
        ],
        metrics=[
            leaf.spec(name)
            for leaf, name in zip(author.evaluation.zero.outputs, metrics, strict=True)
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
    )


def _set_weight(manifest: PlanManifest, author: _Author, oracle: Oracle) -> None:
    """Finds by trial what the weight counts, and so its largest honest value."""
    names = [spec.name for spec in manifest.update]
    if "weight" not in names:
        return
    manifest.weight_tensor = "weight"
    source = ExampleSource(author.task, author.model)
    counts = (2, 5)
    weights = [
        float(oracle.work(source.dataset(source.draw(0, n), 2, 1))[names.index("weight")])
        for n in counts
    ]
    if weights == [float(n) for n in counts]:
        manifest.max_weight = author.task.examples.max_examples * author.task.epochs
    elif weights[0] == weights[1]:
        manifest.max_weight = weights[0]
    else:
        # The author's own weighting: no bound is known.
        manifest.max_weight = math.inf


def _subject(
    author: _Author,
    manifest: PlanManifest,
    graph: bytes,
    weights: dict[str, np.ndarray],
    oracle: Oracle,
) -> Subject:
    return Subject(
        manifest=manifest,
        graph=graph,
        checkpoint=weights,
        summands=author.summands,
        training=oracle,
        evaluation=Oracle(author.evaluation, _evaluation_state(author, weights)),
        examples=ExampleSource(author.task, author.model),
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
