"""What a plan is tried with, here and on every runtime, and what TFF computes of it."""

import statistics
from collections.abc import Iterator, Sequence

import numpy as np

from device_plan.compiler.examples import ExampleSource, batches
from device_plan.compiler.oracle import Oracle
from device_plan.matrix.case import (
    MAX_CONDITIONED_DIFFERENCE,
    MAX_DIFFERENCE,
    Arrays,
    Case,
    Cases,
)
from device_plan.matrix.runner import relative_difference
from device_plan.plan_pb2 import PlanManifest

#: Draws of examples for each case: the figure is the median over them.
DRAWS = range(5)

#: Of these, TFF's own conditioning is measured.
NUDGED = range(3)

#: Roundings of the weights whose effect is allowed: a step rounds at every operation.
ROUNDINGS = 10


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

    def update(oracle: Oracle, draw: int, rows: int, epochs: int) -> Arrays:
        seed = session_seed(draw).tolist() if manifest.seeded else None
        dataset = examples.dataset(examples.draw(draw, rows), size, epochs)
        return dict(zip(names, oracle.work(dataset, seed), strict=True))

    for name, rows, epochs in (
        ("one batch", size, 1),
        ("one partial batch", max(1, size // 2), 1),
        ("a partial last batch", size + max(1, size // 2), 1),
        (f"{several} epochs", size + max(1, size // 3), several),
    ):
        references = [update(oracle, draw, rows, epochs) for draw in DRAWS]
        limit = MAX_DIFFERENCE
        if rows > size:
            moved = [update(oracle.nudged(draw), draw, rows, epochs) for draw in NUDGED]
            unmoved = [references[draw] for draw in NUDGED]
            limit = _limit(list(map(relative_difference, moved, unmoved)))
        for draw, reference in zip(DRAWS, references, strict=True):
            yield Case(
                name=name,
                computation="training",
                draw=draw,
                seed=session_seed(draw) if manifest.seeded else None,
                batches=list(batches(examples.draw(draw, rows), size)),
                epochs=epochs,
                reference=reference,
                limit=limit,
            )


def _limit(moved: Sequence[float]) -> float:
    """What a session of several steps may differ.

    Steps repeat and can magnify a rounding without bound, in TFF as on a device. So
    where TFF's own result moves further than MAX_DIFFERENCE allows when its weights
    move by one rounding, a multiple of that is allowed; single steps are held to
    MAX_DIFFERENCE always.

    Args:
        moved: By draw, how far TFF's own result moved.
    """
    conditioned = ROUNDINGS * statistics.median(moved)
    return max(MAX_DIFFERENCE, min(conditioned, MAX_CONDITIONED_DIFFERENCE))


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
