"""A process of the server, or its database, stands still at the worst moments, and goes on.

All tests of this module share one data directory, so that each also finds what
those before it have left behind.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from server.storage.database import open_database
from server.storage.leases import Lease, Leases
from tests.server.live.ledger import Ledger
from tests.server.live.mean_plan import plan_for
from tests.server.live.moments import MOMENTS, Interrupted, Stage, frozen
from tests.server.live.served import Server
from tests.server.live.waiting import eventually

POPULATION = "frozen/mean"

COHORT: Mapping[str, float] = {"goal_count": 3, "over_selection": 1.0, "minimum_fraction": 1.0}

#: Seconds that something stands still: the lease of these servers lives 0.6.
STILL_S = 2.0

#: What a round says of a commit that the fence refused.
LOST = "the lease was lost"

#: Seconds after which the next round has begun; 10 on a machine that does nothing else.
NEXT_ROUND_S = 30.0


def moments(*always: str) -> pytest.MarkDecorator:
    """These in every run, the others where minutes do not matter."""
    return pytest.mark.parametrize(
        "moment", [m if m in always else pytest.param(m, marks=pytest.mark.slow) for m in MOMENTS]
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("frozen"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def stage(server: Server, mean_plan: Path) -> Stage:
    task = server.deploy(plan_for(POPULATION, base=mean_plan, **COHORT))
    ledger = Ledger(f"sqlite:///{server.data / 'nightshift.db'}")
    # Ready: a freeze is to hold up an update, not the import of TensorFlow.
    eventually(lambda: server.status("/readyz") == 200)
    return Stage(
        task=task,
        servers=[server],
        ledger=ledger,
        blobs=server.data / "blobs",
        model_update=lambda: eventually(server.model_update),
    )


def said(server: Server, event: str) -> list[dict[str, Any]]:
    """What the log has of an event."""
    found = []
    for line in server.log.read_text().splitlines():
        if line.startswith("{") and (entry := json.loads(line)).get("event") == event:
            found.append(entry)
    return found


#: Seconds of a rival's lease. Beyond a hundred lives of the server's own leases, it would
#: take the rival's for one of a clock that has been set back since.
RIVAL_S = 50.0


@contextmanager
def rival(stage: Stage, server: Server) -> Iterator[Lease]:
    """Somebody else coordinates the population, as soon as its lease has expired."""
    engine = open_database(f"sqlite:///{server.data / 'nightshift.db'}")
    leases = Leases(engine=engine)
    name = f"coordinator/{stage.task.population}"
    lease = eventually(lambda: leases.acquire(name, "a rival", RIVAL_S))
    yield lease
    leases.release(lease)
    engine.dispose()


def assert_carried_on(live: Interrupted, since: float, say: str) -> None:
    """Nothing was lost by standing still."""
    live.carry_on()
    live.assert_committed()
    live.assert_next_begins(since, NEXT_ROUND_S, say=say)


@moments("uploading", "committing")
def test_a_server_that_was_frozen_goes_on_where_it_was(
    server: Server, stage: Stage, moment: str
) -> None:
    with ExitStack() as freeze, MOMENTS[moment](stage) as live:
        freeze.enter_context(frozen(server.worker()))
        time.sleep(STILL_S)
    assert_carried_on(live, time.monotonic(), f"worker frozen while {moment}")


@moments("uploading")
def test_a_server_frozen_until_another_had_its_lease_cannot_commit(
    server: Server, stage: Stage, moment: str
) -> None:
    """Its successor is only a name in the database, which lets the lease go again."""
    with ExitStack() as freeze:
        with MOMENTS[moment](stage) as live:
            # While it commits the test has the lock, for which the server waits.
            still = frozen if moment == "committing" else between_writes(stage.ledger)
            freeze.enter_context(still(server.worker()))
        with rival(stage, server) as lease:
            head = stage.ledger.head(stage.task.task_id)
            freeze.close()
            eventually(lambda: ended_by_the_loss(server, lease))
            if moment == "committed":
                live.assert_committed()
            else:
                end = eventually(lambda: abandoned_here(server, live))
                if moment in ("updating", "committing"):
                    # All was done but the commit, which the fence refused.
                    assert (end["reason"], end["detail"]) == ("commit_refused", LOST)
            # Nobody writes under the rival's nose.
            assert stage.ledger.head(stage.task.task_id) == head
            assert stage.ledger.epoch(POPULATION) == lease.epoch
    since = time.monotonic()
    if moment != "committed":
        live.assert_lost()
    live.assert_next_begins(since, NEXT_ROUND_S, say=f"lease lost while {moment}")
    assert stage.ledger.epoch(POPULATION) > lease.epoch


def between_writes(ledger: Ledger) -> Callable[[psutil.Process], AbstractContextManager[None]]:
    """Freezes a process while it does not hold SQLite's only lock: nobody could succeed it then."""

    @contextmanager
    def freeze(process: psutil.Process) -> Iterator[None]:
        while True:
            with frozen(process):
                if ledger.may_write():
                    yield
                    return

    return freeze


def ended_by_the_loss(server: Server, lease: Lease) -> list[dict[str, Any]]:
    """The server has said that it has lost the lease before this one."""
    return [e for e in said(server, "lease_lost") if e["epoch"] == lease.epoch - 1]


def abandoned_here(server: Server, live: Interrupted) -> dict[str, Any] | None:
    """What the log says of the end of the round."""
    ends = [e for e in said(server, "round_abandoned") if e["round_id"] == live.round_id]
    return ends[0] if ends else None


@moments("submitting")
def test_a_model_update_that_was_frozen_goes_on_where_it_was(stage: Stage, moment: str) -> None:
    with ExitStack() as freeze, MOMENTS[moment](stage) as live:
        freeze.enter_context(frozen(stage.model_update()))
        time.sleep(STILL_S)
    assert_carried_on(live, time.monotonic(), f"model update frozen while {moment}")


@moments("updating")
def test_a_model_update_that_was_killed_costs_no_round(stage: Stage, moment: str) -> None:
    with MOMENTS[moment](stage) as live:
        killed = stage.model_update()
        killed.kill()
    eventually(lambda: gone(killed))
    assert_carried_on(live, time.monotonic(), f"model update killed while {moment}")
    assert stage.model_update().pid != killed.pid


def gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@moments("selecting", "committing")
def test_a_database_that_was_locked_costs_no_round(stage: Stage, moment: str) -> None:
    """Another process writes for seconds: the lease expires, and nobody takes it."""
    epoch = stage.ledger.epoch(POPULATION)
    with MOMENTS[moment](stage) as live:
        if moment == "committing":
            time.sleep(STILL_S)
        else:
            with stage.ledger.locked():
                time.sleep(STILL_S)
    assert_carried_on(live, time.monotonic(), f"database locked while {moment}")
    assert stage.ledger.epoch(POPULATION) == epoch


@pytest.mark.slow
@moments()
def test_a_database_locked_beyond_all_patience_costs_one_round_at_most(
    stage: Stage, moment: str
) -> None:
    """Who waits for half a minute ends: the round's master, or the coordinator and all rounds."""
    with ExitStack() as lock, MOMENTS[moment](stage) as live:
        if moment != "committing":
            lock.enter_context(stage.ledger.locked())
        time.sleep(35.0)
    since = time.monotonic()
    if moment == "committing" and stage.task.ended(live.round_id)["outcome"] == "committed":
        # The coordinator's renewal was first in the queue, and ended; then the commit's turn came.
        live.assert_committed()
    elif moment != "committed":
        live.assert_lost()
    live.assert_next_begins(since, NEXT_ROUND_S, say=f"database lost while {moment}")


def test_nothing_of_this_is_an_error(server: Server) -> None:
    """Standing still is no fault of the server's: nothing in it has died."""
    assert not said(server, "actor_died")
