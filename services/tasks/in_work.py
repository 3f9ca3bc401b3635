"""Requests that a service works on: each in a task of its own, which a cancellation of the request ends."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import Any, Generic, TypeVar

from services.chassis.context import ServiceContext
from services.tasks.storing import has_result

OutcomeT = TypeVar("OutcomeT")
REMEMBERED_CANCELLATIONS = 1_024


class RequestsInWork(Generic[OutcomeT]):
    """The requests that are in work here, by their ids. Several tasks of one may be."""

    def __init__(self, mesh: ServiceContext) -> None:
        self._mesh = mesh
        self._running: dict[str, set[asyncio.Task[OutcomeT]]] = {}
        self._cancelled: deque[str] = deque(maxlen=REMEMBERED_CANCELLATIONS)

    async def run(self, request_id: str, work: Coroutine[Any, Any, OutcomeT]) -> OutcomeT | None:
        """What the work comes to; None if the request was cancelled meanwhile."""
        task = asyncio.create_task(work)
        siblings = self._running.setdefault(request_id, set())
        siblings.add(task)
        try:
            await asyncio.wait([task])
        finally:
            task.cancel()
            siblings.discard(task)
            if not siblings:
                self._running.pop(request_id, None)
        return None if task.cancelled() else task.result()

    def was_cancelled(self, request_id: str) -> bool:
        """Whether nobody waits for this request any more, as far as that was heard lately."""
        return request_id in self._cancelled

    def cancel(self, request_id: str) -> None:
        """Nobody waits for this request any more."""
        self._cancelled.append(request_id)
        for task in self._running.get(request_id, ()):
            task.cancel()

    async def look_for_cancelled(self) -> None:
        """In case a cancellation was missed: who has a result already waits for no other."""
        for request_id in list(self._running):
            if await has_result(self._mesh, request_id):
                self.cancel(request_id)
