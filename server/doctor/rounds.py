"""Rounds that were abandoned lately, and what to do about each reason."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from server.doctor.finding import Finding, fine, skipped, warning, wrong

#: Seconds of the past that are looked at.
LATELY_S = 24 * 3600.0

#: A task of whose rounds a larger share was abandoned is wrong.
MUCH = 0.5

#: What to do, by the reason a round was abandoned for.
REMEDIES = {
    "too_few_devices": "fewer devices came than the cohort's minimum: lower goal or minimum, "
    "lengthen the selection timeout, or see why check-ins are rejected (/metrics)",
    "too_few_updates": "devices were selected and did not upload: see session shapes "
    "(admin API, population) and lengthen the reporting window",
    "update_failed": "the plan's server part failed: the server's log has its message",
    "update_timed_out": "the model update takes too long: more processor, or a smaller model",
    "commit_refused": "the lease was lost meanwhile: is the database slow, or the process frozen?",
    "coordinator_lost": "a coordinator died or was restarted: its log says why",
    "master_aggregator_lost": "an actor died: look for actor_died in the log",
    "selection_not_answered": "selectors did not answer: are they overloaded or unreachable?",
    "sums_not_collected": "selectors did not hand over their sums: are they unreachable?",
    "cancelled": "somebody paused or cancelled the task: nothing to do",
}


@dataclass(frozen=True)
class EndedRound:
    """One that is committed or abandoned."""

    task_id: str
    outcome: str
    reason: str | None


def round_findings(ended: Sequence[EndedRound]) -> Iterator[Finding]:
    """One line for each reason of each task, or that there is none."""
    check = "rounds"
    if not ended:
        yield skipped(check, f"none ended in the last {LATELY_S / 3600:.0f} hours")
        return
    of_task = Counter(each.task_id for each in ended)
    abandoned = Counter(
        (each.task_id, each.reason or "unknown")
        for each in ended
        if each.outcome == "abandoned" and each.reason != "cancelled"
    )
    for (task_id, reason), count in abandoned.most_common():
        detail = f"{count} of {of_task[task_id]} abandoned lately: {reason}"
        remedy = REMEDIES.get(reason, "the server's log says more")
        say = wrong if count > MUCH * of_task[task_id] else warning
        yield say(f"rounds of {task_id}", detail, remedy)
    if not abandoned:
        yield fine(check, f"{len(ended)} ended lately, none was abandoned by itself")
