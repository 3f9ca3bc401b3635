"""`/v1/files`: uploaded, listed, told of, read, deleted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from schemas.errors import ChoirError, InvalidRequest, PayloadTooLarge
from schemas.requests.files import FileRecord
from services.gateway.http.body import next_part
from services.gateway.http.context import GatewayContext
from services.gateway.openai.chat.messages import refused
from services.gateway.openai.files.listing import page
from services.gateway.openai.files.multipart import FormPart, boundary_of, parts_of
from services.gateway.openai.files.store import FileStore
from services.gateway.settings import GatewaySection

PURPOSES = ("batch", "user_data")
LONGEST_FIELD = 1_024
LONGEST_NAME = 255
MOST_FILES = 10_000


class Files:
    """The files of clients."""

    def __init__(self, context: GatewayContext, store: FileStore) -> None:
        self._context = context
        self._store = store

    def routes(self) -> tuple[Route, ...]:
        """Where they are served."""
        one = "/v1/files/{id}"
        return (
            Route("/v1/files", self.create, methods=["POST"]),
            Route("/v1/files", self.all, methods=["GET"]),
            Route(one, self.retrieve, methods=["GET"]),
            Route(one, self.delete, methods=["DELETE"]),
            Route(f"{one}/content", self.content, methods=["GET"]),
        )

    async def create(self, request: Request) -> Response:
        """A new file, stored while it arrives."""
        boundary = boundary_of(request.headers.get("content-type", ""))
        limits = self._context.settings
        try:
            async with asyncio.timeout(limits.body_timeout_s):
                record = await self._store_upload(_limited(request, limits), boundary)
        except TimeoutError as error:
            raise InvalidRequest(f"the body was not there within {limits.body_timeout_s:g} s") from error
        return _json(file_object(record))

    async def _store_upload(self, body: AsyncIterator[bytes], boundary: bytes) -> FileRecord:
        """The purpose may come before the file or after it, so a file is told of when all is there; if that
        does not come nothing of it is kept."""
        parts = parts_of(body, boundary)
        fields: dict[str, str] = {}
        stored: FileRecord | None = None
        try:
            part = await anext(parts, None)
            while isinstance(part, FormPart):
                came = _Content(parts)
                if part.name == "file" and stored is None:
                    stored = await self._store.add(came, _name(part), "")
                else:
                    fields[part.name] = await came.text(part.name)
                part = came.next
            if stored is None:
                raise refused("file", "it is missing")
            purpose = fields.get("purpose", "")
            if purpose not in PURPOSES:
                raise refused("purpose", f"it must be {' or '.join(PURPOSES)}")
            return await self._store.put_record(stored.id, stored.filename, purpose, stored.size_bytes)
        except BaseException:
            if stored is not None:
                with suppress(ChoirError):  # the first error is the one to tell
                    await self._store.delete(stored.id)
            raise

    async def all(self, request: Request) -> Response:
        """All files, the newest first, or those with a purpose."""
        purpose = request.query_params.get("purpose")
        found = [record for record in await self._store.all() if record.purpose]
        told = [file_object(record) for record in found if purpose in (None, record.purpose)]
        return _json(page(request, told, MOST_FILES, MOST_FILES))

    async def retrieve(self, request: Request) -> Response:
        """What is told of a file."""
        return _json(file_object(await self._store.get(request.path_params["id"])))

    async def delete(self, request: Request) -> Response:
        """Forgets a file."""
        file_id = request.path_params["id"]
        await self._store.delete(file_id)
        return _json({"id": file_id, "object": "file", "deleted": True})

    async def content(self, request: Request) -> Response:
        """What is in a file."""
        record = await self._store.get(request.path_params["id"])
        return StreamingResponse(self._store.content(record.id), media_type="application/octet-stream")


class _Content:
    """What is in a part, until the `next` one."""

    def __init__(self, parts: AsyncIterator[FormPart | bytes]) -> None:
        self._parts = parts
        self.next: FormPart | bytes | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._parts:
            if isinstance(piece, FormPart):
                self.next = piece
                return
            yield piece

    async def text(self, name: str) -> str:
        """The same as a short text."""
        value = b""
        async for piece in self:
            value += piece
            if len(value) > LONGEST_FIELD:
                raise refused(name[:80], f"it may have {LONGEST_FIELD} bytes at most")
        return value.decode(errors="replace")


async def _limited(request: Request, limits: GatewaySection) -> AsyncIterator[bytes]:
    size, more = 0, True
    while more:
        part, more = await next_part(request)
        size += len(part)
        if size > limits.max_file_bytes:
            raise PayloadTooLarge(
                f"the file has more than {limits.max_file_bytes} bytes: send less, or raise max_file_bytes "
                "in section [gateway]",
                field="file",
            )
        yield part


def _name(part: FormPart) -> str:
    return (part.filename or "file")[:LONGEST_NAME]


def file_object(record: FileRecord) -> dict[str, Any]:
    """A file as clients read it."""
    return {
        "id": record.id,
        "object": "file",
        "bytes": record.size_bytes,
        "created_at": int(record.created_at_s),
        "filename": record.filename,
        "purpose": record.purpose,
        "status": "processed",
        "status_details": None,
        "expires_at": None,
    }


def _json(value: dict[str, Any]) -> Response:
    return Response(to_json(value), media_type="application/json")
