"""Batches choose as the server's own quota does."""

import random
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from server.protocol.quota import Quota
from server.simulation.pool import BatchedPool, OneByOnePool, Pool

CAPACITY, OFFERED, TAKEN, REPEATS = 8, 60, 5, 3000


def batched(seed: int) -> Pool:
    return BatchedPool(CAPACITY, np.random.default_rng(seed))


def one_by_one(seed: int) -> Pool:
    return OneByOnePool("round", CAPACITY, Quota(rng=random.Random(seed)))


def drive(pool: Pool, chance: random.Random, *, leaving: bool) -> tuple[list[int], int]:
    """A selection window: who is chosen, and how many were turned away while it lasted."""
    turned_away, first = 0, 0
    while first < OFFERED:
        size = min(chance.randrange(1, 20), OFFERED - first)
        batch = np.arange(first, first + size, dtype=np.int32)
        turned_away += len(pool.offer(batch))
        first += size
        if leaving and len(pool.waiting) and first < 40:
            waiting = np.sort(pool.waiting)
            place = chance.randrange(len(waiting))
            pool.leave(waiting[place : place + 1])
    chosen, rest = pool.take(TAKEN)
    assert len(chosen) == TAKEN
    assert not set(chosen.tolist()) & set(rest.tolist())
    return chosen.tolist(), turned_away


@pytest.mark.parametrize("make", [batched, one_by_one])
def test_every_device_has_the_same_chance(make: Callable[[int], Pool]) -> None:
    chance = random.Random(1)
    chosen: Counter[int] = Counter()
    for repeat in range(REPEATS):
        taken, turned_away = drive(make(repeat), chance, leaving=False)
        chosen.update(taken)
        assert turned_away == OFFERED - CAPACITY
    counts = [chosen[device] for device in range(OFFERED)]
    assert sum(counts) == REPEATS * TAKEN
    # Chi-square of uniformity; sampling without replacement only makes it smaller.
    assert stats.chisquare(counts).pvalue > 1e-3


def test_batches_choose_with_the_distribution_of_the_quota_when_devices_leave() -> None:
    found = []
    for make in (batched, one_by_one):
        chance = random.Random(2)
        chosen: Counter[int] = Counter()
        for repeat in range(REPEATS):
            chosen.update(drive(make(repeat), chance, leaving=True)[0])
        # Groups of five neighbours, so that no cell is small.
        found.append([sum(chosen[d] for d in range(g, g + 5)) for g in range(0, OFFERED, 5)])
    assert stats.chi2_contingency(found)[1] > 1e-3


@pytest.mark.parametrize("make", [batched, one_by_one])
def test_nobody_is_lost_or_doubled(make: Callable[[int], Pool]) -> None:
    pool = make(5)
    offered = np.arange(100, dtype=np.int32)
    turned_away = np.concatenate([pool.offer(offered[:50]), pool.offer(offered[50:])])
    everybody = sorted([*turned_away.tolist(), *pool.waiting.tolist()])
    assert everybody == offered.tolist()
    pool.leave(pool.waiting[:2].copy())
    assert len(pool.waiting) == CAPACITY - 2
    chosen, rest = pool.take(100)
    assert (len(chosen), len(rest)) == (CAPACITY - 2, 0)
