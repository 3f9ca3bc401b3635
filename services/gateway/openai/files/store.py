"""Where files lie: in buckets of the mesh, in pieces that the broker carries."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable

from nats.aio.client import Client
from pydantic import TypeAdapter, ValidationError

from schemas import subjects
from schemas.errors import UnknownRequest
from schemas.requests.files import FileId, FileRecord
from services.chassis.identity import new_id
from services.chassis.nats.bucket import BYTES, Bucket, messages
from services.gateway.access.caller import current_caller

PIECE_BYTES = 256 * 1024
PREFIX = "file-"
FULL = "there is no room for more files: delete some"
FILE_ID: TypeAdapter[str] = TypeAdapter(FileId)


class FileStore:
    """All files of the mesh; each is seen by the tenant whose it is. `now` is the time for all gateways.

    Raises BrokerUnavailable, and Overloaded if there is no more room.
    """

    def __init__(self, client: Client, now: Callable[[], float]) -> None:
        self._now = now
        self._records = Bucket(client, subjects.FILES_BUCKET, messages(FileRecord), full=FULL)
        self._pieces = Bucket(client, subjects.FILE_PIECES_BUCKET, BYTES, full=FULL)

    async def add(self, data: AsyncIterable[bytes], filename: str, purpose: str) -> FileRecord:
        """Keeps a file; what was kept of one that does not come to its end goes."""
        file_id, number, size = PREFIX + new_id(), 0, 0
        buffer = bytearray()
        try:
            async for part in data:
                buffer += part
                size += len(part)
                while len(buffer) >= PIECE_BYTES:
                    await self.put_piece(file_id, number, bytes(buffer[:PIECE_BYTES]))
                    del buffer[:PIECE_BYTES]
                    number += 1
            if buffer:
                await self.put_piece(file_id, number, bytes(buffer))
        except BaseException:
            await self._forget_pieces(file_id)
            raise
        return await self.put_record(file_id, filename, purpose, size)

    async def put_piece(self, file_id: str, number: int, data: bytes) -> None:
        """A piece of a file whose record may come later. Raises PayloadTooLarge."""
        await self._pieces.put(subjects.file_piece_key(file_id, number), data)

    async def put_record(self, file_id: str, filename: str, purpose: str, size: int) -> FileRecord:
        """What is told of a file whose pieces are there: from now on clients see it."""
        record = FileRecord(
            id=file_id,
            tenant=current_caller.get().tenant,
            filename=filename,
            purpose=purpose,
            size_bytes=size,
            created_at_s=int(self._now()),
        )
        await self._records.put(subjects.file_key(file_id), record)
        return record

    async def get(self, file_id: str) -> FileRecord:
        """What is told of a file. Raises UnknownRequest."""
        try:
            FILE_ID.validate_python(file_id)
        except ValidationError as error:
            raise _unknown(file_id) from error
        record = (await self._records.get(subjects.file_key(file_id))).value
        if record is None or record.tenant != current_caller.get().tenant:
            raise _unknown(file_id)
        return record

    async def all(self) -> list[FileRecord]:
        """All files of the caller's tenant, the newest first."""
        found, tenant = [], current_caller.get().tenant
        for key in await self._records.keys("*"):
            record = (await self._records.get(key)).value
            if record is not None and record.tenant == tenant:
                found.append(record)
        return sorted(found, key=lambda record: (record.created_at_s, record.id), reverse=True)

    async def delete(self, file_id: str) -> None:
        """Forgets a file. Raises UnknownRequest."""
        await self.get(file_id)
        await self._records.purge(subjects.file_key(file_id))
        await self._forget_pieces(file_id)

    async def _forget_pieces(self, file_id: str) -> None:
        for number in await self.pieces(file_id):
            await self._pieces.purge(subjects.file_piece_key(file_id, number))

    async def pieces(self, file_id: str) -> list[int]:
        """The numbers of the pieces that a file has, in order."""
        keys = await self._pieces.keys(subjects.file_piece_keys(file_id))
        return sorted(map(subjects.number_of_piece, keys))

    async def content(self, file_id: str) -> AsyncIterator[bytes]:
        """What is in a file, piece by piece."""
        for number in await self.pieces(file_id):
            entry = await self._pieces.get(subjects.file_piece_key(file_id, number))
            yield entry.value or b""

    async def lines(self, file_id: str, longest: int) -> AsyncIterator[bytes]:
        """The lines of a file that are not blank; of one with more than `longest` bytes one byte more than
        these, and no more of it is in memory than that and a piece."""
        rest = b""
        async for piece in self.content(file_id):
            *ends, last = piece.split(b"\n")
            for end in ends:
                line, rest = (rest + end)[: longest + 1], b""
                if line.strip():
                    yield line
            rest = (rest + last)[: longest + 1]
        if rest.strip():
            yield rest


def _unknown(file_id: str) -> UnknownRequest:
    return UnknownRequest(f"No such File object: {file_id[:80]}", field="id")
