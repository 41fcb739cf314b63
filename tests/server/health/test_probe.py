"""Probes cannot hurt: checks are cached, bounded in time, and never pile up."""

import threading

from server.health import probe
from server.health.probe import NotWell, Probe, report
from tests.server.live.waiting import eventually


def test_a_check_is_asked_once_however_many_probes_there_are() -> None:
    calls = []
    asked = Probe("counted", lambda: f"call {len(calls) or calls.append(0)}")
    results = []
    threads = [threading.Thread(target=lambda: results.append(asked.result())) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert {result.ok for result in results} == {True}


def test_a_result_is_asked_anew_when_it_is_old(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(probe, "CACHED_S", 0.0)
    answers = iter(["first", "second"])
    asked = Probe("fresh", lambda: next(answers))
    assert [asked.result().detail, asked.result().detail] == ["first", "second"]


def test_a_check_that_hangs_is_said_to_and_is_not_started_again() -> None:
    release, started = threading.Event(), []

    def hangs() -> str:
        started.append(threading.current_thread())
        release.wait()
        return "back"

    asked = Probe("hanging", hangs, timeout_s=0.05)
    for _ in range(3):
        result = asked.result()
        assert not result.ok
        assert result.detail.startswith("no answer for")
    assert len(started) == 1
    release.set()
    assert eventually(lambda: asked.result().ok)


def test_whatever_a_check_raises_is_its_detail() -> None:
    def broken() -> str:
        raise OSError("the disk is gone\nand a second line that nobody wants")

    def unwell() -> str:
        raise NotWell("something is missing")

    well, checks = report([Probe("a", broken), Probe("b", unwell), Probe("c", lambda: "fine")])
    assert not well
    assert checks == {
        "a": {"ok": False, "detail": "OSError: the disk is gone"},
        "b": {"ok": False, "detail": "something is missing"},
        "c": {"ok": True, "detail": "fine"},
    }
