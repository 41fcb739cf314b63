"""What /healthz and /readyz find, on real actors, databases and directories."""

import shutil
from pathlib import Path

import pytest

from server.actors.runtime import ActorSystem
from server.health.checks import SUCCESSION_S, LeasesAreHeld, blobs_answer, database_answers
from server.health.probe import NotWell
from server.health.pulse import STUCK_AFTER_S, Heartbeat, Pulse
from server.storage.blobs import LocalBlobs
from server.storage.database import open_database
from server.storage.registry import Registry
from tests.server.live.waiting import eventually


def test_the_pulse_beats_as_long_as_the_actors_live_and_its_absence_is_noticed() -> None:
    system = ActorSystem()
    clock = 0.0
    heartbeat = Heartbeat(lambda: clock)
    beats: list[int] = []

    def on_beat() -> None:
        beats.append(1)
        heartbeat.beat()

    system.spawn(Pulse, name="pulse", on_beat=on_beat).tell("beat")
    eventually(lambda: len(beats) >= 2)
    heartbeat.check()
    system.shutdown()
    clock = STUCK_AFTER_S + 1.0
    with pytest.raises(NotWell, match="have not moved for 21 s"):
        heartbeat.check()


def test_a_database_that_is_gone_is_noticed(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path}/nightshift.db")
    registry = Registry(engine=engine)
    registry.populations.create(name="a", holdout_fraction=0.0, holdout_salt=bytes(16))
    assert database_answers(registry).startswith("1 populations")
    engine.dispose()
    shutil.rmtree(tmp_path)
    with pytest.raises(Exception, match="unable to open database file"):
        database_answers(registry)


def test_a_blob_store_that_lost_its_objects_is_noticed(tmp_path: Path) -> None:
    check = blobs_answer(LocalBlobs(root=tmp_path / "blobs"))
    check()
    check()
    shutil.rmtree(tmp_path / "blobs")
    with pytest.raises(NotWell, match="lost an object"):
        check()


def test_a_population_may_be_coordinated_here_or_elsewhere_but_not_nowhere() -> None:
    holders = {"b": "selector-2/17", "c": None}
    assert LeasesAreHeld(list, holders.get)() == "all held here"
    assert "b by selector-2/17" in LeasesAreHeld(lambda: ["b"], holders.get)()
    with pytest.raises(NotWell, match="nobody coordinates c"):
        LeasesAreHeld(lambda: ["b", "c"], holders.get)()


def test_a_server_stays_ready_while_a_coordinator_is_succeeded_but_not_for_longer() -> None:
    holders: dict[str, str | None] = {"b": "one"}
    clock = 100.0
    check = LeasesAreHeld(lambda: holders, lambda name: holders[name], lambda: clock)
    check()
    for _ in range(3):
        clock += 1000.0
        holders["b"] = None
        assert "nobody coordinates b yet" in check()
        clock += SUCCESSION_S
        assert "nobody coordinates b yet" in check()
        holders["b"] = "its successor"
        assert "b by its successor" in check()
    holders["b"] = None
    check()
    clock += SUCCESSION_S + 1.0
    with pytest.raises(NotWell, match="nobody coordinates b"):
        check()
