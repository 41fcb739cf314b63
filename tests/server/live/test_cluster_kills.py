"""The processes of a cluster are killed and frozen at each moment of a round.

Two selectors, a coordinator, a master aggregator a round, the model update and
PostgreSQL, each in a process of its own. All tests share one cluster, so that
each also finds what those before it have left behind. Of each part one test is
in every run; the whole table takes minutes.
"""

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from device_plan import wire_pb2 as wire
from server.admin_client import AdminClient, AdminError
from tests.house import ROOT
from tests.server.live.clustered import Cluster
from tests.server.live.device import CHUNK, Device, request
from tests.server.live.ledger import Ledger
from tests.server.live.mean_plan import plan_for
from tests.server.live.moments import MOMENTS, Interrupted, Stage, frozen
from tests.server.live.waiting import eventually

POPULATION = "cluster-kills/mean"

#: Four devices, two at each selector; a selector's two are enough.
COHORT: Mapping[str, Any] = {"goal_count": 4, "over_selection": 1.0, "minimum_fraction": 0.5}

#: Seconds that something stands still; the leases of these clusters live 2.
STILL_S = 4.0

#: Seconds after which the next round has begun; 10 on a machine that does nothing else.
NEXT_ROUND_S = 30.0

#: Moments at which sums are still with the selectors.
BEFORE_SUMS = ("assigned", "uploading", "submitting")


def moments(*always: str, without: str = "") -> pytest.MarkDecorator:
    """These in every run, the others, but for one, where minutes do not matter."""
    table = [moment for moment in MOMENTS if moment != without]
    return pytest.mark.parametrize(
        "moment", [m if m in always else pytest.param(m, marks=pytest.mark.slow) for m in table]
    )


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster(selectors=2)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        cluster.remove()


def part(cluster: Cluster, kind: str, name: str = "") -> psutil.Process:
    """The process of the part of that kind whose name contains this."""
    found = [p for p in cluster.parts() if p["kind"] == kind and name in p["name"]]
    assert len(found) == 1, (kind, name, found)
    return psutil.Process(found[0]["pid"])


def next_master(cluster: Cluster, stage: Stage) -> psutil.Process:
    """Of the round that selects. Found before its moment, for it may end while one looks."""
    return part(cluster, "master", eventually(stage.released)["round_id"])


def model_update(cluster: Cluster) -> psutil.Process:
    """The one that has TensorFlow."""
    (found,) = [p for p in cluster.processes() if "server.model_update.process" in _command(p)]
    return found


def _command(process: psutil.Process) -> list[str]:
    try:
        command: list[str] = process.cmdline()
    except psutil.Error:
        return []
    return command


@pytest.fixture(scope="module")
def stage(cluster: Cluster, mean_plan: Path) -> Stage:
    selector = part(cluster, "selector", "selector-0")
    plan = plan_for(POPULATION, base=mean_plan, **COHORT)
    return Stage(
        task=cluster.selectors[0].deploy(plan),
        servers=cluster.selectors,
        ledger=Ledger(selector.environ()["NIGHTSHIFT_DATABASE_URL"]),
        blobs=cluster.data / "blobs",
        model_update=lambda: model_update(cluster),
        count=4,
    )


@pytest.fixture(autouse=True)
def whole(cluster: Cluster, stage: Stage) -> None:
    """All parts are there, and a round that both selectors take part in is open."""
    eventually(lambda: all(each.status("/readyz") == 200 for each in cluster.selectors))
    eventually(stage.released)


def assert_one_or_the_other(live: Interrupted) -> None:
    """Wholly committed or wholly lost: what was struck does not decide which."""
    live.settle()
    if live.stage.task.ended(live.round_id)["outcome"] == "committed":
        live.assert_committed()
    else:
        live.assert_lost()


def with_one_selector(stage: Stage) -> Stage:
    return dataclasses.replace(stage, servers=stage.servers[:1])


def at_first_selector(live: Interrupted) -> list[Device]:
    port = live.stage.servers[0].port
    return [device for device in live.devices if device.port == port]


@moments("uploading")
def test_a_selector_that_was_killed_costs_its_own_devices(
    cluster: Cluster, stage: Stage, moment: str
) -> None:
    killed = part(cluster, "selector", "selector-1")
    with MOMENTS[moment](stage) as live:
        killed.kill()
    since = time.monotonic()
    ours = at_first_selector(live)
    if moment == "selecting":
        # Theirs check in again, elsewhere.
        for device in live.devices:
            device.port, device.session_id = ours[0].port, device.session_id * (device in ours)
        live.carry_on()
        live.assert_committed()
    elif moment in BEFORE_SUMS:
        live.carry_on(ours)
        accepted = live.stage.task.ended(live.round_id)["statistics"]["accepted"]
        live.assert_committed(live.devices if accepted == 4 else ours)
    else:
        live.assert_committed()
    live.stage = with_one_selector(stage)
    live.assert_next_begins(since, NEXT_ROUND_S, say=f"selector killed while {moment}")
    # It is started again, and takes part.
    eventually(lambda: cluster.selectors[1].status("/readyz") == 200)
    live.assert_next_begins(time.monotonic(), NEXT_ROUND_S, say="with one selector still")
    live.stage = stage
    live.assert_next_begins(time.monotonic(), NEXT_ROUND_S, say="with both")


def test_a_selector_that_comes_back_takes_part_in_the_round_that_selects(
    cluster: Cluster, stage: Stage
) -> None:
    killed = part(cluster, "selector", "selector-1")
    with MOMENTS["selecting"](stage) as live:
        killed.kill()
        eventually(lambda: not killed.is_running())
        eventually(lambda: cluster.selectors[1].status("/readyz") == 200)
        ours = at_first_selector(live)
        for device in (device for device in live.devices if device not in ours):
            device.session_id = ""
            eventually(partial(waits, device), every=0.1)
    assert live.carry_on() == live.devices
    live.assert_committed()


def waits(device: Device) -> bool:
    """Whether a pool takes it now."""
    reply = device.check_in()
    return reply.status == 200 and reply.read(wire.CheckInResponse).HasField("waiting")


@moments("uploading")
def test_a_selector_that_was_frozen_for_a_moment_goes_on(
    cluster: Cluster, stage: Stage, moment: str
) -> None:
    process = part(cluster, "selector", "selector-1")
    with ExitStack() as freeze, MOMENTS[moment](stage) as live:
        freeze.enter_context(frozen(process))
        time.sleep(STILL_S)
    since = time.monotonic()
    live.carry_on()
    live.assert_committed()
    live.assert_next_begins(since, NEXT_ROUND_S, say=f"selector frozen while {moment}")


@pytest.mark.slow
def test_what_a_selector_has_is_not_in_a_sum_that_was_taken_while_it_was_frozen(
    cluster: Cluster, stage: Stage, mean_plan: Path
) -> None:
    """Of four devices three are wanted; of those that came one is at the frozen selector."""
    wanted = {"goal_count": 3, "over_selection": 4 / 3, "minimum_fraction": 0.5}
    plan = plan_for("cluster-kills/frozen", base=mean_plan, **wanted)
    stage = dataclasses.replace(stage, task=cluster.selectors[0].deploy(plan))
    with MOMENTS["assigned"](stage) as live:
        ours = at_first_selector(live)
        done, half = (device for device in live.devices if device not in ours)
        assert done.finish()
        assert half.report().status == 200
        assert half.put(half.data[:CHUNK], offset=0, total=len(half.data)).status == 200
        with frozen(part(cluster, "selector", "selector-1")):
            assert live.carry_on(ours) == ours
            live.assert_committed(ours)
        # It has woken: whoever had delivered stays so, and the other need not go on.
        assert done.ask().reason == "ALREADY_SUBMITTED"
        told = eventually(partial(refused, half))
        assert told in ("ROUND_OVER", "GOAL_REACHED")
        for reply in (half.upload(), half.submit()):
            assert reply.reason == told, reply.error
    live.assert_committed(ours)
    with MOMENTS["assigned"](stage) as following:
        in_sum = following.carry_on()
    # The fourth may be added at one selector before the goal is known there.
    assert len(in_sum) in (3, 4)
    following.assert_committed(in_sum)
    stage.task.act("cancel")


def refused(device: Device) -> str | None:
    """Why a device's session is over, if it is."""
    reply = device.ask()
    return reply.reason if reply.status != 200 else None


def test_the_doctor_names_a_selector_that_is_frozen(cluster: Cluster) -> None:
    first, second = (part(cluster, "selector", f"selector-{number}") for number in (0, 1))
    found = doctor(first)
    assert found["selectors"]["status"] == "fine"
    assert found["selectors"]["detail"].endswith("selector-0, selector-1")
    with frozen(second):
        found = doctor(first)
    assert found["selectors"]["detail"].endswith("selector-0")
    assert found["selector selector-1"]["status"] == "wrong"


def doctor(where: psutil.Process) -> dict[str, dict[str, str]]:
    """Its findings by check, with the settings of a process."""
    run = subprocess.run(
        [sys.executable, "-m", "nightshift", "doctor", "--json"],
        cwd=ROOT,
        env=where.environ(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode in (0, 1), run.stderr
    return {each["check"]: each for each in json.loads(run.stdout)["findings"]}


def test_an_operator_is_told_to_wait_while_the_database_lets_nobody_in(
    cluster: Cluster, stage: Stage
) -> None:
    port, admin = cluster.selectors[0].port, cluster.selectors[0].admin
    token = json.loads((cluster.data / "secrets.json").read_text())["admin_token"]
    with stage.ledger.closed():
        reply = request(
            port, "GET", "/v1/admin/tasks", headers={"Authorization": f"Bearer {token}"}
        )
        assert reply.status == 503
        assert int(reply.headers["retry-after"]) > 0
        assert "the database does not answer just now" in json.loads(reply.body)["error"]
    eventually(partial(answers, admin))


def answers(admin: AdminClient) -> bool:
    with suppress(AdminError):
        return bool(admin.get("tasks"))
    return False


@moments("assigned")
def test_a_coordinator_that_was_killed_has_a_successor(
    cluster: Cluster, stage: Stage, moment: str
) -> None:
    epoch = stage.ledger.epoch(POPULATION)
    killed = part(cluster, "coordinator", POPULATION)
    with MOMENTS[moment](stage) as live:
        killed.kill()
        since = time.monotonic()
    eventually(lambda: stage.ledger.epoch(POPULATION) > epoch)
    assert_one_or_the_other(live)
    live.assert_next_begins(since, NEXT_ROUND_S, say=f"coordinator killed while {moment}")


@moments("updating")
def test_a_coordinator_frozen_beyond_its_lease_has_a_successor_and_cannot_commit(
    cluster: Cluster, stage: Stage, moment: str
) -> None:
    epoch = stage.ledger.epoch(POPULATION)
    with ExitStack() as freeze:
        process = part(cluster, "coordinator", POPULATION)
        with MOMENTS[moment](stage) as live:
            since = time.monotonic()
            freeze.enter_context(frozen(process))
            if moment != "committing":
                # A commit does not wait for so long.
                eventually(lambda: stage.ledger.epoch(POPULATION) > epoch)
        eventually(lambda: stage.ledger.epoch(POPULATION) > epoch)
        ended = stage.task.ended(live.round_id)
        head = stage.ledger.head(stage.task.task_id)
    # It has woken. Its master aggregator was not frozen: before the lease had expired
    # it could commit, if the last submit had arrived.
    if moment in ("submitting", "committing", "committed") and ended["outcome"] == "committed":
        live.assert_committed()
    else:
        assert ended["reason"] == "coordinator_lost"
        live.assert_lost()
    assert stage.ledger.head(stage.task.task_id) == head
    live.assert_next_begins(since, NEXT_ROUND_S, say=f"coordinator frozen while {moment}")
    opened = {record["lease_epoch"] for record in stage.task.rounds()[-2:]}
    assert min(opened) > epoch


@moments("uploading")
def test_a_master_aggregator_that_was_killed_costs_its_round(
    cluster: Cluster, stage: Stage, moment: str
) -> None:
    process = next_master(cluster, stage)
    with MOMENTS[moment](stage) as live, suppress(psutil.NoSuchProcess):
        process.kill()
    since = time.monotonic()
    if moment in ("submitting", "committing", "committed"):
        assert_one_or_the_other(live)
    else:
        assert stage.task.ended(live.round_id)["reason"] == "master_aggregator_lost"
        live.assert_lost()
    live.assert_next_begins(since, NEXT_ROUND_S, say=f"master aggregator killed while {moment}")


@moments()
@pytest.mark.slow
def test_a_master_aggregator_that_was_frozen_for_a_moment_goes_on(
    cluster: Cluster, stage: Stage, moment: str
) -> None:
    process = next_master(cluster, stage)
    with ExitStack() as freeze, MOMENTS[moment](stage) as live:
        with suppress(psutil.NoSuchProcess):
            freeze.enter_context(frozen(process))
        time.sleep(STILL_S)
    since = time.monotonic()
    if moment == "committing":
        assert_one_or_the_other(live)
    else:
        live.carry_on()
        live.assert_committed()
    live.assert_next_begins(since, NEXT_ROUND_S, say=f"master aggregator frozen while {moment}")


@moments("updating")
def test_a_model_update_that_was_killed_costs_no_round(
    cluster: Cluster, stage: Stage, moment: str
) -> None:
    process = part(cluster, "model-update")
    with MOMENTS[moment](stage) as live:
        process.kill()
    since = time.monotonic()
    live.carry_on()
    if moment == "committing":
        assert_one_or_the_other(live)
    else:
        live.assert_committed()
    live.assert_next_begins(since, NEXT_ROUND_S, say=f"model update killed while {moment}")


@moments("committing")
def test_connections_that_were_cut_cost_one_round_at_most(stage: Stage, moment: str) -> None:
    with MOMENTS[moment](stage) as live:
        stage.ledger.rows(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND wait_event IS DISTINCT FROM 'ClientRead' "
            "AND state <> 'idle in transaction' AND pid <> pg_backend_pid()"
        )
        stage.ledger.rows(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND state = 'idle' AND pid <> pg_backend_pid()"
        )
    assert_goes_on_or_anew(live, f"connections cut while {moment}")


@moments("assigned", without="committing")
def test_a_database_that_crashed_and_recovered_costs_one_round_at_most(
    cluster: Cluster, stage: Stage, moment: str
) -> None:
    """One of its processes is killed: PostgreSQL then ends all, recovers, and starts anew.

    The test's own lock, which would hold up a commit, would go with it.
    """
    postmaster = part(cluster, "database")
    with MOMENTS[moment](stage) as live:
        next(p for p in postmaster.children() if "walwriter" in " ".join(p.cmdline())).kill()
    assert_goes_on_or_anew(live, f"database crashed while {moment}")


@moments("uploading", without="committing")
def test_a_database_that_was_frozen_costs_one_round_at_most(
    cluster: Cluster, stage: Stage, moment: str
) -> None:
    postmaster = part(cluster, "database")
    with MOMENTS[moment](stage) as live, ExitStack() as freeze:
        for process in (postmaster, *postmaster.children()):
            freeze.enter_context(frozen(process))
        time.sleep(STILL_S)
    assert_goes_on_or_anew(live, f"database frozen while {moment}")


def assert_goes_on_or_anew(live: Interrupted, say: str) -> None:
    """The round commits wholly, or ends and another begins."""
    since = time.monotonic()
    stage = live.stage
    for device in live.devices:
        if not device.session_id:
            # The pool may have ended with its round.
            device.check_in()
    live.settle()
    eventually(lambda: not open_still(live))
    if live.record["outcome"] == "committed":
        live.assert_committed()
    else:
        live.assert_lost()
    live.stage = stage
    live.assert_next_begins(since, NEXT_ROUND_S, say=say)


def open_still(live: Interrupted) -> bool:
    """Whether the round is; its devices go on with it meanwhile."""
    try:
        if live.record["outcome"] == "open":
            live.carry_on([device for device in live.devices if device.session_id])
        return bool(live.record["outcome"] == "open")
    except AdminError:
        # There is no database just now, or an old connection to it was found dead.
        return True
