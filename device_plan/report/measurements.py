"""What `nightshift plan check` measured of a plan, read from the file beside it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from device_plan.archive import PlanArchive

#: After the plan's file name.
SUFFIX = ".report.json"


class InvalidMeasurements(ValueError):
    """The file cannot be read; the message says what to do."""


@dataclass(frozen=True)
class Measured:
    """One variant on one runtime, with its default delegates and one thread.

    Attributes:
        runtime: E.g. "tflite-runtime 2.14.0".
        variant: The plan's variant.
        status: "passed", "failed" or "not run".
        reason: Why not; "" if it passed.
        relative_difference: The largest one to TFF's client work; None if unknown.
        seconds_per_step: Median of a full training batch; None if unknown.
        rss_bytes: Peak resident memory of the process; None if unknown.
        import_s: Seconds to import the runtime; None if unknown.
    """

    runtime: str
    variant: str
    status: str
    reason: str
    relative_difference: float | None
    seconds_per_step: float | None
    rss_bytes: int | None
    import_s: float | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def measurements_file(plan_file: Path) -> Path:
    """Where `nightshift plan check` leaves what it measured."""
    return plan_file.with_name(plan_file.name + SUFFIX)


def read(plan_file: Path, archive: PlanArchive) -> tuple[list[Measured], str]:
    """The measurements beside a plan, and why there are none.

    Returns:
        Them, and ""; or none, and a sentence.

    Raises:
        InvalidMeasurements: the file is there but cannot be read.
    """
    path = measurements_file(plan_file)
    try:
        report = json.loads(path.read_bytes())
        results = [_measured(result) for result in report["results"]]
        digest = str(report["digest"])
    except FileNotFoundError:
        return [], f"not measured: {path.name} does not stand beside the plan"
    except OSError as error:
        raise InvalidMeasurements(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidMeasurements(
            f"{path} is not what `nightshift plan check` writes ({type(error).__name__}: {error}): "
            "delete it or check the plan again"
        ) from error
    if digest not in (archive.digest, _unsigned_digest(archive)):
        return [], f"not measured: {path.name} is of another plan, digest {digest[:12]}…"
    if not results:
        return [], f"not measured: {path.name} has no runtime"
    return results, ""


def _unsigned_digest(archive: PlanArchive) -> str:
    """The digest that the plan had when it was checked, before it was signed."""
    unsigned = archive.with_evidence(
        runtimes={part.variant: part.manifest.runtimes for part in archive.variants},
        checks=archive.checks,
        provenance=None,
    )
    return hashlib.sha256(unsigned).hexdigest()


def _measured(result: Mapping[str, Any]) -> Measured:
    by_delegates: Mapping[str, Any] = result["measured"]
    default: Mapping[str, Any] = by_delegates.get("default", {})
    differences = [
        value
        for measurement in by_delegates.values()
        for value in measurement["differences"].values()
    ]
    return Measured(
        runtime=str(result["runtime"]),
        variant=str(result["variant"]),
        status=str(result["status"]),
        reason=str(result["reason"]),
        # An infinite difference is null in JSON.
        relative_difference=max(differences) if differences and None not in differences else None,
        seconds_per_step=_number(default.get("seconds_per_step")),
        rss_bytes=None if default.get("rss_bytes") is None else int(default["rss_bytes"]),
        import_s=_number(default.get("import_s")),
    )


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
