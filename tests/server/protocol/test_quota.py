"""Reservoir sampling of waiting devices."""

import random
from collections import Counter

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule
from scipy import special

from server.protocol.quota import Offer, Quota


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
        selected, rejected = pool.take(f"{draw}", capacity)
        assert rejected == ()
        counts.update(selected)
    assert_uniform([counts[f"{n}"] for n in range(devices)], draws=draws, chosen=capacity)


def test_taking_fewer_than_wait_is_as_fair() -> None:
    draws, devices = 4000, 12
    pool = quota()
    counts: Counter[str] = Counter()
    for draw in range(draws):
        pool.open(f"{draw}", devices)
        for device in range(devices):
            pool.offer(f"{draw}", f"{device}")
        counts.update(pool.take(f"{draw}", 4)[0])
    assert_uniform([counts[f"{n}"] for n in range(devices)], draws=draws, chosen=4)


def test_a_device_that_leaves_makes_room_for_the_next() -> None:
    pool = quota()
    pool.open("r", 3)
    for session in "abc":
        pool.offer("r", session)
    assert pool.withdraw("r", "b")
    assert pool.waiting("r") == 2
    assert pool.offer("r", "d") == Offer(accepted=True)
    assert sorted(pool.take("r", 3)[0]) == ["a", "c", "d"]


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
        return pool.take("r", 6)

    assert run() == run()


def test_offering_a_waiting_session_again_changes_nothing() -> None:
    pool = quota()
    pool.open("r", 1)
    assert [pool.offer("r", "a") for _ in range(50)] == [Offer(accepted=True)] * 50
    assert pool.take("r", 1) == (("a",), ())


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
    assert pool.take("r", 3) == ((), ())
    assert pool.close("r") == ()


def test_the_pools_of_two_rounds_do_not_mix() -> None:
    pool = quota()
    pool.open("one", 2)
    pool.open("two", 2)
    pool.offer("one", "a")
    pool.offer("two", "b")
    assert pool.close("one") == ("a",)
    assert pool.take("two", 5) == (("b",), ())


def test_a_pool_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        quota().open("r", 0)


class Conservation(RuleBasedStateMachine):
    """Every offered session ends in exactly one way, and waits until it does."""

    offered = Bundle("offered")

    def __init__(self) -> None:
        super().__init__()
        self.pool = quota(11)
        self.number = 0
        self.opened = 0
        self.waiting: dict[str, set[str]] = {}
        self.ended: Counter[tuple[str, str]] = Counter()

    def end(self, round_id: str, sessions: tuple[str, ...]) -> None:
        for session in sessions:
            self.waiting[round_id].remove(session)
            self.ended[round_id, session] += 1

    @rule(capacity=st.sampled_from([1, 3, 8]))
    def open(self, capacity: int) -> None:
        if len(self.waiting) < 3:
            self.opened += 1
            self.pool.open(f"r{self.opened}", capacity)
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
            offer = self.pool.offer(round_id, session)
            self.waiting[round_id].add(session)
            if not offer.accepted:
                assert offer.evicted is None
                self.end(round_id, (session,))
            if offer.evicted is not None:
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

    @rule(data=st.data(), count=st.integers(-1, 6))
    def take(self, data: st.DataObject, count: int) -> None:
        if not self.waiting:
            return
        round_id = data.draw(st.sampled_from(sorted(self.waiting)))
        waited = len(self.waiting[round_id])
        selected, rejected = self.pool.take(round_id, count)
        assert len(selected) == min(waited, max(0, count))
        self.end(round_id, selected + rejected)
        assert self.waiting.pop(round_id) == set()

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


TestConservation = Conservation.TestCase
