"""Four selectors that share a population, and the processes behind them."""

from pathlib import Path

import psutil

from device_plan import wire_pb2 as wire
from tests.server.contract.bucket import Bucket
from tests.server.contract.deployment import Deployment
from tests.server.live.clustered import Cluster
from tests.server.live.device import Device
from tests.server.live.mean_plan import update_of
from tests.server.live.refusals import assert_refused
from tests.server.live.waiting import eventually


def test_a_round_takes_its_devices_from_all_selectors_and_no_more_than_it_wants(
    clustered: Deployment,
) -> None:
    population = clustered.deploy("four/target", goal_count=8, selection_window_s=3.0)
    waiting = [population.waiting(at=number % 4) for number in range(16)]
    told = [device.wait_until_told() for device in waiting]
    chosen = [d for d, t in zip(waiting, told, strict=True) if t.HasField("assignment")]
    rest = [t.rejection.reason for t in told if not t.HasField("assignment")]
    assert len(chosen) == 8
    assert set(rest) == {wire.NOT_SELECTED}
    assert len({device.port for device in chosen}) > 1


def test_a_device_that_waits_at_two_selectors_is_taken_once(clustered: Deployment) -> None:
    population = clustered.deploy("four/twice", goal_count=2, selection_window_s=2.0)
    first = population.waiting(at=0)
    twin = Device(clustered.selectors[1], population.name, update=update_of(0))
    twin.key = first.key
    twin.join()
    other = population.waiting(at=2)
    told = [device.wait_until_told() for device in (first, twin, other)]
    assert [answer.HasField("assignment") for answer in told].count(True) == 2
    assert told[2].HasField("assignment")


def test_a_session_names_its_selector_and_no_other_knows_it(clustered: Deployment) -> None:
    population = clustered.deploy("four/sessions", goal_count=2)
    device = population.waiting(at=3)
    answer = device.poll()
    assert answer.session_url == f"http://127.0.0.1:{clustered.selectors[3].port}"
    device.port = clustered.selectors[0].port
    assert_refused(device.report(), 410, "ROUND_OVER", windows=False)


def test_every_part_is_a_process_of_its_own_and_only_one_has_tensorflow(
    cluster: Cluster, clustered: Deployment
) -> None:
    population = clustered.deploy("four/processes", goal_count=1)
    population.assemble(1).finish()
    parts = cluster.parts()
    kinds = [part["kind"] for part in parts]
    assert kinds.count("selector") == 4
    assert {"up", "database", "model-update", "coordinator", "master"} <= set(kinds)
    assert len({part["pid"] for part in parts}) == len(parts)
    with_tensorflow = [process for process in cluster.processes() if has_tensorflow(process)]
    (only,) = with_tensorflow
    assert "server.model_update.process" in only.cmdline()


def has_tensorflow(process: psutil.Process) -> bool:
    try:
        return "tensorflow" in Path(f"/proc/{process.pid}/maps").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_populations_have_objects_of_their_own_in_the_bucket(
    clustered: Deployment, gcs: Bucket
) -> None:
    population = clustered.deploy("four/bucket", goal_count=1)
    live = population.assemble(1)
    live.finish()
    live.assert_committed()
    blobs = gcs.blobs()
    names = list(blobs.list())
    assert any(name.startswith("populations/four/bucket/") for name in names)
    # Besides what /readyz looks for.
    assert {name.split("/")[0] for name in names} <= {"populations", "probe"}
    contents = [blobs.get(name) for name in names]
    assert not any(device.data[:64] in each for each in contents for device in live.devices)


def test_a_coordinator_that_is_killed_is_followed_by_another_within_ten_seconds(
    cluster: Cluster, clustered: Deployment
) -> None:
    population = clustered.deploy("four/failover", goal_count=2)
    population.assemble(2).finish()
    epoch = eventually(population.training.epoch)
    (coordinator,) = [
        part
        for part in cluster.parts()
        if part["kind"] == "coordinator" and "four/failover" in part["name"]
    ]
    psutil.Process(coordinator["pid"]).kill()
    eventually(lambda: population.training.epoch() > epoch, within=10.0)
    live = population.assemble(2)
    live.finish()
    live.assert_committed()


def test_a_selector_that_is_killed_costs_its_own_devices_only_and_comes_back(
    cluster: Cluster, clustered: Deployment
) -> None:
    # A selector takes part in rounds that are opened after it has come.
    population = clustered.deploy(
        "four/selector", goal_count=4, minimum_fraction=0.75, selection_timeout_s=8.0
    )
    live = population.assemble(4)
    lost = next(device for device in live.devices if device.port != clustered.selectors[0].port)
    others = [device for device in live.devices if device.port != lost.port]
    assert len(others) == 3
    (part,) = [each for each in cluster.parts() if each["url"].endswith(str(lost.port))]
    psutil.Process(part["pid"]).kill()
    live.finish(*others)
    live.assert_committed()
    again = next(each for each in clustered.selectors if each.port == lost.port)
    eventually(lambda: again.status("/readyz") == 200)
    device = population.waiting(at=clustered.selectors.index(again))
    assert device.port == lost.port
