"""What a gateway keeps in its memory for a while, within a bound of bytes: what was used last stays."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

SHARE_OF_ONE = 0.1
"""A value that takes more of the room than this is not kept."""
ENTRY_BYTES = 600
"""What an entry takes beside its value: its key, its place in the table, its size, and when it ends."""


@dataclass(frozen=True, slots=True)
class _Entry:
    value: Any
    size: int
    until_s: float


class Kept:
    """Values that take `room` bytes of memory at most, each until its time is over (seconds of `now`)."""

    def __init__(self, room: int, now: Callable[[], float] = time.monotonic) -> None:
        self._room = room
        self.now = now
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self.bytes = 0
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable) -> tuple[Any, float] | None:
        """A value, and until when it is kept; None if it is not there."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if self.now() >= entry.until_s:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry.value, entry.until_s

    def put(self, key: Hashable, value: Any, size: int, until_s: float) -> None:
        """Keeps a value of `size` bytes in the place of what was there; what was used least makes room."""
        size += ENTRY_BYTES
        if size > self._room * SHARE_OF_ONE:
            return
        if key in self._entries:
            self._drop(key)
        self._entries[key] = _Entry(value, size, until_s)
        self.bytes += size
        while self.bytes > self._room:
            self._drop(next(iter(self._entries)))
            self.evicted += 1

    def _drop(self, key: Hashable) -> None:
        self.bytes -= self._entries.pop(key).size
