"""A cohort taken from several selectors' pools, as if there were one."""

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from device_plan.cohort import Strata
from server.protocol.allocation import allocate
from server.protocol.quota import PoolReport, Quota
from tests.server.protocol.test_quota import assert_uniform

STRATA = Strata(attribute="country", shares={"de": 0.5, "fr": 0.3})
STRICT = Strata(attribute="country", shares={"de": 0.5, "fr": 0.3}, strict=True)
NAMES = ("de", "fr", "")


def one(waiting: dict[str, int]) -> dict[str, PoolReport]:
    return {"s": PoolReport(waiting=waiting, seen=waiting)}


def taken(waiting: dict[str, int], count: int, strata: Strata | None) -> dict[str, int]:
    return dict(allocate(one(waiting), count, strata, random.Random(1))["s"])


def test_every_device_of_every_selector_has_the_same_chance() -> None:
    draws, arrivals, wanted = 4000, {"a": 30, "b": 6, "c": 3}, 5
    chance = random.Random(11)
    counts: Counter[str] = Counter()
    for _ in range(draws):
        pools = {name: Quota(rng=chance) for name in arrivals}
        for name, number in arrivals.items():
            pools[name].open("r", wanted)
            for device in range(number):
                pools[name].offer("r", f"{name}{device}")
        reports = {name: report for name in pools if (report := pools[name].report("r"))}
        shares = allocate(reports, wanted, None, chance)
        cohort = [each for name in pools for each in pools[name].take("r", shares[name])]
        assert len(set(cohort)) == wanted
        counts.update(cohort)
    devices = [f"{name}{device}" for name in arrivals for device in range(arrivals[name])]
    assert_uniform([counts[device] for device in devices], draws=draws, chosen=wanted)


def test_a_second_taking_makes_up_for_the_first_without_preferring_anybody() -> None:
    draws, arrivals = 4000, {"a": 20, "b": 4}
    chance = random.Random(12)
    counts: Counter[str] = Counter()
    for _ in range(draws):
        pools = {name: Quota(rng=chance) for name in arrivals}
        for name, number in arrivals.items():
            pools[name].open("r", 6)
            for device in range(number):
                pools[name].offer("r", f"{name}{device}")
        for wanted in (4, 2):
            reports = {name: report for name in pools if (report := pools[name].report("r"))}
            shares = allocate(reports, wanted, None, chance)
            for name in pools:
                counts.update(pools[name].take("r", shares[name]))
    devices = [f"{name}{device}" for name in arrivals for device in range(arrivals[name])]
    assert_uniform([counts[device] for device in devices], draws=draws, chosen=6)


def test_what_a_selector_gives_is_hypergeometric_in_what_all_have_seen() -> None:
    draws, wanted = 5000, 8
    seen = {"a": 40, "b": 15, "c": 9}
    reports = {
        name: PoolReport(waiting={"": min(number, wanted)}, seen={"": number})
        for name, number in seen.items()
    }
    chance = random.Random(13)
    given_by = {name: Counter[int]() for name in seen}
    for _ in range(draws):
        shares = allocate(reports, wanted, None, chance)
        for name in seen:
            given_by[name][shares[name].get("", 0)] += 1
    for name, number in seen.items():
        law = stats.hypergeom(sum(seen.values()), number, wanted)
        expected = draws * law.pmf(range(wanted + 1))
        observed = [given_by[name][k] for k in range(wanted + 1)]
        # A chi-square wants 5 in each class: the rare numbers are one class together.
        common = [k for k in range(wanted + 1) if expected[k] >= 5]
        classes = [
            (sum(counts) - sum(counts[k] for k in common), *(counts[k] for k in common))
            for counts in (observed, expected)
        ]
        assert stats.chisquare(*classes).pvalue > 0.001


def test_devices_that_left_one_selector_are_made_up_for_by_the_others() -> None:
    reports = {
        "a": PoolReport(waiting={"": 1}, seen={"": 1000}),
        "b": PoolReport(waiting={"": 10}, seen={"": 10}),
    }
    assert allocate(reports, 6, None, random.Random(1)) == {"a": {"": 1}, "b": {"": 5}}


def test_places_are_divided_by_the_strata_s_shares() -> None:
    assert taken({"de": 99, "fr": 99, "": 99}, 10, STRATA) == {"de": 5, "fr": 3, "": 2}


def test_places_left_over_go_to_the_largest_remainders() -> None:
    # The quotas of 7 are 3.5, 2.1 and 1.4.
    assert taken({"de": 99, "fr": 99, "": 99}, 7, STRATA) == {"de": 4, "fr": 2, "": 1}


def test_a_stratum_s_empty_places_go_to_the_others_in_proportion() -> None:
    # 5 places of "de" are left: 3 to "fr" and 2 to the rest.
    assert taken({"de": 0, "fr": 99, "": 99}, 10, STRATA) == {"fr": 6, "": 4}


def test_strict_strata_leave_their_places_empty() -> None:
    assert taken({"de": 1, "fr": 99, "": 99}, 10, STRICT) == {"de": 1, "fr": 3, "": 2}


def test_those_without_a_share_come_last_and_not_at_all_if_strata_are_strict() -> None:
    shares = {"de": 0.5, "fr": 0.5}
    waiting = {"de": 2, "fr": 3, "": 99}
    relaxed = Strata(attribute="country", shares=shares)
    strict = Strata(attribute="country", shares=shares, strict=True)
    assert taken(waiting, 4, relaxed) == {"de": 2, "fr": 2}
    assert taken(waiting, 8, relaxed) == {"de": 2, "fr": 3, "": 3}
    assert taken(waiting, 8, strict) == {"de": 2, "fr": 3}


pools = st.dictionaries(
    st.sampled_from("abcd"),
    st.fixed_dictionaries(
        {name: st.tuples(st.integers(0, 9), st.integers(0, 20)) for name in NAMES}
    ),
)


@given(pools, st.integers(0, 60), st.sampled_from([STRATA, STRICT]), st.integers(0, 99))
def test_nobody_gives_more_than_waits_and_nobody_waits_in_vain(drawn, count, strata, seed) -> None:
    reports = {
        selector: PoolReport(
            waiting={name: waits for name, (waits, _) in own.items()},
            seen={name: waits + gone for name, (waits, gone) in own.items()},
        )
        for selector, own in drawn.items()
    }
    shares = allocate(reports, count, strata, random.Random(seed))
    total: Counter[str] = Counter()
    waiting: Counter[str] = Counter()
    for selector, report in reports.items():
        waiting.update(report.waiting)
        for name, number in shares[selector].items():
            assert 0 < number <= report.waiting[name]
            total[name] += number
    assert total.total() <= count
    if not strata.strict:
        assert total.total() == min(count, waiting.total())
    for name in NAMES:
        quota = count * {"de": 0.5, "fr": 0.3, "": 0.2}[name]
        assert total[name] >= min(waiting[name], int(quota))
        if strata.strict:
            assert total[name] < quota + 1
