"""What a model must achieve in simulation before its plan may be released."""

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Predicate:
    """A bound on an evaluation metric after some simulated rounds on proxy data.

    Bonawitz et al. 2019, §7.2: "test predicates" that verify a model before
    deployment. The metric is that of TFF's evaluation on the proxy data's
    held-out clients.

    Raises:
        ValueError: a value is out of its range; the message names it.
    """

    #: As the model names it, e.g. "sparse_categorical_accuracy" or "loss".
    metric: str
    #: The metric must not be below; None for no such bound.
    at_least: float | None = None
    #: The metric must not be above; None for no such bound.
    at_most: float | None = None
    #: Rounds simulated before the metric is looked at.
    after_rounds: int
    #: Clients in each simulated round; None: as many as the task's cohort wants
    #: updates, or all clients if there are fewer.
    clients_per_round: int | None = None
    #: Of the choice of clients.
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.metric, str) or not self.metric:
            raise ValueError(f"a predicate needs the name of a metric, not {self.metric!r}")
        what = f"the predicate on {self.metric!r}"
        bounds = [bound for bound in (self.at_least, self.at_most) if bound is not None]
        if not bounds:
            raise ValueError(f"{what} needs at_least or at_most")
        for bound in bounds:
            if (
                isinstance(bound, bool)
                or not isinstance(bound, int | float)
                or not math.isfinite(bound)
            ):
                raise ValueError(f"{what} needs a finite number as its bound, not {bound!r}")
        if len(bounds) == 2 and bounds[0] > bounds[1]:
            raise ValueError(
                f"{what} can never hold: at least {bounds[0]:g} and at most {bounds[1]:g}"
            )
        for name, value in (
            ("after_rounds", self.after_rounds),
            ("clients_per_round", self.clients_per_round),
        ):
            if name == "clients_per_round" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"{what}: {name} must be a whole number of at least 1, not {value!r}"
                )
        if (
            isinstance(self.seed, bool)
            or not isinstance(self.seed, int)
            or not 0 <= self.seed < 2**32
        ):
            raise ValueError(f"{what}: seed must be from 0 to 2^32 - 1, not {self.seed!r}")

    @property
    def asks(self) -> str:
        """The bound for people, e.g. "at least 0.8"."""
        parts = []
        if self.at_least is not None:
            parts.append(f"at least {self.at_least:g}")
        if self.at_most is not None:
            parts.append(f"at most {self.at_most:g}")
        return " and ".join(parts)

    def holds(self, value: float) -> bool:
        """Whether the metric's value is within the bounds; NaN never is."""
        if math.isnan(value):
            return False
        above = self.at_least is None or value >= self.at_least
        return above and (self.at_most is None or value <= self.at_most)


@dataclass(frozen=True)
class Verdict:
    """A predicate and the value that the simulation gave its metric."""

    predicate: Predicate
    value: float

    @property
    def holds(self) -> bool:
        return self.predicate.holds(self.value)

    def __str__(self) -> str:
        rounds = self.predicate.after_rounds
        # What holds goes into plans, whose bytes the last bits of a sum must not change.
        value = f"{self.value:.2g}" if self.holds else f"{self.value:.4g}"
        return (
            f"{self.predicate.metric} is {value} after {rounds} simulated "
            f"round{'s' if rounds != 1 else ''}, the predicate asks {self.predicate.asks}"
        )


def judge(predicate: Predicate, metrics: Mapping[str, float]) -> Verdict:
    """The predicate's verdict on a round's evaluation metrics.

    Raises:
        KeyError: the evaluation has no such metric.
    """
    return Verdict(predicate, metrics[predicate.metric])
