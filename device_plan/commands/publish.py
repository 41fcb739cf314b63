"""Whether a plan may be published. `nightshift plan publish` is in nightshift/publish.py,
for it also speaks to a server."""

from pathlib import Path

from device_plan.archive import PlanArchive
from device_plan.commands.sign import signed_with
from device_plan.commands.terminal import CheckFailed, open_plan
from device_plan.provenance import Provenance


def publishable(plan_file: Path, *, key_file: Path | None, require_provenance: bool) -> PlanArchive:
    """The plan, signed with the key if there is one.

    Raises:
        InvalidInput: plan or key cannot be read.
        CheckFailed: the plan did not pass; the message says what, and where to see more.
    """
    archive = open_plan(plan_file)
    found = objections(archive, require_provenance=require_provenance)
    if found:
        more = f" ({len(found) - 1} more)" if len(found) > 1 else ""
        raise CheckFailed(
            f"{plan_file} is not published: {found[0]}{more}. "
            f"`nightshift plan show {plan_file}` shows everything that was checked."
        )
    return archive if key_file is None else PlanArchive(signed_with(archive, key_file))


def objections(archive: PlanArchive, *, require_provenance: bool) -> list[str]:
    """What speaks against publishing the plan, in whole clauses."""
    found = []
    checks = archive.checks.get("checks")
    rows = [row for row in checks if isinstance(row, dict)] if isinstance(checks, list) else []
    if not rows:
        found.append("it has no release checks: build it with `nightshift plan build`")
    for row in rows:
        if row.get("passed") is not True:
            found.append(f"it fails the check {row.get('name')!r}: {row.get('summary')}")
    if not any(part.manifest.runtimes for part in archive.variants):
        found.append(
            "no variant of it passed on any TFLite runtime: see `nightshift plan check --help`"
        )
    if require_provenance:
        found += _missing_provenance(archive)
    return found


def _missing_provenance(archive: PlanArchive) -> list[str]:
    if archive.provenance is None:
        return ["it does not say where it comes from, and provenance is required"]
    try:
        missing = Provenance(**archive.provenance).missing()
    except TypeError:
        return ["its provenance cannot be read: build it again"]
    return [f"provenance is required, and {clause}" for clause in missing]
