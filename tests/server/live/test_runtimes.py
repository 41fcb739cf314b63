"""Devices get the variant of a plan that passed on their runtime, or learn that none did."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from device_plan import wire_pb2 as wire
from device_plan.archive import DevicePart, PlanArchive, write_archive
from device_plan.plan_pb2 import PlanManifest, Runtime
from tests.server.live.device import Device, Reply, request
from tests.server.live.mean_plan import plan_for, update_of
from tests.server.live.served import FAST, DeployedTask, Server
from tests.server.live.waiting import eventually

DAY_MS = 86_400_000

MODERN = ("tflite-runtime 2.14.0", "ai-edge-litert 2.0.3")
LEGACY = ("tflite-runtime 2.7.0",)


def with_variants(plan: bytes) -> bytes:
    """The plan as two variants, of which each passed on other runtimes."""
    archive = PlanArchive(plan)
    parts = []
    for name, runtimes in (("modern", MODERN), ("legacy", LEGACY)):
        manifest = PlanManifest()
        manifest.CopyFrom(archive.manifest)
        manifest.variant = name
        del manifest.runtimes[:]
        manifest.runtimes.extend(Runtime(name=runtime) for runtime in runtimes)
        parts.append(DevicePart(manifest=manifest, graph=f"graph of {name}".encode()))
    return write_archive(
        variants=parts,
        training=archive.server_part("training"),
        evaluation=archive.server_part("evaluation"),
        initial_state=archive.initial_state,
        initial_checkpoint=archive.initial_checkpoint,
        checks=archive.checks,
        schedule=archive.schedule,
    )


@pytest.fixture(scope="module")
def task(server: Server, mean_plan: Path) -> DeployedTask:
    plan = plan_for(
        "runtimes/mean", base=mean_plan, goal_count=2, over_selection=1.0, minimum_fraction=1.0
    )
    return server.deploy(with_variants(plan))


def rejection(reply: Reply) -> wire.CheckInResponse:
    told = reply.read(wire.CheckInResponse)
    assert told.WhichOneof("outcome") == "rejection", told
    return told


def begun(task: DeployedTask, runtime: str) -> wire.CheckInResponse:
    """The first answer once the task's rounds have begun."""

    def answered() -> wire.CheckInResponse | None:
        told = Device(task.server, task.population, runtime=runtime).check_in()
        answer = told.read(wire.CheckInResponse)
        return None if answer.rejection.reason == wire.NO_TASK else answer

    return eventually(answered)


@pytest.mark.parametrize(
    "runtime",
    ["", "curl", "tflite-runtime", "tflite-runtime 2.13.0", "litert 2.1.0", "tf.lite 1.14.0", "ä"],
)
def test_a_device_whose_runtime_no_variant_passed_on_is_turned_away_for_long(
    task: DeployedTask, runtime: str
) -> None:
    told = begun(task, runtime)
    assert told.rejection.reason == wire.RUNTIME_NOT_SUPPORTED
    assert told.session_id == ""
    assert "tflite 2.7, tflite 2.14, litert 2.0" in told.rejection.message
    window = told.retry_windows.if_rejected
    assert (window.min_delay_ms, window.max_delay_ms) == (DAY_MS, 2 * DAY_MS)


def test_each_device_downloads_the_variant_for_its_runtime_and_all_train_together(
    task: DeployedTask,
) -> None:
    runtimes = {"modern": "litert 2.0.1", "legacy": "tensorflow-lite 2.7.4"}
    devices = {
        name: Device(task.server, task.population, runtime=runtime, update=update_of(number))
        for number, (name, runtime) in enumerate(runtimes.items())
    }
    for device in devices.values():
        device.join()
    for name, device in devices.items():
        plan = device.wait_until_told().assignment.plan
        body = request(task.server.port, "GET", plan.path).body
        assert len(body) == plan.size
        part = DevicePart.from_bytes(body)
        assert (part.variant, part.graph) == (name, f"graph of {name}".encode())
    assert all(device.finish() for device in devices.values())
    round_id = devices["modern"].assignment.round_id
    assert devices["legacy"].assignment.round_id == round_id
    assert task.ended(round_id)["outcome"] == "committed"


def test_a_runtime_that_is_not_supported_takes_no_place_in_a_pool(task: DeployedTask) -> None:
    first = Device(task.server, task.population, update=update_of(1))
    first.join()
    # Of two places, one is left; a reservoir would have given it to one of these.
    for _ in range(20):
        stranger = Device(task.server, task.population, runtime="tflite-runtime 2.5.0")
        assert rejection(stranger.check_in()).rejection.reason == wire.RUNTIME_NOT_SUPPORTED
    second = Device(task.server, task.population, update=update_of(2))
    second.join()
    assert first.wait_until_told().WhichOneof("outcome") == "assignment"
    assert second.wait_until_told().WhichOneof("outcome") == "assignment"
    first.abort()
    second.abort()


def test_the_operator_sees_which_runtimes_a_task_supports(task: DeployedTask) -> None:
    described = task.server.admin.get(f"tasks/{task.task_id}")
    assert [(v["name"], tuple(v["runtimes"])) for v in described["variants"]] == [
        ("modern", MODERN),
        ("legacy", LEGACY),
    ]
    assert all(variant["bytes"] > 0 for variant in described["variants"])


def test_the_operator_sees_which_runtimes_were_turned_away(server: Server, mean_plan: Path) -> None:
    task = server.deploy(plan_for("runtimes/counted", base=mean_plan, goal_count=1))
    begun(task, "tflite-runtime 2.14.0")
    for runtime in ("tflite-runtime 2.5.0", "tf.lite 2.5.3", "curl"):
        Device(server, task.population, runtime=runtime).check_in()
    population = server.admin.get(f"populations/{task.population}")
    assert population["unsupported_runtimes"] == {"tflite 2.5": 2, "unknown": 1}


def test_a_device_is_told_that_nothing_is_scheduled_rather_than_to_update_itself(
    server: Server, mean_plan: Path
) -> None:
    task = server.deploy(plan_for("runtimes/cancelled", base=mean_plan, goal_count=1))
    assert begun(task, "curl").rejection.reason == wire.RUNTIME_NOT_SUPPORTED
    task.act("cancel")

    def nothing_scheduled() -> bool:
        told = rejection(Device(server, task.population, runtime="curl").check_in())
        return told.rejection.reason == wire.NO_TASK

    eventually(nothing_scheduled)


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[Server]:
    options = (*FAST, "--unsupported-retry-s", "1000000")
    server = Server(tmp_path, options)
    server.start()
    yield server
    server.stop()
    assert not server.errors()


def test_the_operator_sets_how_long_unsupported_devices_stay_away(
    patient: Server, mean_plan: Path
) -> None:
    task = patient.deploy(plan_for("runtimes/patient", base=mean_plan, goal_count=1))
    window = begun(task, "curl").retry_windows.if_rejected
    assert (window.min_delay_ms, window.max_delay_ms) == (1_000_000_000, 2_000_000_000)


def test_after_a_restart_the_same_runtimes_are_supported(patient: Server, mean_plan: Path) -> None:
    plan = plan_for("runtimes/restarted", base=mean_plan, goal_count=1)
    task = patient.deploy(with_variants(plan))
    patient.stop()
    patient.start()
    assert begun(task, "curl").rejection.reason == wire.RUNTIME_NOT_SUPPORTED
    Device(patient, task.population, runtime="tflite-runtime 2.7.0").join()
