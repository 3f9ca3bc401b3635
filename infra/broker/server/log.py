"""What the server of the embedded broker says: in its log, and to whoever connects."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from infra.host.children.processes import last_lines

INFO_DEADLINE_S = 2.0
RELOADED, NOT_RELOADED = "Reloaded server configuration", "Failed to reload server configuration"
WRITE_ERRORS = (b"no space left on device", b"ritical write error", b"JetStream out of resources")


class ServerLog:
    """The log of the server of the folder `directory`."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "broker.log"
        self._errors = directory / "broker.err"
        self._read = 0
        self._write_error: str | None = None

    def begin(self) -> None:
        """A server is about to start: what an earlier one said of its end is kept, apart from its log."""
        self._read, self._write_error = 0, None
        if self.path.exists():
            self.path.replace(self.path.with_name("broker.log.before"))

    def tail(self) -> str:
        """The last lines."""
        return last_lines(self._errors, self.path)

    def has(self, text: str) -> bool:
        """Whether this server has said `text`."""
        return self.path.is_file() and text in self.path.read_text(errors="replace")

    def from_here(self) -> Callable[[], str]:
        """A function that gives what has been said since now."""
        said = self.path.stat().st_size if self.path.is_file() else 0

        def since() -> str:
            with self.path.open("rb") as log:
                end = log.seek(0, os.SEEK_END)
                log.seek(said if said <= end else 0)  # the server may have begun a new file
                return log.read().decode(errors="replace")

        return since

    @property
    def write_error(self) -> str | None:
        """What the server has logged, since its start, of a stream that it could not write; None: nothing."""
        if self._write_error is None and self.path.is_file():
            with self.path.open("rb") as log:
                if self._read > log.seek(0, os.SEEK_END):
                    self._read = 0  # the server has begun a new file
                log.seek(self._read)
                new = log.read()
            whole = new[: new.rfind(b"\n") + 1]
            self._read += len(whole)
            failed = (line for line in whole.splitlines() if any(sign in line for sign in WRITE_ERRORS))
            self._write_error = next((line.decode(errors="replace").strip() for line in failed), None)
        return self._write_error


def unverified() -> ssl.SSLContext:
    """TLS to a server of our own, which proves by other means who it is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def greeting(host: str, port: int, *, tls: bool) -> dict[str, Any]:
    """What the server says of itself when a client connects; empty if nothing in time."""
    try:
        async with asyncio.timeout(INFO_DEADLINE_S):
            reader, writer = await asyncio.open_connection(host, port, ssl=unverified() if tls else None)
            try:
                line = await reader.readline()
            finally:
                writer.close()
                await writer.wait_closed()
    except (OSError, TimeoutError):
        return {}
    info: dict[str, Any] = json.loads(line.removeprefix(b"INFO "))
    return info
