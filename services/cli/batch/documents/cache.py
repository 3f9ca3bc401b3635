"""The cache of documents' texts: each is read once, and put away after its last prompt."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.cli.batch.documents.files import Document, read_document


class Shelf:
    """Documents in hand. Only those that somebody holds are in memory."""

    def __init__(self) -> None:
        self._texts: dict[str, asyncio.Task[str]] = {}
        self._holders: Counter[str] = Counter()

    @asynccontextmanager
    async def holding(self, document: Document) -> AsyncIterator[asyncio.Future[str]]:
        """The text of a document, to be awaited: read by the first who asks, forgotten by the last.

        Awaiting it raises DocumentUnreadable where there is none.
        """
        name = document.name
        if name not in self._texts:
            self._texts[name] = asyncio.create_task(read_document(document.path))
        self._holders[name] += 1
        try:
            yield asyncio.shield(self._texts[name])
        finally:
            self._holders[name] -= 1
            if not self._holders[name]:
                del self._holders[name]
                await put_away(self._texts.pop(name))


async def put_away(reading: asyncio.Task[str]) -> None:
    """Ends a reading that nobody waits for any more; its error, if it had one, has been seen."""
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
