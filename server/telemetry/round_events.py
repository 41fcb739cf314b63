"""What the log says of rounds: told by the master aggregator that runs them, as they go."""

from collections.abc import Mapping
from typing import Any, Literal

from server.telemetry.logs import event_log

_log = event_log("server.rounds")


def opened(*, population: str, task_id: str, round_id: str, number: int, target: int) -> None:
    """A round begins to select devices.

    Args:
        population: Whose devices.
        task_id: The round's task.
        round_id: The round.
        number: The task's own count.
        target: Devices wanted.
    """
    _log.info(
        "round_opened",
        population=population,
        task_id=task_id,
        round_id=round_id,
        number=number,
        target=target,
    )


def configured(*, round_id: str, selected: int, seconds: float) -> None:
    """The round's devices have their assignments, so long after it was opened."""
    _log.info("round_configured", round_id=round_id, selected=selected, seconds=_s(seconds))


def closed(*, round_id: str, reason: str, accepted: int, seconds: float) -> None:
    """The round takes no more updates, so long after it was opened."""
    _log.info(
        "round_closed", round_id=round_id, reason=reason, accepted=accepted, seconds=_s(seconds)
    )


def update_failed(*, round_id: str, failure: str, seconds: float) -> None:
    """The model update took so long, and has no result; `failure` says why."""
    _log.error("model_update_failed", round_id=round_id, failure=failure, seconds=_s(seconds))


def ended(
    outcome: Literal["committed", "abandoned"],
    *,
    population: str,
    task_id: str,
    round_id: str,
    number: int,
    seconds: float,
    statistics: Mapping[str, Any],
    reason: str = "",
    detail: str = "",
) -> None:
    """The round is over, so long after it was opened.

    Args:
        outcome: What became of it.
        population: Whose devices it had.
        task_id: Its task.
        round_id: The round.
        number: The task's own count.
        seconds: Since it was opened.
        statistics: Of the `Round`.
        reason: Why it was abandoned, a word of `server.protocol.round`.
        detail: A sentence more.
    """
    say = _log.info if outcome == "committed" else _log.warning
    say(
        f"round_{outcome}",
        population=population,
        task_id=task_id,
        round_id=round_id,
        number=number,
        seconds=_s(seconds),
        **({"reason": reason, "detail": detail} if reason else {}),
        statistics=dict(statistics),
    )


def _s(seconds: float) -> float:
    return round(seconds, 3)
