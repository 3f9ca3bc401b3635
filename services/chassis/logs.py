"""Structured logs: one line per event, without the text of prompts or answers."""

from __future__ import annotations

import logging
import sys

import structlog

from services.chassis.identity import Identity
from services.chassis.settings import LoggingSection

QUIET_LIBRARIES = ("nats", "httpx", "httpcore", "openai", "gguf")
"""Below a warning they say what they send or write: addresses, files, and at worst prompts."""

_TEXT_FIELDS = ("prompt", "text", "messages", "answer")
_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}


def configure_logs(settings: LoggingSection, identity: Identity) -> None:
    """Sends structlog and the standard library's loggers to stderr, as JSON or for people."""
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _without_texts,
        _on_one_line,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=identity.service, instance=identity.instance)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _renderer(settings),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name in QUIET_LIBRARIES:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


def _renderer(settings: LoggingSection) -> structlog.typing.Processor:
    if settings.format == "json":
        return structlog.processors.JSONRenderer()
    return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())


def _without_texts(
    _logger: structlog.typing.WrappedLogger, _name: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """A last net: what users write is not for the logs, even if a call passes it."""
    for field in _TEXT_FIELDS:
        if field in event:
            event[field] = "(not logged)"
    return event


def _on_one_line(
    _logger: structlog.typing.WrappedLogger, _name: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """What strangers write may hold line breaks, to look like entries of their own, and commands for a
    terminal: they are spelled out. Tracebacks are added later, and have their lines."""
    for field, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[field] = value.translate(_ESCAPES)
    return event


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of a module."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger(name)
    return logger
