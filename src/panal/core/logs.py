"""Our daemons' own logs: one JSON object a line on stderr, for journald. No secrets: every text goes through `redact`."""

from __future__ import annotations

import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from panal.core.redact import redact


def _clean(_logger: object, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = redact(value)
    return event


def configure() -> None:
    """Call once, first thing in a daemon."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _clean,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
