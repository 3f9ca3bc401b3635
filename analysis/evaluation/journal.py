"""The file that a run is kept in while it goes on: a line for each request that has come back.

A line is written as one piece and handed to the operating system before the next request is asked, so
nothing is lost when the process is killed; it is on the disk within a second. A line that was cut off in
a crash of the machine is taken away when the file is opened again.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import TracebackType

from pydantic import ValidationError

from analysis.evaluation.exchange import Exchange
from schemas.errors import InvalidRequest
from services.chassis.plain_words import first_fault

SYNC_INTERVAL_S = 1.0


class Journal:
    """Appends exchanges to a file. Use it as a context manager; `exchanges` are those that it has."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._synced_s = time.monotonic()
        self.exchanges: dict[str, Exchange] = {}

    def __enter__(self) -> Journal:
        self.exchanges = {each.request_id: each for each in read_journal(self._path)}
        _cut_torn_line(self._path)
        self._file = self._path.open("ab", buffering=0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.fsync(self._file.fileno())
        self._file.close()

    def append(self, exchange: Exchange) -> None:
        """Keeps an exchange; after a crash of this process it is there."""
        line = exchange.model_dump_json(exclude_none=True).encode(errors="surrogatepass") + b"\n"
        self._file.write(line)
        self.exchanges[exchange.request_id] = exchange
        if time.monotonic() - self._synced_s > SYNC_INTERVAL_S:
            os.fdatasync(self._file.fileno())
            self._synced_s = time.monotonic()


def read_journal(path: Path) -> list[Exchange]:
    """All exchanges of a file, none if there is no file; InvalidRequest names a line that is damaged.

    A last line without its end was cut off by a crash, and is left out.
    """
    content = path.read_bytes() if path.is_file() else b""
    whole = content[: content.rfind(b"\n") + 1]
    exchanges = []
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            exchanges.append(Exchange.model_validate_json(line))
        except ValidationError as error:
            place, what = first_fault(error, whole="line")
            raise InvalidRequest(
                f"resume: {path} line {number} is damaged ({place}: {what})", field="resume"
            ) from error
    return exchanges


def _cut_torn_line(path: Path) -> None:
    if path.is_file():
        whole = path.read_bytes().rfind(b"\n") + 1
        os.truncate(path, whole)
