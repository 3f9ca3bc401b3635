"""The log of `choir up` as a file of bounded size."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path

NAME = "up.log"
MOST_BYTES = 8 * 1024 * 1024
OLDER_FILES = 2
NAME_WIDTH = 18


class LogFile:
    """Lines of all services, in `up.log` of a folder; what is older is in `up.log.1` and `up.log.2`.

    The file is made with the first line. `problem` says why a line could not be written; the mesh runs on.
    `written` is whether there has been a line.
    """

    def __init__(self, folder: Path, most_bytes: int = MOST_BYTES) -> None:
        self.path = folder / NAME
        self.written = False
        self.problem: str | None = None
        self._handler = _Handler(self, most_bytes)

    def write(self, instance: str, line: str) -> None:
        """Adds a line; one that the supervisor says itself gets a time, as services write theirs."""
        self.written = True
        said = line if instance != "choir" else f"{datetime.now(UTC).isoformat(timespec='seconds')} {line}"
        self._handler.handle(logging.makeLogRecord({"msg": f"{instance:<{NAME_WIDTH}} | {said}"}))

    def close(self) -> None:
        """Nothing is written any more."""
        self._handler.close()


class _Handler(RotatingFileHandler):
    """Tells of the first failure; the default would print a traceback for each line."""

    def __init__(self, log: LogFile, most_bytes: int) -> None:
        super().__init__(log.path, maxBytes=most_bytes, backupCount=OLDER_FILES, encoding="utf-8", delay=True)
        self._log = log

    def handleError(self, record: logging.LogRecord) -> None:
        """Keeps what went wrong, for people to be told."""
        self._log.problem = self._log.problem or str(sys.exc_info()[1])
