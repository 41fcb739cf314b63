"""What an author writes: one federated task.

A task file is a Python file with a top-level `task = FederatedTask(...)`, or a
function `task()` that returns one. This module does not import TensorFlow; the
functions that the author gives do, when the plan is compiled.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from device_plan.cohort import CohortPolicy
from device_plan.limits import ResourceLimits
from device_plan.predicates import Predicate
from device_plan.proxy_data import ProxyData

#: Returns a new tff.learning.models.VariableModel, e.g. from tff.learning.models.from_keras_model.
ModelFunction: TypeAlias = Callable[[], Any]

#: Given a model function, returns a tff.learning.templates.LearningProcess.
ProcessFunction: TypeAlias = Callable[[ModelFunction], Any]

#: Given a generator and a count, returns that many plausible examples, by feature name.
SampleFunction: TypeAlias = Callable[[np.random.Generator, int], Mapping[str, np.ndarray]]

#: Returns proxy data; called only when something is simulated.
ProxyFunction: TypeAlias = Callable[[], ProxyData]


@dataclass(frozen=True, kw_only=True)
class ExampleSelector:
    """Which of a device's examples a session uses.

    Raises:
        ValueError: a value is out of its range.
    """

    #: A collection of the app's example store.
    collection: str
    #: An app-defined filter; "" takes all.
    criteria: str = ""
    #: A device with fewer does not take part.
    min_examples: int = 1
    #: Of more, the newest are used.
    max_examples: int = 1000

    def __post_init__(self) -> None:
        if not self.collection:
            raise ValueError("the example selector needs the name of a collection")
        if not 1 <= self.min_examples <= self.max_examples <= 1_000_000:
            raise ValueError(
                "the example selector needs 1 <= min_examples <= max_examples <= 1000000, "
                f"not {self.min_examples} and {self.max_examples}"
            )


@dataclass(frozen=True, kw_only=True)
class EvaluationPolicy:
    """How often held-out devices evaluate the model, and how many of them.

    Raises:
        ValueError: every_rounds is not positive.
    """

    #: Evaluate whenever this many more rounds were committed.
    every_rounds: int
    #: The cohort of each evaluation.
    cohort: CohortPolicy

    def __post_init__(self) -> None:
        if self.every_rounds < 1:
            raise ValueError(f"every_rounds must be at least 1, not {self.every_rounds}")


@dataclass(frozen=True, kw_only=True)
class FederatedTask:
    """A model, how it learns, from which examples, with how many devices.

    Raises:
        ValueError: a value is out of its range; the message names it.
    """

    #: For people, e.g. "digits".
    name: str
    #: The devices that share the learning problem, e.g. "digits/demo".
    population: str
    #: As tff.learning takes it. It must make a new model at each call.
    model_fn: ModelFunction
    #: E.g. lambda m: tff.learning.algorithms.build_weighted_fed_avg(m, ...).
    process_fn: ProcessFunction
    #: Examples in a batch on the device; the last batch of an epoch may be smaller.
    batch_size: int
    #: Passes over the device's examples in one session.
    epochs: int = 1
    examples: ExampleSelector
    cohort: CohortPolicy
    evaluation: EvaluationPolicy | None = None
    #: Committed rounds that complete the task.
    rounds: int
    #: Of the initial weights.
    seed: int = 0
    #: Examples for the release checks. Without it they are random: features
    #: in [0, 1), labels among the model's classes.
    sample_fn: SampleFunction | None = None
    #: Simulated clients for `nightshift task simulate` and the predicates.
    proxy_fn: ProxyFunction | None = None
    #: What the model must achieve in simulation before the plan may be released.
    predicates: tuple[Predicate, ...] = ()
    #: What a session may use of a device.
    limits: ResourceLimits = field(default_factory=ResourceLimits)
    #: Who answers for the task; "" takes the name that git is configured with.
    author: str = ""
    #: Who reviewed it; "" if nobody did.
    reviewer: str = ""

    def __post_init__(self) -> None:
        for name in ("name", "population"):
            value = getattr(self, name)
            if not value or not isinstance(value, str) or value.strip() != value:
                raise ValueError(f"{name} must be a text without spaces around it, not {value!r}")
        for name in ("model_fn", "process_fn"):
            if not callable(getattr(self, name)):
                raise ValueError(f"{name} must be a function, not {getattr(self, name)!r}")
        for name in ("sample_fn", "proxy_fn"):
            value = getattr(self, name)
            if value is not None and not callable(value):
                raise ValueError(f"{name} must be a function or None, not {value!r}")
        for name in ("author", "reviewer"):
            value = getattr(self, name)
            if not isinstance(value, str) or value.strip() != value:
                raise ValueError(f"{name} must be a text without spaces around it, not {value!r}")
        for name in ("batch_size", "epochs", "rounds"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be from 0 to 2^32 - 1, not {self.seed}")
        if not isinstance(self.predicates, tuple) or not all(
            isinstance(predicate, Predicate) for predicate in self.predicates
        ):
            raise ValueError(
                "predicates must be a tuple of device_plan.predicates.Predicate, "
                f"not {self.predicates!r}"
            )
        if not isinstance(self.limits, ResourceLimits):
            raise ValueError(
                f"limits must be device_plan.limits.ResourceLimits, not {self.limits!r}"
            )

    def schedule(self) -> dict[str, Any]:
        """The author's wishes for running the task, as the plan archive keeps them."""
        evaluation = self.evaluation
        return {
            "name": self.name,
            "population": self.population,
            "rounds": self.rounds,
            "cohort": self.cohort.to_json(),
            "evaluation": evaluation
            and {
                "every_rounds": evaluation.every_rounds,
                "cohort": evaluation.cohort.to_json(),
            },
        }
