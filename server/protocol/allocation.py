"""Which selector gives how many devices to a round: as if there were one pool.

A cohort of ``n`` devices is divided over the strata by largest remainder
(Hamilton's method); places that a stratum cannot fill go to the others, in
proportion to their shares, unless the strata are strict.

Within a stratum, selector ``i`` has kept a uniform sample of the ``s_i`` devices it
has seen. A uniform sample of ``k`` of all ``s_1 + s_2 + ...`` devices has, from each
selector, a number that is multivariate hypergeometric in the ``s_i``; given these
numbers, a uniform sample of each selector's reservoir, which `Quota.take` draws,
completes it. Reservoirs hold as many as the whole cohort, so they have enough,
except for devices that have left; what one selector is short of, the others give.
"""

import random
from collections.abc import Mapping

from device_plan.cohort import Strata
from server.protocol.quota import PoolReport


def allocate(
    reports: Mapping[str, PoolReport], count: int, strata: Strata | None, rng: random.Random
) -> dict[str, dict[str, int]]:
    """What to take from each selector, by stratum.

    Args:
        reports: The pools, by selector.
        count: Devices wanted.
        strata: Of the cohort.
        rng: The source of chance.

    Returns:
        Counts by selector and stratum, none above what waits there; together
        ``count``, or fewer if there are no more.
    """
    waiting: dict[str, int] = {}
    for report in reports.values():
        for stratum, number in report.waiting.items():
            waiting[stratum] = waiting.get(stratum, 0) + number
    by_stratum = divide(waiting, count, strata)
    shares: dict[str, dict[str, int]] = {selector: {} for selector in reports}
    for stratum, number in by_stratum.items():
        seen = {name: report.seen.get(stratum, 0) for name, report in reports.items()}
        limits = {name: report.waiting.get(stratum, 0) for name, report in reports.items()}
        for name, own in _hypergeometric(seen, limits, number, rng).items():
            if own:
                shares[name][stratum] = own
    return shares


def divide(waiting: Mapping[str, int], count: int, strata: Strata | None) -> dict[str, int]:
    """How many of ``count`` devices each stratum gives; no more than wait there."""
    if strata is None:
        return {"": min(count, waiting.get("", 0))}
    shares = {name: share for name, share in strata.all_shares.items() if share > 0}
    taken = {
        name: min(number, waiting.get(name, 0))
        for name, number in _largest_remainder(shares, count).items()
    }
    if strata.strict:
        return taken
    # Each turn fills at least one stratum or the cohort. Only strata without a
    # share are left to the end.
    for candidates in (shares, dict.fromkeys(waiting, 1.0)):
        while True:
            left = count - sum(taken.values())
            room = {
                name: waiting[name] - taken.get(name, 0)
                for name in candidates
                if waiting.get(name, 0) > taken.get(name, 0)
            }
            if left <= 0 or not room:
                break
            weights = {name: candidates[name] for name in room}
            for name, number in _largest_remainder(weights, left).items():
                taken[name] = taken.get(name, 0) + min(number, room[name])
    return taken


def _largest_remainder(weights: Mapping[str, float], count: int) -> dict[str, int]:
    total = sum(weights.values())
    exact = {name: count * weight / total for name, weight in weights.items()}
    given = {name: int(value + 1e-9) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: (given[name] - exact[name], name))
    for name in by_remainder[: count - sum(given.values())]:
        given[name] += 1
    return given


def _hypergeometric(
    seen: Mapping[str, int], limits: Mapping[str, int], count: int, rng: random.Random
) -> dict[str, int]:
    """How many of ``count`` devices each selector gives, drawn one by one without replacement."""
    left = {name: max(seen[name], limits[name]) for name in seen if limits[name] > 0}
    given = dict.fromkeys(left, 0)
    total = sum(left.values())
    for _ in range(count):
        if not left:
            break
        ticket = rng.random() * total
        for name in left:
            ticket -= left[name]
            if ticket < 0:
                break
        given[name] += 1
        left[name] -= 1
        total -= 1
        if given[name] == limits[name]:
            total -= left.pop(name)
    return given
