"""Where responses are kept. Under one id there is one response: what another request says under it changes
nothing of the first, unless nothing came of that one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress

from schemas import subjects
from schemas.errors import ChoirError, RequestIdConflict
from schemas.replies import Result, TokenChunk
from schemas.requests.responses import ResponseRecord
from services.chassis.nats.bucket import WrongRevision
from services.gateway.http.context import GatewayContext
from services.gateway.openai.responses.identity import request_of, unknown


class Keeping:
    """What is kept of one request for a response. `told` is the response that its client is told of: the
    first under its id, if this request is that one again."""

    def __init__(
        self, context: GatewayContext, told: ResponseRecord, made: int | None = None, *, late: bool = False
    ) -> None:
        self.told = told
        self._context = context
        self._made = made
        self._late = late

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        """The mesh is asked within this; it says whether its id stands for this request or for another."""
        try:
            yield
        except RequestIdConflict:
            await self._undo()
            raise
        except ChoirError as error:
            if error.result is not None:
                await self.taken()
            raise

    async def taken(self) -> None:
        """The mesh has taken the request: nothing came of another one under its id."""
        if self._late:
            self._late = False
            await self._context.records.put(key_of(self._context, self.told), self.told)

    async def follow(
        self, replies: AsyncGenerator[TokenChunk | Result, None]
    ) -> AsyncGenerator[TokenChunk | Result, None]:
        """The same replies of the mesh."""
        async with self.asking(), aclosing(replies):
            async for reply in replies:
                await self.taken()
                yield reply

    async def _undo(self) -> None:
        if self._made is not None:
            with suppress(WrongRevision):
                await self._context.records.delete(key_of(self._context, self.told), self._made)


class Records:
    """The responses of all gateways, each for its tenant alone."""

    def __init__(self, context: GatewayContext) -> None:
        self._context = context

    async def get(self, given: str) -> ResponseRecord:
        """The response with the id that a client gives. Raises UnknownRequest."""
        record = (await self._context.records.get(_key(self._context, request_of(given)))).value
        if record is None:
            raise unknown(given)
        return record

    async def delete(self, record: ResponseRecord) -> None:
        """Forgets a response."""
        await self._context.records.delete(key_of(self._context, record))

    async def keep(self, record: ResponseRecord) -> Keeping:
        """Keeps a response, before the mesh is asked, unless there is one under its id."""
        records, key, revision = self._context.records, key_of(self._context, record), 0
        while True:
            try:
                return Keeping(self._context, record, await records.update(key, record, revision))
            except WrongRevision:
                first = await records.get(key)
            if first.value is None:
                revision = first.revision
            elif first.value.ask == record.ask or await self._context.retries.repeats():
                return Keeping(self._context, first.value)
            else:
                return Keeping(self._context, record, late=True)


def key_of(context: GatewayContext, record: ResponseRecord) -> str:
    """Where a response of the current caller lies."""
    return _key(context, record.ask.request_id or "")


def _key(context: GatewayContext, request_id: str) -> str:
    """Another tenant's is not there."""
    return subjects.response_key(subjects.owned_id(context.tenant, request_id))
