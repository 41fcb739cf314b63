"""Sessions whose results TFF has computed, for any runtime to compute again."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

Arrays = Mapping[str, np.ndarray]
Computation = Literal["training", "evaluation"]

#: Relative difference to TFF above which a plan is refused.
MAX_DIFFERENCE = 1e-5

#: The most that is allowed to a session of several steps, however badly conditioned.
MAX_CONDITIONED_DIFFERENCE = 1e-2

#: What `begin` of a seeded plan takes beside the checkpoint.
SEED = "session/seed"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One session on one draw of examples.

    Attributes:
        name: What it tries, e.g. "one batch"; cases of one name differ in their draw.
        computation: Which of the plan's two.
        draw: The number of the draw of examples.
        seed: What `begin` takes as "session/seed", int32 [3]; None if the plan has none.
        batches: Those of one epoch: the plan's example tensors, one row an example.
        epochs: How often the batches are gone through.
        reference: What TFF computes: the update, or the metrics summed over the batches.
        limit: The relative difference above which the case fails.
    """

    name: str
    computation: Computation
    draw: int
    batches: Sequence[Arrays]
    reference: Arrays
    epochs: int = 1
    seed: np.ndarray | None = None
    limit: float = MAX_DIFFERENCE

    @property
    def examples(self) -> int:
        """Examples in the batches of one epoch."""
        return sum(len(next(iter(batch.values()))) for batch in self.batches)

    def session(self) -> Iterator[Arrays]:
        """All batches, epoch after epoch."""
        for _ in range(self.epochs):
            yield from self.batches


@dataclass(frozen=True)
class Cases:
    """What a plan is tried with.

    Attributes:
        checkpoint: The tensors of PlanManifest.checkpoint, for all cases.
        cases: In the order in which they are shown, all draws of a name in a row.
    """

    checkpoint: Arrays
    cases: Sequence[Case] = field(default_factory=tuple)

    def limits(self) -> dict[str, float]:
        """By name, the relative difference above which the case fails."""
        return {case.name: case.limit for case in self.cases}

    def by_name(self) -> dict[str, list[Case]]:
        named: dict[str, list[Case]] = {}
        for case in self.cases:
            named.setdefault(case.name, []).append(case)
        return named
