"""Structured logs: one event a line, as JSON, or in colours on a terminal.

What is logged are rounds, leases, failures and the process itself: ids, counts and
seconds. A device's key, its id or anything of its update never is.

Everybody else's messages, of the standard `logging`, go through the same formatter.
"""

import logging
import sys
from typing import Any, Literal, cast

import structlog
from structlog.typing import Processor

LogFormat = Literal["auto", "json", "console"]

#: What every line has, whoever wrote it.
_ALL: list[Processor] = [
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
]


def event_log(name: str) -> structlog.stdlib.BoundLogger:
    """A logger of events: `log.info("round_committed", round_id=..., seconds=...)`.

    It hands its events to the standard logger of that name, whose level and
    handlers it obeys.
    """
    return cast(
        structlog.stdlib.BoundLogger,
        structlog.wrap_logger(
            logging.getLogger(name),
            processors=[
                structlog.stdlib.filter_by_level,
                *_ALL,
                structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
            ],
            wrapper_class=structlog.stdlib.BoundLogger,
        ),
    )


def configure_logs(log_format: LogFormat) -> None:
    """Sends all logs of this process to standard error in one format.

    Levels stay what they are.

    Args:
        log_format: "auto" is "console" if standard error is a terminal, else "json".
    """
    if log_format == "auto":
        log_format = "console" if sys.stderr.isatty() else "json"
    last: list[Processor]
    if log_format == "json":
        last = [structlog.processors.format_exc_info, _ordered, structlog.processors.JSONRenderer()]
    else:
        last = [structlog.dev.ConsoleRenderer(timestamp_key="at", colors=sys.stderr.isatty())]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_ALL,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    logging.getLogger().handlers = [handler]


#: For granian's logger, which would otherwise have a format of its own on standard output.
GRANIAN_LOGS = {
    "formatters": {},
    "handlers": {},
    "loggers": {"_granian": {"level": "INFO", "propagate": True}},
}


def _ordered(_logger: Any, _method: str, event: Any) -> Any:
    first = ("at", "level", "event")
    return {
        **{name: event[name] for name in first if name in event},
        **{name: value for name, value in event.items() if name not in first},
    }
