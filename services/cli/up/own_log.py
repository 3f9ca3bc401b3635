"""What this process itself logs, beside the services that it runs: it goes where their lines go."""

from __future__ import annotations

import logging
from typing import Any

import structlog

from infra.host.children.forward import Forward

INSTANCE = "supervisor"


class ForwardingLogger:
    """A logger of structlog's; every level is a line that is forwarded."""

    def __init__(self, forward: Forward) -> None:
        self._forward = forward

    def msg(self, message: str) -> None:
        """Forwards an entry, which has several lines if it carries a traceback."""
        for line in message.splitlines():
            self._forward(INSTANCE, line)

    log = debug = info = warning = error = critical = exception = fatal = msg


def forward_own_log(forward: Forward) -> None:
    """Has all loggers of this process write to `forward` from now on."""

    def logger(*_: Any) -> ForwardingLogger:
        return ForwardingLogger(forward)

    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer(colors=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=logger,
    )
