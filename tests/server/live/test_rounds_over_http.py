"""How rounds treat their devices: selection, stragglers, goals, tasks that are paused."""

from pathlib import Path

import numpy as np

from device_plan import wire_pb2 as wire
from tests.server.live.device import Device
from tests.server.live.mean_plan import plan_for, update_of
from tests.server.live.refusals import assert_refused
from tests.server.live.rounds import LiveRound, assemble
from tests.server.live.served import DeployedTask, Server
from tests.server.live.waiting import eventually


def deploy(server: Server, mean_plan: Path, name: str, **cohort: float) -> DeployedTask:
    cohort = {"over_selection": 1.0, "minimum_fraction": 1.0, **cohort}
    return server.deploy(plan_for(f"rounds/{name}", base=mean_plan, **cohort))


def assert_untouched(live: LiveRound, reason: str) -> None:
    """The round was abandoned, and the newest model is the one from which it began."""
    record = live.task.ended(live.round_id)
    assert (record["outcome"], record["reason"]) == ("abandoned", reason)
    assert live.task.head == record["base_model_round"]


def rejection(device: Device) -> wire.Rejection:
    """Of a check-in, with the window in which to come back."""
    told = device.check_in().read(wire.CheckInResponse)
    window = told.retry_windows.if_rejected
    assert 0 < window.min_delay_ms <= window.max_delay_ms
    assert told.rejection.message
    return told.rejection


def test_rounds_follow_one_another_each_on_the_model_of_the_last(
    server: Server, mean_plan: Path
) -> None:
    task = deploy(server, mean_plan, "several", goal_count=3)
    for number in range(3):
        live = assemble(task, 3, weight=number + 1.0)
        assert live.base == number
        live.finish()
        live.assert_committed()
    assert task.head == 3


def test_a_round_that_loses_too_many_devices_is_abandoned_at_once(
    server: Server, mean_plan: Path
) -> None:
    task = deploy(server, mean_plan, "below", goal_count=3)
    live = assemble(task, 3)
    before = task.weights(0)
    live.finish(live.devices[0])
    assert live.devices[1].abort().status == 200
    assert_untouched(live, "too_few_updates")
    np.testing.assert_array_equal(task.weights(0), before)
    assert_refused(live.devices[0].submit(), 409, "ALREADY_SUBMITTED")
    assert_refused(live.devices[1].report(), 410, "ROUND_OVER")
    again = assemble(task, 3)
    again.finish()
    again.assert_committed()


def test_stragglers_are_cut_off(server: Server, mean_plan: Path) -> None:
    task = deploy(
        server, mean_plan, "stragglers", goal_count=3, minimum_fraction=0.6, reporting_window_s=1.5
    )
    live = assemble(task, 3)
    live.finish(*live.devices[:2])
    straggler = live.devices[2]
    assert straggler.report().status == 200
    live.assert_committed()
    statistics = task.round(live.round_id)["statistics"]
    assert statistics["closed_by"] == "window_elapsed"
    assert statistics["unfinished"] == 1
    assert_refused(straggler.put(b"x", offset=0, total=10), 410, "ROUND_OVER")


def test_a_round_with_too_few_devices_in_its_window_is_abandoned(
    server: Server, mean_plan: Path
) -> None:
    task = deploy(server, mean_plan, "window", goal_count=2, reporting_window_s=0.3)
    live = assemble(task, 2)
    live.finish(live.devices[0])
    assert_untouched(live, "too_few_updates")


def test_a_selection_with_too_few_devices_is_abandoned(server: Server, mean_plan: Path) -> None:
    task = deploy(server, mean_plan, "lonely", goal_count=2, selection_timeout_s=0.5)
    device = Device(server, task.population, update=update_of(0))
    device.join()
    told = device.wait_until_told()
    assert told.rejection.reason == wire.ROUND_ABANDONED
    assert told.retry_windows.if_rejected.max_delay_ms > 0
    # Devices are told first, the registry afterwards.
    assert eventually(lambda: task.rounds()[0]["reason"]) == "too_few_devices"
    assert task.head == 0


def test_of_more_devices_than_needed_the_others_are_told_so(
    server: Server, mean_plan: Path
) -> None:
    task = deploy(server, mean_plan, "crowd", goal_count=2, selection_window_s=1.0)
    crowd = [Device(server, task.population, update=update_of(n)) for n in range(8)]
    crowd[0].join()
    told = [device.check_in().read(wire.CheckInResponse) for device in crowd[1:]]
    full = [answer for answer in told if answer.HasField("rejection")]
    assert all(answer.rejection.reason == wire.ROUND_FULL for answer in full)
    waiting = [device for device in crowd if device.session_id]
    answers = [device.wait_until_told() for device in waiting]
    chosen = [d for d, a in zip(waiting, answers, strict=True) if a.HasField("assignment")]
    rest = [a.rejection.reason for a in answers if not a.HasField("assignment")]
    assert len(chosen) == 2
    assert set(rest) <= {wire.NOT_SELECTED}
    assert len(full) + len(rest) == 6
    live = LiveRound(task=task, devices=chosen)
    live.finish()
    live.assert_committed()


def test_a_device_that_finishes_after_the_goal_uploads_nothing(
    server: Server, mean_plan: Path
) -> None:
    task = deploy(server, mean_plan, "over", goal_count=2, over_selection=2.0)
    live = assemble(task, 4)
    live.finish(*live.devices[:2])
    live.assert_committed()
    for late in live.devices[2:]:
        told = late.report().read(wire.ReportResponse)
        assert (told.upload, told.reason) == (False, wire.GOAL_REACHED)
    assert task.round(live.round_id)["statistics"]["unfinished"] == 2


def finds_no_task(device: Device) -> bool:
    """False if it came to wait in the pool of a round that is being cancelled."""
    told = device.check_in().read(wire.CheckInResponse)
    return bool(told.rejection.reason == wire.NO_TASK)


def test_a_device_finds_no_task_where_none_is_open(server: Server, mean_plan: Path) -> None:
    task = deploy(server, mean_plan, "none", goal_count=1)
    task.act("cancel")
    # A round that was just opened takes a moment to be cancelled.
    eventually(lambda: all(record["outcome"] != "open" for record in task.rounds()))
    eventually(lambda: finds_no_task(Device(server, task.population)))
    assert rejection(Device(server, task.population)).reason == wire.NO_TASK


def test_a_paused_task_finishes_its_round_and_begins_no_other_until_it_is_resumed(
    server: Server, mean_plan: Path
) -> None:
    task = deploy(server, mean_plan, "paused", goal_count=1)
    live = assemble(task, 1)
    task.act("pause")
    live.finish()
    live.assert_committed()
    device = Device(server, task.population)
    eventually(lambda: rejection(device).reason == wire.NO_TASK)
    assert len(task.rounds()) == 1
    task.act("resume")
    again = assemble(task, 1)
    again.finish()
    again.assert_committed()


def test_cancelling_a_task_ends_its_round_without_a_result(server: Server, mean_plan: Path) -> None:
    task = deploy(server, mean_plan, "cancelled", goal_count=2)
    live = assemble(task, 2)
    live.finish(live.devices[0])
    task.act("cancel")
    record = task.ended(live.round_id)
    assert record["outcome"] == "abandoned"
    assert task.head == 0
    assert_refused(live.devices[1].report(), 410, "ROUND_OVER")
    assert task.status == "cancelled"


def test_what_a_device_sends_is_not_kept(server: Server, mean_plan: Path) -> None:
    task = deploy(server, mean_plan, "private", goal_count=2)
    live = assemble(task, 2)
    live.finish()
    live.assert_committed()
    needles = [device.update["delta"].tobytes()[:64] for device in live.devices]
    for path in server.data.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not any(needle in content for needle in needles), path
