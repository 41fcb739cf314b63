"""A running server, of one process or many, and devices that come to any of its selectors."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from device_plan import wire_pb2 as wire
from tests.server.live.clustered import OneSelector
from tests.server.live.device import Device
from tests.server.live.mean_plan import plan_for, update_of
from tests.server.live.rounds import LiveRound
from tests.server.live.served import DeployedTask, Server
from tests.server.live.waiting import eventually

#: Rounds that need all the devices that a test sends, and no other.
EXACT = {"over_selection": 1.0, "minimum_fraction": 1.0}

#: Seconds between two devices that come in vain; each costs every part something.
COMING_S = 0.05


@dataclass
class Deployment:
    """Attributes:
    selectors: Where devices may come.
    mean_plan: From which the tests' plans are made.
    deployed: The tasks of the test that runs.
    """

    selectors: Sequence[Server | OneSelector]
    mean_plan: Path
    deployed: list[DeployedTask] = field(default_factory=list)
    _seeds: "itertools.count[int]" = field(default_factory=itertools.count)

    def deploy(
        self, population: str, *, evaluation: Mapping[str, Any] | None = None, **cohort: float
    ) -> "Population":
        """A population with a training task, and an evaluation task if it has a cohort."""
        plan = plan_for(
            population, base=self.mean_plan, evaluation=evaluation, **{**EXACT, **cohort}
        )
        created = self.selectors[0].admin.post("tasks", plan)["tasks"]
        tasks = [DeployedTask(self.selectors[0], each["task_id"], population) for each in created]
        self.deployed += tasks
        return Population(self, population, tasks)

    def clear(self) -> None:
        """Cancels what was deployed: an open round is a process of the cluster's."""
        for task in self.deployed:
            if task.status in ("active", "paused"):
                task.act("cancel")
        self.deployed.clear()

    def device(self, population: str, *, at: int = 0) -> Device:
        """One that comes to that selector, counted around."""
        selector = self.selectors[at % len(self.selectors)]
        return Device(selector, population, update=update_of(next(self._seeds)))


@dataclass
class Population:
    """Attributes:
    deployment: Where it is served.
    name: Its name.
    tasks: Its tasks, the training task first.
    """

    deployment: Deployment
    name: str
    tasks: list[DeployedTask]

    @property
    def training(self) -> DeployedTask:
        return self.tasks[0]

    def assemble(self, count: int) -> LiveRound:
        """A training round with so many devices, spread over all selectors."""
        devices: list[Device] = []
        while len(devices) < count:
            missing = count - len(devices)
            waiting = [self.waiting(at=len(devices) + number) for number in range(missing)]
            for device in waiting:
                told = device.wait_until_told()
                if told.HasField("assignment"):
                    assert told.assignment.computation == wire.TRAINING
                    devices.append(device)
        assert len({device.assignment.round_id for device in devices}) == 1
        return LiveRound(task=self.training, devices=devices)

    def waiting(self, *, at: int = 0) -> Device:
        """A device that a pool has taken; those that are held out go away again."""

        def comes() -> Device | None:
            device = self.deployment.device(self.name, at=at)
            reply = device.check_in()
            if reply.status == 404:
                # This selector has not heard of the population yet.
                return None
            return device if reply.read(wire.CheckInResponse).HasField("waiting") else None

        return eventually(comes, every=COMING_S)
