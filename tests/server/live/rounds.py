"""A round with devices whose fate the test knows, and the model that must come of it."""

from dataclasses import dataclass, field

import numpy as np

from device_plan import wire_pb2 as wire
from tests.server.live.device import Device
from tests.server.live.mean_plan import Update, moved, update_of
from tests.server.live.served import DeployedTask


@dataclass(kw_only=True)
class LiveRound:
    """An open round and all of its selected devices.

    Attributes:
        task: The round's.
        devices: All assigned.
        in_sum: The updates that the server said are in the sum.
    """

    task: DeployedTask
    devices: list[Device]
    in_sum: list[Update] = field(default_factory=list)
    _done: list[Device] = field(default_factory=list)

    @property
    def round_id(self) -> str:
        return self.devices[0].assignment.round_id

    @property
    def base(self) -> int:
        return int(self.task.round(self.round_id)["base_model_round"])

    def finish(self, *devices: Device) -> None:
        """Each of the devices (all, if none is named) does its part, unless it has."""
        for device in devices or self.devices:
            if device in self._done:
                continue
            self._done.append(device)
            if device.finish():
                self.in_sum.append(device.update)

    def release(self) -> None:
        """Frees the devices' places, so that a round that came to nothing ends."""
        for device in self.devices:
            device.abort()

    def assert_committed(self) -> None:
        """The round made exactly the mean of what is in its sum of the model before."""
        record = self.task.ended(self.round_id)
        assert record["outcome"] == "committed", record
        assert record["statistics"]["accepted"] == len(self.in_sum)
        before = self.task.weights(self.base)
        after = self.task.weights(self.base + 1)
        np.testing.assert_array_equal(after, moved(before, self.in_sum))


def assemble(task: DeployedTask, count: int, *, weight: float = 1.0) -> LiveRound:
    """A round of which these devices, as many as it selects, are assigned."""
    devices = [
        Device(task.server, task.population, update=update_of(number, weight=weight))
        for number in range(count)
    ]
    for device in devices:
        device.join()
    for device in devices:
        told = device.wait_until_told()
        assert told.WhichOneof("outcome") == "assignment", told
        assert told.assignment.computation == wire.TRAINING
    round_ids = {device.assignment.round_id for device in devices}
    assert len(round_ids) == 1
    return LiveRound(task=task, devices=devices)
