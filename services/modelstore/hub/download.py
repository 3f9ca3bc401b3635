"""One file from a hub: what is missing of it, in order, through the session of the hub's own library.

Nothing that a hub says is believed: neither its redirects, nor its lengths, nor what the bytes are.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from schemas.errors import Cancelled, PullFailed
from services.chassis.logs import get_logger
from services.modelstore.files.partial_file import PartialFile
from services.modelstore.hub.repository import HubFile, token_of
from services.modelstore.settings import ModelStoreSection

if TYPE_CHECKING:
    import httpx

MOST_REDIRECTS = 5
READ_PATIENCE_S = 20.0
PAUSE_S = 0.5
LONGEST_PAUSE_S = 8.0
RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
REDIRECTS = (301, 302, 303, 307, 308)
COME_AGAIN = (408, 425, 429)

log = get_logger("modelstore.hub")


class _TryAgain(Exception):
    """Raised for what may be another way in a moment."""


class Download:
    """Fetches a file into `part`; `advance` is told of every chunk."""

    def __init__(
        self, settings: ModelStoreSection, file: HubFile, part: PartialFile, advance: Callable[[int], None]
    ) -> None:
        self._settings = settings
        self._file = file
        self._part = part
        self._advance = advance
        self._ended = threading.Event()

    def end(self) -> None:
        """It stops soon, with Cancelled."""
        self._ended.set()

    def run(self) -> None:
        """Returns when all of the file is there. Blocks; raises PullFailed, NoRoom, Cancelled."""
        import httpx

        moved_s, pause_s = time.monotonic(), PAUSE_S
        while missing := self._part.missing():
            before = len(missing)
            try:
                self._some(missing[0])
            except (_TryAgain, httpx.TransportError) as error:
                now_s = time.monotonic()
                if len(self._part.missing()) < before:
                    moved_s, pause_s = now_s, PAUSE_S
                why = str(error) or type(error).__name__
                if now_s - moved_s > self._settings.patience_s:
                    raise PullFailed(
                        f"the hub has sent nothing of {self._file.file.name} for "
                        f"{self._settings.patience_s:g} s: {why}. What has come is kept: the same pull "
                        "goes on from there",
                        field="name",
                    ) from error
                log.warning("the hub is asked again", file=self._file.file.name, why=why, after_s=pause_s)
                if self._ended.wait(pause_s):
                    break
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        if self._ended.is_set() and self._part.missing():
            raise Cancelled("the download was broken off")

    def _some(self, chunk: int) -> None:
        """From this chunk on until the hub ends, or all is there."""
        start = chunk * self._part.chunk_bytes
        with opened(self._settings, self._file.url, start, self._part.size_bytes - 1) as response:
            skip = self._check(response, start)
            buffer = bytearray()
            for piece in response.iter_raw():
                if self._ended.is_set():
                    return
                skipped = min(skip, len(piece))
                skip -= skipped
                buffer += piece[skipped:]
                chunk = self._take(chunk, buffer)
        if chunk < self._part.count:
            raise _TryAgain("it ended before the file did")

    def _take(self, chunk: int, buffer: bytearray) -> int:
        """Writes the chunks that are whole; the one that comes next."""
        while chunk < self._part.count and len(buffer) >= self._part.length(chunk):
            length = self._part.length(chunk)
            self._part.write(range(chunk, chunk + 1), bytes(buffer[:length]))
            del buffer[:length]
            self._advance(length)
            chunk += 1
        if chunk == self._part.count and buffer:
            self._part.discard()
            raise PullFailed(
                f"the hub sends more of {self._file.file.name} than the {self._part.size_bytes} bytes that "
                "it said: nothing of it is kept",
                field="size_bytes",
            )
        return chunk

    def _check(self, response: httpx.Response, start: int) -> int:
        """How many bytes come before those that were asked for."""
        if response.status_code in COME_AGAIN or response.status_code >= 500:
            raise _TryAgain(f"it answers {response.status_code}")
        name = self._file.file.name
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if response.status_code not in (200, 206) or kind in ("text/html", "application/xhtml+xml"):
            what = f"status {response.status_code}, {kind or 'no type'}"
            raise PullFailed(
                f"the hub gives no bytes of {name} ({what}): a model that is given to some only needs "
                "[modelstore] token",
                field="name",
            )
        if response.status_code == 200:
            return start
        told = RANGE.fullmatch(response.headers.get("content-range", ""))
        size = str(self._part.size_bytes)
        if told is None or int(told[1]) != start or told[3] not in ("*", size):
            raise PullFailed(
                f"the hub sends another part of {name} than was asked for: "
                f"{response.headers.get('content-range')!r}",
                field="size_bytes",
            )
        return 0


@contextmanager
def opened(settings: ModelStoreSection, url: str, first: int, last: int) -> Iterator[httpx.Response]:
    """The answer of whoever has these bytes of what lies at a hub, after redirects that may be followed.
    Raises PullFailed for one that may not, and httpx.TransportError."""
    from huggingface_hub.utils import build_hf_headers, get_session

    session = get_session()
    home = urlsplit(settings.hub)
    for _ in range(MOST_REDIRECTS + 1):
        at_home = urlsplit(url)[:2] == home[:2]
        token = token_of(settings) if at_home else None
        headers = build_hf_headers(token=token or False, library_name="choir")
        headers |= {"Accept-Encoding": "identity", "Range": f"bytes={first}-{last}"}
        with session.stream(
            "GET", url, headers=headers, follow_redirects=False, timeout=READ_PATIENCE_S
        ) as response:
            if response.status_code not in REDIRECTS:
                yield response
                return
            url = _next(settings, url, response.headers.get("location", ""))
    raise PullFailed(f"the hub leads from one place to the next, {MOST_REDIRECTS} times", field="name")


def _next(settings: ModelStoreSection, url: str, location: str) -> str:
    target = urljoin(url, location)
    parts, home = urlsplit(target), urlsplit(settings.hub)
    same = parts[:2] == home[:2]
    secure = home.scheme == "https" and parts.scheme == "https"
    listed = parts.scheme in ("http", "https") and parts.hostname in settings.redirects
    if not location or not (same or secure or listed):
        raise PullFailed(
            f"the hub leads to {parts.scheme}://{parts.netloc}, where nothing is fetched from: add the "
            "host to redirects in section [modelstore] if that is right",
            field="modelstore.redirects",
        )
    return target
