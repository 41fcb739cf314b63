"""An actor of the server dies of an exception, at each moment of a round, and is replaced.

The server runs in the test's process, where its actors can be reached; devices
and operator speak HTTP with it, as always.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from werkzeug.serving import make_server

from server.actors.runtime import Ref
from server.admin_client import AdminClient
from server.configuration import ServerConfiguration
from server.http.application import Application
from server.tier import SELECTOR, EmbeddedTier
from tests.server.live.device import Device
from tests.server.live.ledger import Ledger
from tests.server.live.mean_plan import plan_for
from tests.server.live.moments import MOMENTS, Interrupted, Stage, assigned
from tests.server.live.served import DeployedTask
from tests.server.live.waiting import eventually

POPULATION = "mortal/mean"

#: Half of the updates are enough.
COHORT: Mapping[str, float] = {"goal_count": 4, "over_selection": 1.0, "minimum_fraction": 0.5}

#: Seconds after which the next round has begun; 10 on a machine that does nothing else.
NEXT_ROUND_S = 30.0


class InProcess:
    """What tests use of `tests.server.live.served.Server`, around a tier of this process."""

    def __init__(self, tier: EmbeddedTier, port: int) -> None:
        self.tier = tier
        self.port = port

    @property
    def admin(self) -> AdminClient:
        return AdminClient.of_data_dir(
            url=f"http://127.0.0.1:{self.port}", data_dir=self.tier.configuration.data_dir
        )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    tier = EmbeddedTier(
        ServerConfiguration(
            data_dir=tmp_path_factory.mktemp("mortal"),
            holdout_fraction=0.0,
            poll_interval_s=0.02,
            round_retry_s=0.05,
            min_retry_s=0.05,
            max_retry_s=1.0,
            rendezvous_s=0.1,
            max_chunk_bytes=4096,
            lease_ttl_s=0.6,
        )
    )
    tier.start()
    web = make_server("127.0.0.1", 0, Application(tier).flask, threaded=True)
    thread = threading.Thread(target=web.serve_forever)
    thread.start()
    yield InProcess(tier, web.server_port)
    web.shutdown()
    thread.join()
    tier.close()


@pytest.fixture(scope="module")
def stage(server: InProcess, mean_plan: Path) -> Stage:
    plan = plan_for(POPULATION, base=mean_plan, **COHORT)
    (created,) = server.admin.post("tasks", plan)["tasks"]
    task = DeployedTask(server, created["task_id"], POPULATION)  # type: ignore[arg-type]
    eventually(lambda: server.tier.updater.ready)
    return Stage(
        task=task,
        servers=[server],  # type: ignore[list-item]
        ledger=Ledger(server.tier.configuration.database_url),
        blobs=server.tier.configuration.data_dir / "blobs",
        model_update=lambda: pytest.fail("this server's model update is not frozen"),
        count=4,
    )


def end(actor: Ref | None) -> None:
    """The actor dies of an exception: it does not understand what it is told."""
    assert actor is not None
    actor.tell("a message that no actor knows")
    eventually(lambda: not actor.alive)


def assert_lost(live: Interrupted, since: float, say: str) -> None:
    live.assert_lost()
    live.assert_next_begins(since, NEXT_ROUND_S, say=say)


@pytest.mark.parametrize("moment", ["selecting", "assigned", "uploading"])
def test_a_selector_that_dies_costs_its_devices(
    server: InProcess, stage: Stage, moment: str
) -> None:
    with MOMENTS[moment](stage) as live:
        end(server.tier.selector.ref)
    since = time.monotonic()
    eventually(lambda: server.tier.selector.ref.alive)
    if moment != "selecting":
        assert stage.task.ended(live.round_id)["reason"] == "too_few_updates"
    assert_lost(live, since, f"selector dead while {moment}")


@pytest.mark.parametrize("moment", ["selecting", "assigned", "uploading", "committed"])
def test_a_coordinator_that_dies_takes_its_round_with_it(
    server: InProcess, stage: Stage, moment: str
) -> None:
    epoch = stage.ledger.epoch(POPULATION)
    with MOMENTS[moment](stage) as live:
        end(server.tier.coordinators[POPULATION])
    since = time.monotonic()
    eventually(lambda: stage.ledger.epoch(POPULATION) > epoch)
    if moment == "committed":
        live.assert_committed()
        live.assert_next_begins(since, NEXT_ROUND_S, say="coordinator dead when committed")
    else:
        assert_lost(live, since, f"coordinator dead while {moment}")


@pytest.mark.parametrize("moment", ["selecting", "assigned", "uploading"])
def test_a_master_aggregator_that_dies_takes_its_round_with_it(
    server: InProcess, stage: Stage, moment: str
) -> None:
    epoch = stage.ledger.epoch(POPULATION)
    with MOMENTS[moment](stage) as live:
        end(server.tier.system.find(live.round_id))
    since = time.monotonic()
    assert stage.task.ended(live.round_id)["reason"] == "master_aggregator_lost"
    assert_lost(live, since, f"master aggregator dead while {moment}")
    assert stage.ledger.epoch(POPULATION) == epoch


def aggregator(live: Interrupted, device: Device) -> str:
    """Which of the round's two sums the device's update goes to, by its session's id."""
    return f"{live.round_id}/{SELECTOR}/aggregator-{int(device.session_id[:4], 16) % 2}"


def test_a_round_that_loses_one_of_two_sums_goes_on_with_what_is_left(
    server: InProcess, stage: Stage
) -> None:
    with assigned(stage) as live:
        # One that is in the sum which is lost; the three others come later.
        (lost, *others) = live.devices
        assert lost.finish()
        end(server.tier.system.find(aggregator(live, lost)))
    assert live.carry_on(others) == others
    live.assert_committed(others)
    live.assert_next_begins(time.monotonic(), NEXT_ROUND_S, say="one of two sums lost")


def test_a_round_that_loses_both_sums_ends(server: InProcess, stage: Stage) -> None:
    with assigned(stage) as live:
        assert live.devices[0].finish()
        for number in range(2):
            end(server.tier.system.find(f"{live.round_id}/{SELECTOR}/aggregator-{number}"))
    since = time.monotonic()
    assert live.carry_on(live.devices[1:]) == []
    assert_lost(live, since, "both sums lost")
