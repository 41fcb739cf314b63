"""Reservoir sampling of waiting devices."""

import random
from collections import Counter

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule
from scipy import special

from device_plan.cohort import Strata
from server.protocol.quota import Offer, PoolReport, Quota

STRATA = Strata(attribute="country", shares={"de": 0.5, "fr": 0.25})


def quota(seed: int = 7) -> Quota:
    return Quota(rng=random.Random(seed))


def assert_uniform(counts: list[int], *, draws: int, chosen: int) -> None:
    """A chi-square test that each of the devices is chosen equally often.

    Sampling without replacement makes the counts less spread than a
    multinomial's: the statistic has to be scaled by (n - 1) / (n - chosen).
    """
    devices = len(counts)
    expected = draws * chosen / devices
    statistic = sum((count - expected) ** 2 for count in counts) / expected
    statistic *= (devices - 1) / (devices - chosen)
    assert 0.001 < special.chdtrc(devices - 1, statistic) < 0.999


def test_a_pool_accepts_everyone_until_it_is_full() -> None:
    pool = quota()
    pool.open("r", 3)
    assert [pool.offer("r", session) for session in "abc"] == [Offer(accepted=True)] * 3
    assert pool.waiting("r") == 3


def test_a_full_pool_rejects_or_evicts_and_never_overflows() -> None:
    pool = quota()
    pool.open("r", 3)
    for number in range(100):
        offer = pool.offer("r", f"s{number}")
        assert pool.waiting("r") <= 3
        if number >= 3:
            assert offer.accepted == (offer.evicted is not None)


def test_every_device_has_the_same_chance_whenever_it_comes() -> None:
    draws, devices, capacity = 4000, 20, 5
    pool = quota()
    counts: Counter[str] = Counter()
    for draw in range(draws):
        pool.open(f"{draw}", capacity)
        for device in range(devices):
            pool.offer(f"{draw}", f"{device}")
        counts.update(pool.take(f"{draw}", {"": capacity}))
        assert pool.close(f"{draw}") == ()
    assert_uniform([counts[f"{n}"] for n in range(devices)], draws=draws, chosen=capacity)


def test_taking_fewer_than_wait_is_as_fair() -> None:
    draws, devices = 4000, 12
    pool = quota()
    counts: Counter[str] = Counter()
    for draw in range(draws):
        pool.open(f"{draw}", devices)
        for device in range(devices):
            pool.offer(f"{draw}", f"{device}")
        counts.update(pool.take(f"{draw}", {"": 4}))
        assert len(pool.close(f"{draw}")) == devices - 4
    assert_uniform([counts[f"{n}"] for n in range(devices)], draws=draws, chosen=4)


def test_a_device_that_leaves_makes_room_for_the_next() -> None:
    pool = quota()
    pool.open("r", 3)
    for session in "abc":
        pool.offer("r", session)
    assert pool.withdraw("r", "b")
    assert pool.waiting("r") == 2
    assert pool.offer("r", "d") == Offer(accepted=True)
    assert sorted(pool.take("r", {"": 3})) == ["a", "c", "d"]


def test_leaving_a_pool_that_was_never_full_changes_nobody_elses_chance() -> None:
    draws = 4000
    pool = quota()
    counts: Counter[str] = Counter()
    for draw in range(draws):
        pool.open(f"{draw}", 4)
        for device in "abc":
            pool.offer(f"{draw}", device)
        pool.withdraw(f"{draw}", "b")
        for device in "defgh":
            pool.offer(f"{draw}", device)
        counts.update(pool.close(f"{draw}"))
    assert_uniform([counts[device] for device in "acdefgh"], draws=draws, chosen=4)


def test_devices_may_leave_in_any_order() -> None:
    chance = random.Random(9)
    pool = quota()
    for number in range(200):
        sessions = list("abcdefgh")
        pool.open(f"r{number}", 8)
        for session in sessions:
            pool.offer(f"r{number}", session)
        chance.shuffle(sessions)
        for session in sessions[:5]:
            assert pool.withdraw(f"r{number}", session)
            assert not pool.withdraw(f"r{number}", session)
        assert sorted(pool.close(f"r{number}")) == sorted(sessions[5:])


def test_the_same_seed_gives_the_same_selection() -> None:
    def run() -> tuple[tuple[str, ...], tuple[str, ...]]:
        pool = quota(5)
        pool.open("r", 10)
        for number in range(100):
            pool.offer("r", f"s{number}")
        return pool.take("r", {"": 6}), pool.close("r")

    assert run() == run()


def test_offering_a_waiting_session_again_changes_nothing() -> None:
    pool = quota()
    pool.open("r", 1)
    assert [pool.offer("r", "a") for _ in range(50)] == [Offer(accepted=True)] * 50
    assert pool.report("r") == PoolReport(waiting={"": 1}, seen={"": 1})
    assert pool.take("r", {"": 1}) == ("a",)


def test_opening_a_round_again_keeps_its_pool() -> None:
    pool = quota()
    pool.open("r", 2)
    pool.offer("r", "a")
    pool.open("r", 2)
    assert pool.waiting("r") == 1
    assert pool.rounds == ("r",)


def test_a_round_that_is_not_open_rejects_everyone_and_has_nobody() -> None:
    pool = quota()
    assert pool.offer("r", "a") == Offer(accepted=False)
    assert not pool.withdraw("r", "a")
    assert pool.waiting("r") == 0
    assert pool.report("r") is None
    assert pool.take("r", {"": 3}) == ()
    assert pool.close("r") == ()


def test_the_pools_of_two_rounds_do_not_mix() -> None:
    pool = quota()
    pool.open("one", 2)
    pool.open("two", 2)
    pool.offer("one", "a")
    pool.offer("two", "b")
    assert pool.close("one") == ("a",)
    assert pool.take("two", {"": 5}) == ("b",)


def test_a_pool_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        quota().open("r", 0)


def test_a_pool_stays_open_while_devices_are_taken_from_it() -> None:
    pool = quota()
    pool.open("r", 3)
    for session in "abc":
        pool.offer("r", session)
    first = pool.take("r", {"": 2})
    assert pool.report("r") == PoolReport(waiting={"": 1}, seen={"": 1})
    assert pool.offer("r", "d") == Offer(accepted=True)
    assert sorted(first + pool.take("r", {"": 9})) == ["a", "b", "c", "d"]
    assert pool.rounds == ("r",)


def test_each_stratum_has_a_reservoir_of_its_own() -> None:
    pool = quota()
    pool.open("r", 2, STRATA)
    for number in range(20):
        pool.offer("r", f"de{number}", {"country": "de"})
    assert pool.offer("r", "fr", {"country": "fr", "os": "14"}) == Offer(accepted=True)
    assert pool.offer("r", "it", {"country": "it"}) == Offer(accepted=True)
    assert pool.offer("r", "silent") == Offer(accepted=True)
    assert pool.report("r") == PoolReport(
        waiting={"de": 2, "fr": 1, "": 2}, seen={"de": 20, "fr": 1, "": 2}
    )
    assert pool.waiting("r") == 5
    assert pool.take("r", {"fr": 1, "atlantis": 3}) == ("fr",)
    assert sorted(pool.take("r", {"": 2})) == ["it", "silent"]
    assert all(session.startswith("de") for session in pool.close("r"))


def test_a_crowded_stratum_evicts_only_its_own() -> None:
    pool = quota()
    pool.open("r", 3, STRATA)
    for session in "abc":
        pool.offer("r", session, {"country": "fr"})
    evicted = {
        pool.offer("r", f"de{number}", {"country": "de"}).evicted for number in range(200)
    } - {None}
    assert evicted
    assert evicted.isdisjoint("abc")
    assert sorted(pool.take("r", {"fr": 3})) == ["a", "b", "c"]


class Conservation(RuleBasedStateMachine):
    """Every offered session ends in exactly one way, and waits in its stratum until it does."""

    offered = Bundle("offered")

    def __init__(self) -> None:
        super().__init__()
        self.pool = quota(11)
        self.number = 0
        self.opened = 0
        self.waiting: dict[str, set[str]] = {}
        self.strata: dict[str, Strata | None] = {}
        self.stratum: dict[str, str] = {}
        self.ended: Counter[tuple[str, str]] = Counter()

    def end(self, round_id: str, sessions: tuple[str, ...]) -> None:
        for session in sessions:
            self.waiting[round_id].remove(session)
            self.ended[round_id, session] += 1

    @rule(capacity=st.sampled_from([1, 3, 8]), strata=st.sampled_from([None, STRATA]))
    def open(self, capacity: int, strata: Strata | None) -> None:
        if len(self.waiting) < 3:
            self.opened += 1
            self.pool.open(f"r{self.opened}", capacity, strata)
            self.strata[f"r{self.opened}"] = strata
            self.waiting[f"r{self.opened}"] = set()

    @rule(target=offered, data=st.data(), count=st.sampled_from([1, 4, 10]))
    def offer(self, data: st.DataObject, count: int):
        if not self.waiting:
            return multiple()
        round_id = data.draw(st.sampled_from(sorted(self.waiting)))
        sessions = []
        for _ in range(count):
            self.number += 1
            session = f"s{self.number}"
            sessions.append((round_id, session))
            country = data.draw(st.sampled_from(["de", "fr", "it"]))
            offer = self.pool.offer(round_id, session, {"country": country})
            stratified = self.strata[round_id] is not None and country != "it"
            self.stratum[session] = country if stratified else ""
            self.waiting[round_id].add(session)
            if not offer.accepted:
                assert offer.evicted is None
                self.end(round_id, (session,))
            if offer.evicted is not None:
                assert self.stratum[offer.evicted] == self.stratum[session]
                self.end(round_id, (offer.evicted,))
        return multiple(*sessions)

    @rule(session=offered)
    def withdraw(self, session: tuple[str, str]) -> None:
        round_id, session_id = session
        waits = session_id in self.waiting.get(round_id, ())
        assert self.pool.withdraw(round_id, session_id) == waits
        if waits:
            self.end(round_id, (session_id,))

    @rule(data=st.data())
    def withdraw_one_that_waits(self, data: st.DataObject) -> None:
        waiting = [(name, one) for name, all_ in self.waiting.items() for one in sorted(all_)]
        if waiting:
            round_id, session_id = data.draw(st.sampled_from(waiting))
            assert self.pool.withdraw(round_id, session_id)
            self.end(round_id, (session_id,))

    @rule(
        data=st.data(),
        counts=st.dictionaries(st.sampled_from(["", "de", "fr"]), st.integers(-1, 6)),
    )
    def take(self, data: st.DataObject, counts: dict[str, int]) -> None:
        if not self.waiting:
            return
        round_id = data.draw(st.sampled_from(sorted(self.waiting)))
        waited = Counter(self.stratum[session] for session in self.waiting[round_id])
        taken = self.pool.take(round_id, counts)
        by_stratum = Counter(self.stratum[session] for session in taken)
        for stratum in ("", "de", "fr"):
            assert by_stratum[stratum] == min(waited[stratum], max(0, counts.get(stratum, 0)))
        self.end(round_id, taken)

    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        if self.waiting:
            round_id = data.draw(st.sampled_from(sorted(self.waiting)))
            self.end(round_id, self.pool.close(round_id))
            assert self.waiting.pop(round_id) == set()

    @invariant()
    def nobody_is_lost_or_ended_twice(self) -> None:
        assert all(times == 1 for times in self.ended.values())
        for round_id, sessions in self.waiting.items():
            assert self.pool.waiting(round_id) == len(sessions)
            report = self.pool.report(round_id)
            assert report is not None
            waiting = Counter(self.stratum[session] for session in sessions)
            assert {name: count for name, count in report.waiting.items() if count} == waiting
            assert all(report.seen[name] >= count for name, count in waiting.items())


TestConservation = Conservation.TestCase
