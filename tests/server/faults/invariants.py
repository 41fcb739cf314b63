"""What must hold whatever happens: looked at after every commit, and when a run is over."""

from __future__ import annotations

from collections import Counter
from typing import Any

from device_plan.cohort import CohortPolicy
from server.storage.registry import Registry
from tests.server.faults.exact_plan import Summed, stamp
from tests.server.faults.process import Process
from tests.server.faults.virtual_device import Fleet, Submitted
from tests.server.faults.world import World

#: Answers to a submit by which a device takes its update for not being in any sum.
_NOT_IN_SUM = ("GOAL_REACHED", "ROUND_OVER")


class Invariants:
    """Watches one run.

    Args:
        world: The run, which is told of every violation.
        registry: Of the run's database, without faults.

    Attributes:
        commits: Rounds committed so far, by task.
    """

    def __init__(self, world: World, registry: Registry) -> None:
        self._world = world
        self._registry = registry
        self._committed: Counter[str] = Counter()
        self.commits: Counter[str] = Counter()

    def took_effect(self, process: Process, name: str, args: tuple[Any, ...], result: Any) -> None:
        """An operation on the registry was carried out just now."""
        if name not in ("rounds.commit_training", "rounds.commit_evaluation") or not result:
            return
        lease, round_id = args[0], args[1]
        holder = self._registry.leases.holder(lease.name)
        if holder is None or (holder.owner, holder.epoch) != (lease.owner, lease.epoch):
            self._violated(
                "no commit by a stale lease holder",
                f"{process.name} committed {round_id} with epoch {lease.epoch}; {holder} holds it",
            )
        self._committed[round_id] += 1
        if self._committed[round_id] > 1:
            self._violated("a round commits at most once", round_id)
        self._check_round(round_id)

    def check_history(self, fleet: Fleet) -> None:
        """Looks at everything that the registry has kept."""
        members: dict[str, Summed] = {}
        for task in self._registry.tasks.list():
            rounds = self._registry.rounds.list(task.task_id)
            committed = [each for each in rounds if each.outcome == "committed"]
            bases = [each.base_model_round for each in committed]
            if len(set(bases)) != len(bases):
                self._violated("at most one committed round per base", f"{task.task_id}: {bases}")
            for each in committed:
                events = Counter(e.event for e in self._registry.rounds.history(each.round_id))
                if events["committed"] != 1 or events["abandoned"]:
                    self._violated("a round commits at most once", f"{each.round_id}: {events}")
                members[each.round_id] = Summed.of(each.metrics)
            if task.computation != "training":
                continue
            models = self._registry.models.list(task.task_id)
            numbers = [model.round for model in models]
            if numbers != list(range(len(numbers))) or len(numbers) != len(committed) + 1:
                self._violated("one model per committed round", f"{numbers} of {bases}")
            if self._registry.models.head(task.task_id).round != numbers[-1]:
                self._violated("the head is the newest model", f"{task.task_id}")
        self._check_told(fleet.submitted, members)

    def _check_round(self, round_id: str) -> None:
        record = self._registry.rounds.get(round_id)
        self.commits[record.task_id] += 1
        self._world.time.notice()
        task = self._registry.tasks.get(record.task_id)
        statistics = record.statistics
        try:
            summed = Summed.of(record.metrics)
            accepted, selected = statistics["accepted"], statistics["selected"]
        except KeyError as error:
            self._violated("a committed round has its metrics", f"{round_id} lacks {error}")
            return
        count = sum(summed.counts)
        minimum = CohortPolicy.from_json(task.cohort).minimum_count
        if count < minimum or accepted < minimum:
            self._violated("no commit below the minimum", f"{round_id}: {count} of {minimum}")
        if count != accepted:
            self._violated(
                "the sum is the accepted updates",
                f"{round_id}: {accepted} accepted, {count} summed",
            )
        if accepted > selected:
            self._violated(
                "only selected devices are summed", f"{round_id}: {accepted} of {selected}"
            )
        for device, (times, stamped) in enumerate(zip(summed.counts, summed.stamps, strict=True)):
            if times > 1:
                self._violated(
                    "a device counts at most once a round",
                    f"{round_id}: device {device}, {times} times",
                )
            if stamped != times * stamp(round_id):
                self._violated(
                    "only updates of the round are summed", f"{round_id}: device {device}"
                )
        if task.computation == "training" and summed.base != record.base_model_round:
            self._violated("a round updates its base", f"{round_id}: {summed.base}")

    def _check_told(self, submitted: list[Submitted], members: dict[str, Summed]) -> None:
        for update in submitted:
            summed = members.get(update.round_id)
            if summed is None or update.requests != 1 or not update.answers:
                continue
            if update.answers[0] in _NOT_IN_SUM and summed.counts[update.device]:
                self._violated(
                    "a refused update is in no sum",
                    f"device {update.device} in {update.round_id} was told {update.answers[0]}",
                )

    def _violated(self, invariant: str, detail: str) -> None:
        self._world.violated(invariant, detail)
