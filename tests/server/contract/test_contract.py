"""What devices and operators may rely on, whether the server is one process or a cluster."""

import threading
import time
from functools import partial

import numpy as np
import pytest

from device_plan import wire_pb2 as wire
from tests.server.contract.deployment import COMING_S, Deployment, Population
from tests.server.live.device import CHUNK, Device
from tests.server.live.mean_plan import moved
from tests.server.live.refusals import assert_refused
from tests.server.live.scraping import metric
from tests.server.live.waiting import eventually


def name_of(request: pytest.FixtureRequest) -> str:
    """A population for this test alone."""
    return "contract/" + request.node.originalname.removeprefix("test_")[:40].rstrip("_")


def test_each_model_is_the_last_one_moved_by_the_mean_of_exactly_its_rounds_updates(
    deployment: Deployment, request: pytest.FixtureRequest
) -> None:
    population = deployment.deploy(name_of(request), goal_count=6)
    for number in range(3):
        live = population.assemble(6)
        assert live.base == number
        live.finish()
        live.assert_committed()
    assert population.training.head == 3


def test_what_is_sent_twice_counts_once(
    deployment: Deployment, request: pytest.FixtureRequest
) -> None:
    population = deployment.deploy(name_of(request), goal_count=3)
    live = population.assemble(3)
    again, *others = live.devices
    for _ in range(2):
        assert again.report().read(wire.ReportResponse).upload
    data = again.data
    for offset in (0, 0, CHUNK, CHUNK, 2 * CHUNK):
        chunk = data[offset : offset + CHUNK]
        assert again.put(chunk, offset=offset, total=len(data)).status == 200
    assert again.submit().status == 200
    for _ in range(3):
        assert_refused(again.submit(), 409, "ALREADY_SUBMITTED")
    live.in_sum.append(again.update)
    live.finish(*others)
    live.assert_committed()


def test_a_check_in_that_is_repeated_gets_the_same_session(
    deployment: Deployment, request: pytest.FixtureRequest
) -> None:
    population = deployment.deploy(name_of(request), goal_count=5)

    def comes_twice() -> tuple[str, str] | None:
        device = deployment.device(population.name)
        first = device.check_in("one-and-the-same").read(wire.CheckInResponse)
        if not first.HasField("waiting"):
            return None
        second = device.check_in("one-and-the-same").read(wire.CheckInResponse)
        return first.session_id, second.session_id

    first, second = eventually(comes_twice, every=COMING_S)
    assert first == second


def test_a_device_that_gives_up_is_not_in_the_sum(
    deployment: Deployment, request: pytest.FixtureRequest
) -> None:
    population = deployment.deploy(name_of(request), goal_count=4, minimum_fraction=0.75)
    live = population.assemble(4)
    assert live.devices[0].report().status == 200
    assert live.devices[0].upload().status == 200
    assert live.devices[0].abort().status == 200
    live.finish(*live.devices[1:])
    live.assert_committed()
    assert_refused(live.devices[0].submit(), 410, "ROUND_OVER")


def test_a_device_that_comes_after_the_goal_uploads_nothing(
    deployment: Deployment, request: pytest.FixtureRequest
) -> None:
    population = deployment.deploy(name_of(request), goal_count=2, over_selection=2.0)
    live = population.assemble(4)
    live.finish(*live.devices[:2])
    live.assert_committed()
    for late in live.devices[2:]:
        told = late.report().read(wire.ReportResponse)
        assert (told.upload, told.reason) == (False, wire.GOAL_REACHED)


def test_held_out_devices_evaluate_the_model_beside_training(
    deployment: Deployment, request: pytest.FixtureRequest
) -> None:
    population = deployment.deploy(
        name_of(request), goal_count=2, evaluation={"goal_count": 2, "over_selection": 1.0}
    )
    training, evaluation = population.tasks
    trained: list[Device] = []
    evaluated: list[Device] = []

    def enough() -> bool:
        return len(trained) >= 4 and len(evaluated) >= 2

    def both() -> bool:
        device = deployment.device(population.name, at=len(trained) + len(evaluated))
        reply = device.check_in()
        if reply.status == 404 or not reply.read(wire.CheckInResponse).HasField("waiting"):
            return False
        while (told := device.poll()).HasField("waiting") and not enough():
            time.sleep(COMING_S)
        if told.HasField("assignment"):
            device.assignment = told.assignment
            trains = told.assignment.computation == wire.TRAINING
            (trained if trains else evaluated).append(device)
            if not trains:
                device.update = {"num_examples": np.asarray(21, np.int64)}
            assert device.finish()
        return enough()

    crowds = [
        threading.Thread(target=lambda: eventually(both, within=90.0, every=COMING_S))
        for _ in range(4)
    ]
    for each in crowds:
        each.start()
    for each in crowds:
        each.join()
    first = eventually(
        lambda: next((r for r in evaluation.rounds() if r["outcome"] == "committed"), None)
    )
    assert first["metrics"]["num_examples"] == 42
    assert first["base_model_round"] in range(training.head + 1)
    assert training.head >= 1


def test_a_paused_task_goes_on_when_it_is_resumed_and_a_cancelled_one_never(
    deployment: Deployment, request: pytest.FixtureRequest
) -> None:
    population = deployment.deploy(name_of(request), goal_count=2, pipelined=False)
    task = population.training
    live = population.assemble(2)
    task.act("pause")
    live.finish()
    live.assert_committed()
    assert len(task.rounds()) == 1
    task.act("resume")
    again = population.assemble(2)
    task.act("cancel")
    assert task.ended(again.round_id)["outcome"] == "abandoned"
    assert_refused(again.devices[1].report(), 410, "ROUND_OVER")
    assert (task.status, task.head) == ("cancelled", 1)


def test_two_populations_train_side_by_side_each_on_its_own_devices(
    deployment: Deployment, request: pytest.FixtureRequest
) -> None:
    names = [f"{name_of(request)}/{which}" for which in ("one", "other")]
    populations = [deployment.deploy(name, goal_count=3) for name in names]
    rounds = [population.assemble(3) for population in populations]
    for first, second in zip(rounds[0].devices, rounds[1].devices, strict=True):
        rounds[0].finish(first)
        rounds[1].finish(second)
    for live in rounds:
        live.assert_committed()
    stray = rounds[0].devices[0]
    stray.population = names[1]
    assert stray.assignment.round_id not in {
        record["round_id"] for record in populations[1].training.rounds()
    }


def test_sums_are_exact_however_many_devices_upload_at_once(
    deployment: Deployment, request: pytest.FixtureRequest
) -> None:
    population: Population = deployment.deploy(name_of(request), goal_count=16)
    live = population.assemble(16)
    before = population.training.weights(live.base)
    threads = [threading.Thread(target=device.finish) for device in live.devices]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    record = population.training.ended(live.round_id)
    assert (record["outcome"], record["statistics"]["accepted"]) == ("committed", 16)
    updates = [device.update for device in live.devices]
    np.testing.assert_array_equal(
        population.training.weights(live.base + 1), moved(before, updates)
    )


def test_every_server_tells_prometheus_of_all_rounds_and_leases(
    deployment: Deployment, request: pytest.FixtureRequest
) -> None:
    population = deployment.deploy(name_of(request), goal_count=4)
    live = population.assemble(4)
    live.finish()
    live.assert_committed()
    population.training.act("cancel")
    of_task = {"task": population.training.task_id}
    record = population.training.round(live.round_id)
    for server in deployment.selectors:
        told = partial(metric, server, "nightshift_rounds_total", **of_task)
        eventually(partial(told, reason="cancelled"))
        assert told(outcome="committed") == 1
        for fate in ("selected", "accepted"):
            assert metric(server, "nightshift_round_devices_total", fate=fate, **of_task) == 4
        for phase in ("selecting", "reporting", "updating"):
            assert metric(server, "nightshift_round_phase_seconds_count", phase=phase) >= 1
        lease = {"population": population.name}
        assert metric(server, "nightshift_lease_held", **lease) == 1
        assert metric(server, "nightshift_lease_epoch", **lease) == record["lease_epoch"]
