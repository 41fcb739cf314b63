"""What is counted in a simulation, and what is reported of it."""

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.simulation.sessions import Fate, Sessions

HOUR_S = 3600
MINUTE_S = 60
#: Seconds from a wake that count as the wake itself.
WAKE_S = 5 * MINUTE_S

#: Counted by the hour: of check-ins, and of selected devices.
CHECK_INS = ("check_ins", "no_answer", "unsupported", "turned_away", "withdrawn")
SELECTED = ("selected", "uploaded", "interrupted", "failed", "vanished", "in_the_sum")


class Figures:
    """Counts of one run.

    Args:
        seconds: How long it lasts.
        goal_count: Updates wanted by a round.
    """

    def __init__(self, *, seconds: float, goal_count: int) -> None:
        self._seconds = int(np.ceil(seconds))
        self._goal_count = goal_count
        hours = -(-self._seconds // HOUR_S)
        self._by_hour: dict[str, NDArray[np.int64]] = {
            name: np.zeros(hours, np.int64) for name in (*CHECK_INS, *SELECTED)
        }
        self._arrivals = np.zeros(self._seconds, np.int64)
        minutes = -(-self._seconds // MINUTE_S)
        self._participating = np.zeros(minutes + 1, np.int64)
        self._waiting = np.zeros(minutes, np.int64)
        self._available = np.zeros(hours)
        self._rounds: list[tuple[float, float, dict[str, Any]]] = []

    def count(self, name: str, now: float, number: int) -> None:
        hours = self._by_hour[name]
        hours[min(int(now // HOUR_S), len(hours) - 1)] += number

    def arrived(self, begin_s: int, by_second: NDArray[np.int64]) -> None:
        """Check-ins in each second from one on."""
        part = self._arrivals[begin_s : begin_s + len(by_second)]
        part += by_second[: len(part)]
        self.count("check_ins", begin_s, int(by_second.sum()))

    def turned_away(self, now: float, number: int) -> None:
        """Devices are rejected: at once, evicted from the pool, or when it closes."""
        self.count("turned_away", now, number)

    def waiting(self, now: float, number: int) -> None:
        """So many devices are in the pool."""
        minute = int(now // MINUTE_S)
        self._waiting[minute] = max(self._waiting[minute], number)

    def available(self, hour: int, share: float) -> None:
        """The share of the fleet that is idle, charging and on Wi-Fi when an hour begins."""
        self._available[hour] = share

    def configured(self, now: float, sessions: Sessions) -> None:
        """A round's devices begin."""
        self.count("selected", now, len(sessions.devices))
        last = len(self._participating) - 1
        self._participating[min(int(now // MINUTE_S), last)] += len(sessions.devices)
        ends = np.minimum(sessions.ends // 1000 // MINUTE_S, last)
        np.subtract.at(self._participating, ends, 1)
        hours = np.minimum(sessions.ends // 1000 // HOUR_S, len(self._by_hour["selected"]) - 1)
        for fate in Fate:
            np.add.at(self._by_hour[fate.name.lower()], hours[sessions.fates == fate], 1)

    def reported(self, now: float, accepted: int) -> None:
        """A round's reporting closed with so many updates."""
        self.count("in_the_sum", now, accepted)

    def round_over(self, now: float, opened_at: float, statistics: dict[str, Any]) -> None:
        """A round ended."""
        self._rounds.append((opened_at, now, statistics))

    def to_json(self, *, settled_s: float, wake_at_s: float | None) -> dict[str, Any]:
        """All figures.

        Args:
            settled_s: What is before is left out of the summary: devices first
                hear of the population, and nothing of the day is known yet.
            wake_at_s: When devices were woken at once.
        """
        hours = {name: counts.tolist() for name, counts in self._by_hour.items()}
        participating = np.cumsum(self._participating)[:-1]
        whole = len(self._available)
        return {
            "summary": self._summary(int(settled_s), wake_at_s, participating),
            "by_hour": {
                **hours,
                "available_share": [round(share, 5) for share in self._available.tolist()],
                "participating": _hourly(participating, whole, np.mean),
                "participating_at_most": _hourly(participating, whole, np.max),
                "waiting_at_most": _hourly(self._waiting, whole, np.max),
                "arrivals_peak_per_s": _hourly(self._arrivals, whole, np.max),
                "rounds_committed": self._committed_by_hour(whole),
            },
            "arrivals_by_minute": _chunks(self._arrivals, MINUTE_S, np.sum),
        }

    def _summary(
        self, settled_s: int, wake_at_s: float | None, participating: NDArray[np.int64]
    ) -> dict[str, Any]:
        hour = settled_s // HOUR_S
        sums = {name: int(counts[hour:].sum()) for name, counts in self._by_hour.items()}
        selected, check_ins = max(1, sums["selected"]), max(1, sums["check_ins"])
        answered = max(1, sums["check_ins"] - sums["no_answer"] - sums["unsupported"])
        dropped = sums["interrupted"] + sums["failed"] + sums["vanished"]
        profile = _day(self._by_hour["check_ins"][hour:])
        selected_profile = _day(self._by_hour["selected"][hour:])
        drop_by_hour = _day(
            sum(self._by_hour[name][hour:] for name in ("interrupted", "failed", "vanished"))
        )
        return {
            "from_hour": hour,
            **{f"sum_of_{name}": number for name, number in sums.items()},
            "accept_rate": _ratio(sums["selected"], answered),
            "turned_away_rate": _ratio(sums["turned_away"] + sums["withdrawn"], answered),
            "no_answer_rate": _ratio(sums["no_answer"], check_ins),
            "drop_out_rate": _ratio(dropped, selected),
            "drop_out_rate_least_and_most_by_hour": _least_and_most(
                drop_by_hour / np.maximum(selected_profile, 1)
            ),
            "too_late_rate": _ratio(sums["uploaded"] - sums["in_the_sum"], selected),
            "day_factor_available": _factor(_day(self._available[hour:])),
            "day_factor_check_ins": _factor(profile),
            "day_factor_selected": _factor(selected_profile),
            "participating_at_most": int(participating[settled_s // MINUTE_S :].max(initial=0)),
            "arrivals": herd(self._without_the_wake(settled_s, wake_at_s)),
            "arrivals_in_all": herd(self._arrivals),
            "after_the_wake": self._echo(wake_at_s),
            "rounds": self._round_summary(settled_s),
        }

    def _without_the_wake(self, settled_s: int, wake_at_s: float | None) -> NDArray[np.int64]:
        # The wake itself is the same however devices are paced.
        if wake_at_s is None or wake_at_s < settled_s:
            return self._arrivals[settled_s:]
        before, after = int(wake_at_s), int(wake_at_s) + WAKE_S
        return np.concatenate([self._arrivals[settled_s:before], self._arrivals[after:]])

    def _echo(self, wake_at_s: float | None) -> dict[str, Any] | None:
        if wake_at_s is None or wake_at_s + HOUR_S > self._seconds:
            return None
        from_s = int(wake_at_s) + WAKE_S
        return herd(self._arrivals[from_s : int(wake_at_s) + 24 * HOUR_S])

    def _round_summary(self, settled_s: int) -> dict[str, Any]:
        rounds = [each for each in self._rounds if each[0] >= settled_s]
        committed = [each for each in rounds if each[2]["abandoned_for"] is None]
        reasons = Counter(s["abandoned_for"] for *_, s in rounds if s["abandoned_for"])
        closed = Counter(s["closed_by"] for *_, s in rounds if s["closed_by"])
        seconds = {
            "whole": [end - begin for begin, end, _ in committed],
            "selecting": [s["seconds"].get("selecting", 0.0) for *_, s in committed],
            "reporting": [s["seconds"].get("reporting", 0.0) for *_, s in committed],
        }
        goal = self._goal_count
        return {
            "committed": len(committed),
            "abandoned": dict(sorted(reasons.items())),
            "closed_by": dict(sorted(closed.items())),
            "seconds": {name: quantiles(values) for name, values in seconds.items()},
            "selected_over_goal": _mean([s["selected"] / goal for *_, s in committed]),
            "accepted_over_goal": _mean([s["accepted"] / goal for *_, s in committed]),
            "unfinished_over_selected": _mean(
                [s["unfinished"] / s["selected"] for *_, s in committed]
            ),
        }

    def _committed_by_hour(self, hours: int) -> list[int]:
        ends = [int(e // HOUR_S) for _, e, s in self._rounds if s["abandoned_for"] is None]
        return np.bincount(np.minimum(ends, hours - 1), minlength=hours).tolist() if ends else []


def herd(arrivals: NDArray[np.int64]) -> dict[str, Any]:
    """Mean and peak of arrivals per second, and the peak over the mean."""
    if not len(arrivals) or not arrivals.any():
        return {"mean_per_s": 0.0, "peak_per_s": 0, "peak_over_mean": None}
    mean = float(arrivals.mean())
    minutes = np.array(_chunks(arrivals, MINUTE_S, np.mean))
    return {
        "mean_per_s": round(mean, 4),
        "peak_per_s": int(arrivals.max()),
        "peak_over_mean": round(float(arrivals.max()) / mean, 3),
        "p999_per_s": float(np.quantile(arrivals, 0.999)),
        "fullest_minute_over_mean": round(float(minutes.max()) / mean, 3),
    }


def quantiles(values: list[float]) -> dict[str, float]:
    """Median and tails."""
    if not values:
        return {}
    found = np.quantile(values, [0.05, 0.5, 0.95, 1.0]).round(3).tolist()
    return dict(zip(("p5", "p50", "p95", "most"), found, strict=True))


def _hourly(values: NDArray[Any], hours: int, how: Any) -> list[float]:
    return _chunks(values, -(-len(values) // hours), how)


def _chunks(values: NDArray[Any], size: int, how: Any) -> list[float]:
    starts = range(0, len(values), size)
    return [round(float(how(values[start : start + size])), 3) for start in starts]


def _day(hours: Any) -> NDArray[np.float64]:
    """The mean of each of the 24 hours over whole days; of what there is if there is none."""
    values = np.asarray(hours, float)
    whole = len(values) // 24 * 24
    return values[:whole].reshape(-1, 24).mean(axis=0) if whole else values


def _factor(profile: NDArray[np.float64]) -> float | None:
    if not len(profile) or profile.min() <= 0:
        return None
    return round(float(profile.max() / profile.min()), 3)


def _least_and_most(values: NDArray[np.float64]) -> list[float]:
    return [round(float(values.min()), 5), round(float(values.max()), 5)] if len(values) else []


def _ratio(part: int, whole: int) -> float:
    return round(part / max(1, whole), 6)


def _mean(values: list[float]) -> float | None:
    return round(float(np.mean(values)), 5) if values else None
