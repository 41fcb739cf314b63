"""What the coordinator of one population decides: which round of which task starts when.

* A task has at most one round at work at a time. Tasks run side by side: training
  and evaluation do not compete, because held-out devices never train.
* Rounds of a training task are pipelined (Bonawitz et al. 2019, §4.3): as soon as
  one round's devices have their work, the next one opens and looks for its own. It
  is *released* by the model that the first one commits; if that is abandoned, by
  the model that both began with, after the wait that an abandoned round costs.
* A training task runs round after round from its model's head until its target,
  and is then complete.
* An evaluation task measures the models of a training task: the initial one as
  the baseline, every ``every_rounds``-th, and the last one; then it is complete.
  If it falls behind it skips to the newest that is due.
* After an abandoned round a task waits, twice as long each time in a row, within
  bounds; a commit or a resumption forgets that.
* A paused task finishes the round it is in; a cancelled one does not.
"""

from dataclasses import dataclass, replace

from server.protocol.population_messages import (
    CancelRound,
    CompleteTask,
    Effect,
    Event,
    ReleaseRound,
    RoundEnded,
    RoundReporting,
    StartRound,
    TaskChanged,
    TaskRemoved,
    TaskView,
)
from server.protocol.waking import Tick, WakeAt

__all__ = [
    "CancelRound",
    "CompleteTask",
    "Effect",
    "Event",
    "Population",
    "ReleaseRound",
    "RoundEnded",
    "RoundReporting",
    "StartRound",
    "TaskChanged",
    "TaskRemoved",
    "TaskView",
    "Tick",
    "WakeAt",
]

#: Seconds that a task waits after its first abandoned round.
RETRY_S = 0.2
#: Seconds that it waits at most, however many have been abandoned in a row.
MAX_RETRY_S = 60.0


@dataclass(slots=True)
class _OpenRound:
    #: None: it waits for its release.
    base_round: int | None
    round_id: str | None = None
    reporting: bool = False
    cancelled: bool = False


@dataclass(slots=True)
class _Task:
    view: TaskView
    removed: bool = False
    #: The round at work, if there is one, and the one that waits for its model.
    open: _OpenRound | None = None
    ahead: _OpenRound | None = None
    failures: int = 0
    not_before: float = float("-inf")

    @property
    def head_to_come(self) -> int:
        """The model that the round after the one at work begins with, if that is committed.

        The registry may have the head of a commit that nobody has told of yet.
        """
        base_round = self.open.base_round if self.open is not None else None
        return (
            self.view.head_round
            if base_round is None
            else max(self.view.head_round, base_round + 1)
        )

    @property
    def rounds(self) -> list[_OpenRound]:
        """Those that are open, the one at work first."""
        return [each for each in (self.open, self.ahead) if each is not None]

    @property
    def finished(self) -> bool:
        """Of a training task: its model will not move any more."""
        return self.view.status == "completed" or self.view.head_round >= self.view.rounds_target


class Population:
    """Decides for one population. Begins with no tasks: tell it each by `TaskChanged`.

    Args:
        name: The population's name.
        retry_s: Seconds that a task waits after an abandoned round; doubled for
            each further one.
        max_retry_s: At most this long.

    Raises:
        ValueError: the waiting times are not positive or not in order.
    """

    def __init__(
        self, *, name: str, retry_s: float = RETRY_S, max_retry_s: float = MAX_RETRY_S
    ) -> None:
        if retry_s <= 0:
            raise ValueError(f"retry_s must be positive, not {retry_s}")
        self.name = name
        self._retry_s = retry_s
        self._max_retry_s = max(retry_s, max_retry_s)
        self._tasks: dict[str, _Task] = {}
        self._woken_for: float | None = None
        self._now = float("-inf")

    def handle(self, event: Event, now: float) -> list[Effect]:
        """The effects of an event that happened at ``now`` (seconds), in order."""
        self._now = now
        match event:
            case TaskChanged(view):
                self._changed(view)
            case TaskRemoved(task_id) if task_id in self._tasks:
                self._tasks[task_id].removed = True
            case RoundReporting(task_id, round_id) if task_id in self._tasks:
                at_work = self._tasks[task_id].open
                if at_work is not None and at_work.round_id == round_id:
                    at_work.reporting = True
            case RoundEnded():
                self._round_ended(event, now)
        if isinstance(event, Tick):
            self._woken_for = None
        return self._decide(now)

    def round_started(self, task_id: str, round_id: str) -> list[Effect]:
        """The driver's answer to `StartRound`: the round has this identifier.

        Returns:
            Its cancellation, if the task was cancelled or removed meanwhile. Or, if it
            was to wait for a model that is there already, its release.
        """
        task = self._tasks.get(task_id)
        unnamed = [each for each in task.rounds if each.round_id is None] if task else []
        if task is None or not unnamed:
            return []
        unnamed[0].round_id = round_id
        effects = self._cancellations(task)
        if task.open is None and not task.removed:
            # Whoever is still to wait has been woken for, by the event that said so.
            effects += self._next_of(task, self._now, [])
        return effects

    def open_round(self, task_id: str) -> str | None:
        """The identifier of the task's round at work, if there is one and it has been named."""
        task = self._tasks.get(task_id)
        return task.open.round_id if task is not None and task.open is not None else None

    def waiting_round(self, task_id: str) -> str | None:
        """Likewise, of the round that selects ahead of its model."""
        task = self._tasks.get(task_id)
        return task.ahead.round_id if task is not None and task.ahead is not None else None

    def _changed(self, view: TaskView) -> None:
        if view.computation == "evaluation" and (view.every_rounds < 1 or not view.evaluates):
            raise ValueError(
                f"evaluation task {view.task_id!r} needs the task it evaluates and every_rounds "
                f"of at least 1, not {view.evaluates!r} and {view.every_rounds}"
            )
        task = self._tasks.get(view.task_id)
        if task is None:
            self._tasks[view.task_id] = _Task(view)
            return
        old = task.view
        task.view = replace(
            view,
            head_round=max(view.head_round, old.head_round),
            last_evaluated_round=_newest(view.last_evaluated_round, old.last_evaluated_round),
        )
        task.removed = False
        if view.status == "active" and old.status != "active":
            task.failures = 0
            task.not_before = float("-inf")

    def _round_ended(self, event: RoundEnded, now: float) -> None:
        task = self._tasks.get(event.task_id)
        ended = None if task is None else self._which(task, event.round_id)
        if task is None or ended is None:
            return
        if ended is task.ahead:
            task.ahead = None
        else:
            task.open = None
        if not event.committed:
            # One that was cancelled ended as it should.
            if not ended.cancelled:
                waits = self._retry_s * 2.0 ** min(task.failures, 60)
                task.not_before = now + min(waits, self._max_retry_s)
                task.failures += 1
            return
        task.failures = 0
        task.not_before = float("-inf")
        view = task.view
        if view.computation == "training":
            task.view = replace(view, head_round=max(view.head_round, event.head_round))
        else:
            newest = _newest(view.last_evaluated_round, ended.base_round)
            task.view = replace(view, last_evaluated_round=newest)

    @staticmethod
    def _which(task: _Task, round_id: str) -> _OpenRound | None:
        """The open round that has ended; an empty identifier is that of one without a name."""
        for each in task.rounds:
            if (each.round_id or "") == round_id:
                return each
        return None

    def _decide(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        waits: list[float] = []
        # Training first: its completion makes the last evaluation due.
        by_kind = sorted(self._tasks.values(), key=lambda task: task.view.computation != "training")
        for task in by_kind:
            effects += self._cancellations(task)
            if task.removed:
                if not task.rounds:
                    del self._tasks[task.view.task_id]
            elif task.open is None:
                effects += self._next_of(task, now, waits)
            elif task.ahead is None and task.open.reporting and self._looks_ahead(task):
                effects += self._ahead_of(task, now, waits)
        wake = min(waits, default=None)
        if wake is not None and wake != self._woken_for:
            effects.append(WakeAt(wake))
        self._woken_for = wake
        return effects

    def _next_of(self, task: _Task, now: float, waits: list[float]) -> list[Effect]:
        """What a task does that has no round at work."""
        view = task.view
        if view.status != "active":
            return []
        if self._complete(task):
            task.view = replace(view, status="completed")
            return [CompleteTask(view.task_id), *self._cancellations(task)]
        base_round = self._due(task)
        if base_round is None:
            return []
        if now < task.not_before:
            waits.append(task.not_before)
            return []
        number = base_round + 1 if view.computation == "training" else base_round
        ahead = task.ahead
        if ahead is None:
            task.open = _OpenRound(base_round)
            return [StartRound(view.task_id, number, view.cohort, base_round)]
        if ahead.round_id is None or ahead.cancelled:
            return []
        task.open, task.ahead = ahead, None
        ahead.base_round = base_round
        return [ReleaseRound(view.task_id, ahead.round_id, number, base_round)]

    @staticmethod
    def _looks_ahead(task: _Task) -> bool:
        view = task.view
        return (
            view.computation == "training"
            and view.status == "active"
            and view.cohort.pipelined
            and task.head_to_come < view.rounds_target
        )

    @staticmethod
    def _ahead_of(task: _Task, now: float, waits: list[float]) -> list[Effect]:
        """The round after the one at work."""
        if now < task.not_before:
            waits.append(task.not_before)
            return []
        view = task.view
        task.ahead = _OpenRound(None)
        return [StartRound(view.task_id, task.head_to_come + 1, view.cohort, None)]

    def _complete(self, task: _Task) -> bool:
        view = task.view
        if view.computation == "training":
            return task.finished
        trained = self._tasks.get(view.evaluates or "")
        if trained is None:
            return False
        last = view.last_evaluated_round
        measured = last is not None and last >= trained.view.head_round
        return trained.view.status == "cancelled" or (trained.finished and measured)

    def _due(self, task: _Task) -> int | None:
        """The model that the task's next round starts from, if one is due."""
        view = task.view
        if view.computation == "training":
            return view.head_round
        trained = self._tasks.get(view.evaluates or "")
        if trained is None:
            return None
        head = trained.view.head_round
        due = head if trained.finished else head - head % view.every_rounds
        last = view.last_evaluated_round
        return due if last is None or due > last else None

    @staticmethod
    def _cancellations(task: _Task) -> list[Effect]:
        """The rounds that a task's end puts an end to.

        A paused task finishes the round at work; one that only waits for its
        model would wait for as long as the pause.
        """
        view = task.view
        doomed: list[_OpenRound] = []
        if task.removed or view.status == "cancelled":
            doomed = task.rounds
        elif task.ahead is not None and (
            view.status != "active" or task.head_to_come >= view.rounds_target
        ):
            doomed = [task.ahead]
        effects: list[Effect] = []
        for each in doomed:
            if each.round_id is not None and not each.cancelled:
                each.cancelled = True
                effects.append(CancelRound(view.task_id, each.round_id))
        return effects


def _newest(one: int | None, other: int | None) -> int | None:
    return max((round_ for round_ in (one, other) if round_ is not None), default=None)
