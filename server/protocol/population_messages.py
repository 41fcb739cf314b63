"""What a `Population` is told, and what it wants done."""

from dataclasses import dataclass
from typing import Literal

from device_plan.cohort import CohortPolicy
from server.protocol.waking import Tick, WakeAt


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskView:
    """What the coordinator knows of a task.

    Attributes:
        task_id: The task.
        computation: Training moves the model, evaluation measures it.
        status: As in the registry; rounds start only for the active.
        rounds_target: Committed rounds that complete a training task.
        cohort: For its rounds.
        evaluates: The training task that an evaluation task measures.
        every_rounds: After how many rounds it does so, at least 1.
        head_round: The newest committed model of a training task; 0 is the initial one.
        last_evaluated_round: The newest model that an evaluation task has measured.
    """

    task_id: str
    computation: Literal["training", "evaluation"]
    status: Literal["active", "paused", "completed", "cancelled"]
    rounds_target: int
    cohort: CohortPolicy
    evaluates: str | None = None
    every_rounds: int = 0
    head_round: int = 0
    last_evaluated_round: int | None = None


@dataclass(frozen=True, slots=True)
class TaskChanged:
    """Event: a task is new or has changed. Heads only move forward, so a stale view is safe."""

    task: TaskView


@dataclass(frozen=True, slots=True)
class TaskRemoved:
    """Event: a task is no longer this coordinator's. Its round is cancelled."""

    task_id: str


@dataclass(frozen=True, slots=True)
class RoundEnded:
    """Event: a round has been committed or abandoned, or could not be started.

    Attributes:
        round_id: The round; empty if it never got an identifier.
        head_round: The training task's head after it; not used for evaluation.
    """

    task_id: str
    round_id: str
    committed: bool
    head_round: int = 0


@dataclass(frozen=True, slots=True)
class RoundReporting:
    """Event: a round's devices have their work."""

    task_id: str
    round_id: str


Event = TaskChanged | TaskRemoved | RoundReporting | RoundEnded | Tick


@dataclass(frozen=True, slots=True)
class StartRound:
    """Effect: open a round; say `Population.round_started` when it has an identifier.

    Attributes:
        number: Of a training round, the model that its commit makes; of an
            evaluation round, the model that it measures.
        base_round: The model that devices start from or evaluate; None: the one
            that the task's round at work is going to make, see `ReleaseRound`.
    """

    task_id: str
    number: int
    cohort: CohortPolicy
    base_round: int | None


@dataclass(frozen=True, slots=True)
class ReleaseRound:
    """Effect: a round that was started without a base has one now.

    Attributes:
        number: The model that its commit makes.
        base_round: The model that its devices start from.
    """

    task_id: str
    round_id: str
    number: int
    base_round: int


@dataclass(frozen=True, slots=True)
class CompleteTask:
    """Effect: the task has done what it was for."""

    task_id: str


@dataclass(frozen=True, slots=True)
class CancelRound:
    """Effect: abandon this round; `RoundEnded` still follows."""

    task_id: str
    round_id: str


Effect = StartRound | ReleaseRound | CompleteTask | CancelRound | WakeAt
