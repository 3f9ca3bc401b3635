"""What a broker has to prove before anything is sent to it."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

NO_NEWS = "returning true from eof_received() has no effect when using ssl"
"""asyncio says so whenever a connection of nats-py over TLS ends: it does not tell its protocol of TLS."""


def trusting(authorities: Path | None, pem: str | None = None) -> ssl.SSLContext:
    """TLS to servers with a certificate of one of the authorities in a PEM file, or in `pem`, or of those
    that this system trusts. OSError or ssl.SSLError if the file cannot be read."""
    logging.getLogger("asyncio").addFilter(_is_news)
    return ssl.create_default_context(cafile=None if authorities is None else str(authorities), cadata=pem)


def _is_news(record: logging.LogRecord) -> bool:
    return record.msg != NO_NEWS
