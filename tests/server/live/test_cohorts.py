"""Which devices a round gets: of the next one in time, and not the same ones again."""

from pathlib import Path

from device_plan import wire_pb2 as wire
from tests.server.live.device import Device
from tests.server.live.mean_plan import plan_for, update_of
from tests.server.live.rounds import LiveRound, assemble
from tests.server.live.served import Server
from tests.server.live.waiting import eventually


def reason_of(device: Device) -> str:
    told = device.check_in().read(wire.CheckInResponse)
    assert told.WhichOneof("outcome") == "rejection", told
    return wire.Reason.Name(told.rejection.reason)


def test_the_next_round_has_its_devices_before_this_one_is_committed(
    server: Server, mean_plan: Path
) -> None:
    plan = plan_for(
        "cohorts/ahead", base=mean_plan, goal_count=2, over_selection=1.0, pipelined=True
    )
    task = server.deploy(plan)
    first = assemble(task, 2)
    early = [Device(server, task.population, update=update_of(number)) for number in (7, 8)]
    for device in early:
        device.join()
    waiting = [record for record in task.rounds() if record["base_model_round"] is None]
    assert [record["outcome"] for record in waiting] == ["open"]
    assert all(device.poll().WhichOneof("outcome") == "waiting" for device in early)
    first.finish()
    first.assert_committed()
    for device in early:
        assert device.wait_until_told().WhichOneof("outcome") == "assignment"
        assert device.assignment.round_id == waiting[0]["round_id"]
    second = LiveRound(task=task, devices=early)
    assert second.base == first.base + 1
    second.finish()
    second.assert_committed()
    task.act("cancel")


def test_when_a_round_is_abandoned_the_waiting_one_starts_from_the_same_model(
    server: Server, mean_plan: Path
) -> None:
    plan = plan_for(
        "cohorts/again", base=mean_plan, goal_count=2, over_selection=1.0, pipelined=True
    )
    task = server.deploy(plan)
    first = assemble(task, 2)
    early = [Device(server, task.population, update=update_of(number)) for number in (7, 8)]
    for device in early:
        device.join()
    first.release()
    assert task.ended(first.round_id)["outcome"] == "abandoned"
    for device in early:
        assert device.wait_until_told().WhichOneof("outcome") == "assignment"
    second = LiveRound(task=task, devices=early)
    assert second.base == first.base
    second.finish()
    second.assert_committed()
    task.act("cancel")


def test_a_device_that_took_part_waits_for_the_minimum_separation(
    server: Server, mean_plan: Path
) -> None:
    plan = plan_for(
        "cohorts/apart", base=mean_plan, goal_count=1, over_selection=1.0, min_separation_s=3600.0
    )
    task = server.deploy(plan)
    live = assemble(task, 1)
    live.finish()
    live.assert_committed()
    device = live.devices[0]

    def told() -> bool:
        return device.check_in().read(wire.CheckInResponse).rejection.reason != wire.NO_TASK

    eventually(told)
    answer = device.check_in().read(wire.CheckInResponse)
    assert answer.rejection.reason == wire.PARTICIPATED_RECENTLY
    assert 3_500_000 < answer.retry_windows.if_rejected.min_delay_ms <= 3_600_000
    other = Device(server, task.population, update=update_of(2))
    other.join()
    assert other.wait_until_told().WhichOneof("outcome") == "assignment"
    task.act("cancel")


def test_a_device_takes_part_no_more_often_than_the_policy_allows(
    server: Server, mean_plan: Path
) -> None:
    plan = plan_for(
        "cohorts/once", base=mean_plan, goal_count=1, over_selection=1.0, max_participations=1
    )
    task = server.deploy(plan)
    live = assemble(task, 1)
    live.finish()
    live.assert_committed()
    device = live.devices[0]
    device.join()
    assert device.wait_until_told().rejection.reason == wire.PARTICIPATED_ENOUGH
    task.act("cancel")


def test_a_population_s_token_operates_it_and_no_other(server: Server, mean_plan: Path) -> None:
    own = server.deploy(plan_for("cohorts/own", base=mean_plan, goal_count=1))
    other = server.deploy(plan_for("cohorts/other", base=mean_plan, goal_count=1))
    token = server.admin.post(f"populations/{own.population}/token")["token"]
    client = server.admin_with(token)
    assert [task["task_id"] for task in client.get("tasks")["tasks"]] == [own.task_id]
    assert client.post(f"tasks/{own.task_id}/weight?value=2.5")["weight"] == 2.5
    refused = {
        f"tasks/{other.task_id}": 404,
        f"tasks/{other.task_id}/models": 404,
        f"populations/{other.population}": 404,
    }
    for path, status in refused.items():
        assert server.status_with(token, path) == status
    foreign = plan_for(other.population, base=mean_plan, goal_count=1)
    assert server.status_with(token, "tasks", foreign) == 403
    assert server.status_with(token, f"populations/{own.population}/token", b"x") == 403
    server.admin.delete(f"populations/{own.population}/token")
    assert server.status_with(token, "tasks") == 401
    for task in (own, other):
        task.act("cancel")


def test_a_population_has_no_more_sessions_than_its_quota(server: Server, mean_plan: Path) -> None:
    task = server.deploy(plan_for("cohorts/full", base=mean_plan, goal_count=5))
    server.admin.post(
        f"populations/{task.population}/quotas", b'{"max_sessions": 1, "max_upload_bytes": null}'
    )
    first, second = (Device(server, task.population) for _ in range(2))
    first.join()
    assert reason_of(second) == "QUOTA_REACHED"
    first.abort()
    second.join()
    task.act("cancel")
