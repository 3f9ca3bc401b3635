"""Chunks that have come, kept for whoever reads on: of one file, or of all files of one model."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

KEPT_BYTES = 16 * 1024 * 1024
LEAST_CHUNKS = 4


class KeptChunks:
    """The last ones, as many as KEPT_BYTES have room for, and LEAST_CHUNKS in any case; and those that are
    pinned. A chunk is known by its file and its number there."""

    def __init__(self) -> None:
        self._pinned: dict[str, int] = {}
        self._for_good: dict[tuple[str, int], bytes] = {}
        self._last: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._last_bytes = 0

    def pin(self, sha256: str, end: int) -> None:
        """The chunks of a file before `end` are kept for good, those that are here and those that come."""
        self._pinned[sha256] = end
        for key in [key for key in self._last if key[0] == sha256 and key[1] < end]:
            self._for_good[key] = self._last.pop(key)
            self._last_bytes -= len(self._for_good[key])

    def has(self, sha256: str, chunk: int) -> bool:
        """Whether one is here."""
        return (sha256, chunk) in self._for_good or (sha256, chunk) in self._last

    def get(self, sha256: str, chunk: int) -> bytes | None:
        """One of them, if it is here."""
        return self._for_good.get((sha256, chunk)) or self._last.get((sha256, chunk))

    def put(self, sha256: str, chunks: Mapping[int, bytes]) -> None:
        """These were read last: others make room for them."""
        for chunk, content in chunks.items():
            key = sha256, chunk
            if chunk < self._pinned.get(sha256, 0):
                self._for_good[key] = content
                continue
            self._last_bytes += len(content) - len(self._last.pop(key, b""))
            self._last[key] = content
        while self._last_bytes > KEPT_BYTES and len(self._last) > LEAST_CHUNKS:
            _, gone = self._last.popitem(last=False)
            self._last_bytes -= len(gone)
