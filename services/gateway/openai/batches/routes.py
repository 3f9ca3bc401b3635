"""`/v1/batches`: begun, told of, listed, cancelled, on any gateway."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from schemas import subjects
from schemas.errors import UnknownRequest
from schemas.requests.files import ENDED, BatchId, BatchRecord
from services.chassis.identity import new_id
from services.chassis.nats.bucket import Bucket, messages
from services.gateway.access.caller import current_caller
from services.gateway.http.body import Body, checked, read_json, takes
from services.gateway.http.context import GatewayContext
from services.gateway.openai.batches.batch_object import batch_object
from services.gateway.openai.chat.messages import refused
from services.gateway.openai.files.listing import page
from services.gateway.openai.files.store import FileStore

PREFIX = "batch_"
WINDOW = "24h"
WINDOW_S = 24 * 3600.0
USUAL_PAGE, LONGEST_PAGE = 20, 100
BATCH_ID: TypeAdapter[str] = TypeAdapter(BatchId)
Endpoint = Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"]


class BatchBody(Body):
    """What a new batch is to be."""

    input_file_id: str
    endpoint: Endpoint
    completion_window: Literal["24h"]
    metadata: dict[str, str] | None = Field(default=None, max_length=16)


class Batches:
    """The batches of clients."""

    def __init__(self, context: GatewayContext, files: FileStore) -> None:
        self._context = context
        self._files = files
        self._records = Bucket(context.client, subjects.BATCHES_BUCKET, messages(BatchRecord))

    def routes(self) -> tuple[Route, ...]:
        """Where they are served."""
        return (
            Route("/v1/batches", self.create, methods=["POST"]),
            Route("/v1/batches", self.all, methods=["GET"]),
            Route("/v1/batches/{id}", self.retrieve, methods=["GET"]),
            Route("/v1/batches/{id}/cancel", self.cancel, methods=["POST"]),
        )

    @takes(BatchBody)
    async def create(self, request: Request) -> Response:
        """A new batch, which some gateway takes up at once."""
        body = checked(await read_json(request, self._context.settings), BatchBody)
        try:
            file = await self._files.get(body.input_file_id)
        except UnknownRequest as error:
            raise refused("input_file_id", "there is no such file") from error
        if file.purpose != "batch":
            raise refused("input_file_id", "that file has another purpose than batch")
        now_s, caller = self._context.now(), current_caller.get()
        record = BatchRecord(
            id=PREFIX + new_id(),
            tenant=caller.tenant,
            key_id=None if caller.key is None else caller.key.id,
            endpoint=body.endpoint,
            input_file_id=file.id,
            metadata=body.metadata or {},
            created_at_s=now_s,
            expires_at_s=now_s + WINDOW_S,
        )
        await self._records.put(subjects.file_key(record.id), record)
        self._context.batch_waits.set()
        return _json(batch_object(record))

    async def retrieve(self, request: Request) -> Response:
        """How far a batch has come."""
        return _json(batch_object(await self._get(request.path_params["id"])))

    async def all(self, request: Request) -> Response:
        """All batches of the caller's tenant, the newest first."""
        found, tenant = [], current_caller.get().tenant
        for key in await self._records.keys("*"):
            record = (await self._records.get(key)).value
            if record is not None and record.tenant == tenant:
                found.append(record)
        found.sort(key=lambda record: (record.created_at_s, record.id), reverse=True)
        return _json(page(request, [batch_object(record) for record in found], USUAL_PAGE, LONGEST_PAGE))

    async def cancel(self, request: Request) -> Response:
        """Gives a batch up, unless it has ended; what there is of it is kept."""
        record = await self._get(request.path_params["id"])

        def cancelling(now: BatchRecord | None) -> BatchRecord:
            now = now or record
            if now.status in ENDED or now.status == "cancelling":
                return now
            return now.model_copy(update={"status": "cancelling", "cancelling_at_s": self._context.now()})

        record = await self._records.change(subjects.file_key(record.id), cancelling)
        self._context.batch_waits.set()
        return _json(batch_object(record))

    async def _get(self, batch_id: str) -> BatchRecord:
        try:
            BATCH_ID.validate_python(batch_id)
        except ValidationError as error:
            raise _unknown(batch_id) from error
        record = (await self._records.get(subjects.file_key(batch_id))).value
        if record is None or record.tenant != current_caller.get().tenant:
            raise _unknown(batch_id)
        return record


def _unknown(batch_id: str) -> UnknownRequest:
    return UnknownRequest(f"No batch found with id '{batch_id[:80]}'.", field="id")


def _json(value: dict[str, Any]) -> Response:
    return Response(to_json(value), media_type="application/json")
