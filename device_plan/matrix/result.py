"""What a plan's variant did on a runtime, and which variant a runtime is served."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

#: "default": as the runtime comes, with XNNPACK; "none": without its delegates.
Delegates = Literal["default", "none"]

Status = Literal["passed", "failed", "not run"]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One process of one runtime on all cases of a variant.

    Attributes:
        reason: Why it failed; "" if it passed.
        differences: For each name of a case, the median over its draws of the
            relative L2 difference to TFF; infinite where the graph gives no number.
        drawn: Of the same, the difference of each draw, as far as it came.
        seconds_per_step: Median of a full training batch, one thread; None if unknown.
        import_s, interpreter_s: Seconds to import the runtime (numpy was there), to load the graph.
        rss_import_bytes, rss_bytes: Peak resident memory after the import, at the end.
    """

    reason: str = ""
    differences: Mapping[str, float] = field(default_factory=dict)
    drawn: Mapping[str, Sequence[float]] = field(default_factory=dict)
    seconds_per_step: float | None = None
    import_s: float | None = None
    interpreter_s: float | None = None
    rss_import_bytes: int | None = None
    rss_bytes: int | None = None

    @property
    def largest(self) -> float | None:
        return max(self.differences.values(), default=None)


@dataclass(frozen=True, kw_only=True)
class Result:
    """A variant on a runtime.

    Attributes:
        runtime: Its name in the table.
        variant: The plan's variant.
        status: "not run" if the runtime could not be had: that is no pass.
        reason: Why not, or why it failed; "" if it passed.
        measured: By delegates; "none" only where the runtime has a switch.
    """

    runtime: str
    variant: str
    status: Status
    reason: str = ""
    measured: Mapping[Delegates, Measurement] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return self.status == "passed"

    @property
    def largest(self) -> float | None:
        """The largest median difference, with or without delegates; None if there is none."""
        found = [m.largest for m in self.measured.values() if m.largest is not None]
        return max(found, default=None)

    @property
    def differences(self) -> Mapping[str, float]:
        return self.measured["default"].differences if self.measured else {}

    @property
    def seconds_per_step(self) -> float | None:
        return self.measured["default"].seconds_per_step if self.measured else None

    @property
    def rss_bytes(self) -> int | None:
        return self.measured["default"].rss_bytes if self.measured else None

    @property
    def import_s(self) -> float | None:
        return self.measured["default"].import_s if self.measured else None

    def to_json(self) -> dict[str, Any]:
        """For a report; what is infinite is null, for JSON has no infinity."""
        return {
            "runtime": self.runtime,
            "variant": self.variant,
            "status": self.status,
            "reason": self.reason,
            "measured": {
                delegates: {
                    **{k: v for k, v in asdict(measurement).items() if k != "drawn"},
                    "differences": {
                        name: value if math.isfinite(value) else None
                        for name, value in measurement.differences.items()
                    },
                }
                for delegates, measurement in self.measured.items()
            },
        }


def by_draw(names: Sequence[str], differences: Sequence[float | None]) -> dict[str, list[float]]:
    """The differences of each name, from one difference (None: not finite) a draw."""
    drawn: dict[str, list[float]] = {}
    for name, difference in zip(names, differences, strict=True):
        drawn.setdefault(name, []).append(math.inf if difference is None else difference)
    return drawn


def medians(drawn: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The median difference of each name."""
    return {name: statistics.median(values) for name, values in drawn.items()}


def judge(
    runtime: str,
    variant: str,
    measured: Mapping[Delegates, Measurement],
    limits: Mapping[str, float],
) -> Result:
    """A pass needs every measurement, for devices run with and without delegates.

    Args:
        limits: By name of a case, the difference above which it fails.
    """
    for delegates, measurement in measured.items():
        where = "" if delegates == "default" else "without delegates: "
        reason = measurement.reason
        if not reason:
            excess = {
                name: difference / limits[name]
                for name, difference in measurement.differences.items()
            }
            worst = max(excess, key=lambda name: excess[name])
            if not excess[worst] <= 1:
                reason = (
                    f"{worst} differs from TFF by {measurement.differences[worst]:.1e}, "
                    f"above {limits[worst]:.0e}"
                )
        if reason:
            return Result(
                runtime=runtime,
                variant=variant,
                status="failed",
                reason=where + reason,
                measured=measured,
            )
    return Result(runtime=runtime, variant=variant, status="passed", measured=measured)


def served(results: Iterable[Result]) -> dict[str, str | None]:
    """For each runtime that ran, the first variant that passed; None if none did."""
    best: dict[str, str | None] = {}
    for result in results:
        if result.status == "not run":
            continue
        if best.get(result.runtime) is None:
            best[result.runtime] = result.variant if result.passed else None
    return best
