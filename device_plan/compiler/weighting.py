"""What a session's weight in the mean counts, and so its largest honest value."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from device_plan.compiler.examples import ExampleSource
from device_plan.compiler.model import ModelDescription
from device_plan.compiler.oracle import Oracle
from device_plan.task import FederatedTask

#: What `naming` calls the summand by which the server divides.
WEIGHT = "weight"


@dataclass(frozen=True)
class Weighting:
    """How sessions are weighted.

    Attributes:
        tensor: Of the update, "" if sessions have no weight.
        largest: Above it a weight is not honest; infinite if no bound is known.
    """

    tensor: str
    largest: float


def find_weighting(
    task: FederatedTask, model: ModelDescription, oracle: Oracle, update: Sequence[str]
) -> Weighting:
    """Finds by trial on few examples what the weight counts."""
    if WEIGHT not in update:
        return Weighting("", 0.0)
    source = ExampleSource(task, model)
    counts = (2, 5)
    weights = [
        float(oracle.work(source.dataset(source.draw(0, n), 2, 1))[update.index(WEIGHT)])
        for n in counts
    ]
    if weights == [float(n) for n in counts]:
        return Weighting(WEIGHT, task.examples.max_examples * task.epochs)
    if weights[0] == weights[1]:
        return Weighting(WEIGHT, weights[0])
    # The author's own weighting: no bound is known.
    return Weighting(WEIGHT, math.inf)
