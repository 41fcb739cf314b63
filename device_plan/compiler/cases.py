"""What a plan is tried with, here and on every runtime, and what TFF computes of it."""

from collections.abc import Iterator

import numpy as np

from device_plan.compiler.examples import ExampleSource, batches
from device_plan.compiler.oracle import Oracle
from device_plan.matrix.case import Arrays, Case, Cases
from device_plan.plan_pb2 import PlanManifest

#: Draws of examples for each case: the figure is the median over them.
DRAWS = range(5)


def compute_cases(
    manifest: PlanManifest,
    checkpoint: Arrays,
    training: Oracle,
    evaluation: Oracle,
    examples: ExampleSource,
) -> Cases:
    """The cases of a plan, with TFF's results as references.

    Args:
        manifest: Of any variant: all have the same update and metrics.
        checkpoint: The tensors of manifest.checkpoint.
        training: TFF's execution of the training computation.
        evaluation: TFF's execution of the evaluation computation.
        examples: Draws examples.

    Raises:
        InvalidTask: the author's examples do not fit the model.
    """
    return Cases(
        checkpoint,
        [*_training(manifest, training, examples), *_evaluation(manifest, evaluation, examples)],
    )


def session_seed(draw: int) -> np.ndarray:
    """A "session/seed": int32 [3], each from 1 to 30000."""
    return np.random.default_rng(draw).integers(1, 30001, 3, np.int32)


def _training(manifest: PlanManifest, oracle: Oracle, examples: ExampleSource) -> Iterator[Case]:
    size = manifest.batch_size
    several = max(2, manifest.epochs)
    names = [spec.name for spec in manifest.update]
    for name, rows, epochs in (
        ("one batch", size, 1),
        ("a partial last batch", size + max(1, size // 2), 1),
        (f"{several} epochs", size + max(1, size // 3), several),
    ):
        for draw in DRAWS:
            drawn = examples.draw(draw, rows)
            seed = session_seed(draw) if manifest.seeded else None
            reference = oracle.work(
                examples.dataset(drawn, size, epochs), None if seed is None else seed.tolist()
            )
            yield Case(
                name=name,
                computation="training",
                draw=draw,
                seed=seed,
                batches=list(batches(drawn, size)),
                epochs=epochs,
                reference=dict(zip(names, reference, strict=True)),
            )


def _evaluation(manifest: PlanManifest, oracle: Oracle, examples: ExampleSource) -> Iterator[Case]:
    size = manifest.batch_size
    names = [spec.name for spec in manifest.metrics]
    for name, rows in (
        ("evaluation, one batch", size),
        ("evaluation, summed over batches", 2 * size + max(1, size // 2)),
    ):
        for draw in DRAWS:
            drawn = examples.draw(draw, rows)
            reference = oracle.work(examples.dataset(drawn, size, 1))
            yield Case(
                name=name,
                computation="evaluation",
                draw=draw,
                batches=list(batches(drawn, size)),
                reference=dict(zip(names, reference, strict=True)),
            )
