"""From the matrix's results to what a plan lists and what its checks say."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from device_plan.matrix.result import Result, served
from device_plan.plan_pb2 import Runtime

#: The name under which the matrix stands among a plan's checks.
CHECK = "runtime matrix"


def evidence(
    before: Mapping[str, Sequence[Runtime]], results: Iterable[Result]
) -> dict[str, list[Runtime]]:
    """The runtimes on which each variant is known to pass.

    Args:
        before: What the plan lists for each of its variants. It stays for
            runtimes that were not run now: the graph is the same.
        results: Of now.

    Returns:
        By variant, the same order for the same runtimes. Differences have two
        digits, so that the last bits of a sum do not change a plan's bytes.
    """
    known = {
        variant: {runtime.name: runtime.relative_difference for runtime in runtimes}
        for variant, runtimes in before.items()
    }
    for result in results:
        if result.status == "not run":
            continue
        known[result.variant].pop(result.runtime, None)
        if result.passed and result.largest is not None:
            known[result.variant][result.runtime] = float(f"{result.largest:.1e}")
    return {
        variant: [
            Runtime(name=name, relative_difference=passed[name])
            for name in sorted(passed, key=_order)
        ]
        for variant, passed in known.items()
    }


def check(results: Sequence[Result], required: Collection[str] = ()) -> dict[str, Any]:
    """The matrix as an entry of checks.json: {"name", "passed", "summary", "figures"}.

    It passes if every required runtime ran and is served by a variant. The
    figures name, for each runtime, the variant it is served, null if none
    passed, "not run" if it did not run; no measured value.
    """
    best = served(results)
    runtimes = list(dict.fromkeys(result.runtime for result in results))
    ran = [name for name in runtimes if name in best]
    passed = [name for name in ran if best[name] is not None]
    summary = f"passes on {len(passed)} of {len(ran)} runtimes"
    unserved = [name for name in ran if best[name] is None]
    if unserved:
        summary += f"; not on {', '.join(unserved)}"
    if len(ran) < len(runtimes):
        missing = len(runtimes) - len(ran)
        summary += f"; {missing} {'was' if missing == 1 else 'were'} not run"
    lacking = [name for name in runtimes if name in required and name not in passed]
    if lacking:
        summary = f"required, but {_why(lacking[0], results)}; {summary}"
    return {
        "name": CHECK,
        "passed": not lacking,
        "summary": summary,
        "figures": {
            "served": {name: best.get(name, "not run") for name in runtimes},
            "required": sorted(required),
        },
    }


def merged(
    before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """A plan's checks with those of now in the place of their namesakes, new ones at the end."""
    latest = {entry["name"]: dict(entry) for entry in now}
    kept = [latest.pop(entry["name"], dict(entry)) for entry in before]
    return [*kept, *latest.values()]


def _why(runtime: str, results: Iterable[Result]) -> str:
    of_it = [result for result in results if result.runtime == runtime]
    reasons = [f"{result.variant} {result.status}: {result.reason}" for result in of_it]
    if of_it[0].status == "not run":
        return f"{runtime} was not run: {of_it[0].reason}"
    return f"{runtime} does not run the plan ({'; '.join(reasons)})"


def _order(name: str) -> tuple[str, list[int], str]:
    distribution, _, version = name.partition(" ")
    return distribution, [int(part) for part in re.findall(r"\d+", version)], name
