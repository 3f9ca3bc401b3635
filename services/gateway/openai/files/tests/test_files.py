"""Files of the official client, over a real mesh."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import openai
import pytest
from openai import AsyncOpenAI

from infra.testing.choir_up import connect_inside
from schemas import subjects
from schemas.requests.files import FileRecord
from services.chassis.nats.bucket import Bucket, messages
from services.gateway.openai.files.store import PIECE_BYTES
from services.gateway.tests.raw import DEADLINE_S, connected
from services.gateway.tests.serving import serving

CONTENT = bytes(range(256)) * (PIECE_BYTES // 256 * 2 + 3)


async def test_a_file_is_read_on_another_gateway_as_it_was_sent_until_it_is_deleted(
    client: AsyncOpenAI, live_mesh: str
) -> None:
    made = await client.files.create(file=("größe.jsonl", CONTENT), purpose="batch")

    assert (made.bytes, made.filename, made.purpose) == (len(CONTENT), "größe.jsonl", "batch")
    async with (
        serving(live_mesh) as other,
        AsyncOpenAI(base_url=f"{other}/v1", api_key="none", max_retries=0) as second,
    ):
        assert (await second.files.content(made.id)).content == CONTENT
        assert await second.files.retrieve(made.id) == made
        assert made.id in [file.id async for file in second.files.list(purpose="batch")]
        assert (await second.files.delete(made.id)).deleted
    for gone in (client.files.retrieve(made.id), client.files.content(made.id), client.files.delete(made.id)):
        with pytest.raises(openai.NotFoundError):
            await gone
    connection = await connect_inside(live_mesh)
    pieces = await connection.jetstream().stream_info(subjects.bucket_stream(subjects.FILE_PIECES_BUCKET))
    await connection.close()
    # The marks of pieces that were removed go after a second.
    assert pieces.state.bytes < PIECE_BYTES


async def test_files_are_listed_in_pages(client: AsyncOpenAI) -> None:
    made = [await client.files.create(file=(f"{n}.jsonl", b"{}"), purpose="batch") for n in range(3)]

    found = [file.id async for file in client.files.list(limit=2, order="asc")]

    assert [one.id for one in made] == [one for one in found if one in {each.id for each in made}]


async def test_a_file_that_is_too_large_leaves_nothing(live_mesh: str) -> None:
    async with (
        serving(live_mesh, max_file_bytes=2 * PIECE_BYTES) as gateway,
        AsyncOpenAI(base_url=f"{gateway}/v1", api_key="none", max_retries=0) as client,
    ):
        before = [file.id async for file in client.files.list()]
        with pytest.raises(openai.APIStatusError, match="max_file_bytes") as large:
            await client.files.create(file=("a.jsonl", CONTENT), purpose="batch")
        assert large.value.status_code == 413
        assert [file.id async for file in client.files.list()] == before


async def test_an_upload_that_fails_behind_its_file_leaves_nothing(gateway: str, live_mesh: str) -> None:
    purpose = b'\r\n--x\r\ncontent-disposition: form-data; name="purpose"\r\n\r\n'
    headers = {"content-type": "multipart/form-data; boundary=x"}
    connection = await connect_inside(live_mesh)
    records = Bucket(connection, subjects.FILES_BUCKET, messages(FileRecord))

    async def kept() -> set[str]:
        return {key for key in await records.keys("*") if (await records.get(key)).value is not None}

    before = await kept()
    async with httpx.AsyncClient(base_url=gateway, timeout=60) as http:
        for rest in (purpose + b"a" * 2_000 + b"\r\n--x--\r\n", purpose, purpose + b"none\r\n--x--\r\n"):
            reply = await http.post("/v1/files", content=HEAD + CONTENT + rest, headers=headers)
            assert reply.status_code == 400, reply.text
            assert await kept() <= before, rest[-20:]
    pieces = await connection.jetstream().stream_info(subjects.bucket_stream(subjects.FILE_PIECES_BUCKET))
    await connection.close()
    assert pieces.state.bytes < PIECE_BYTES


async def test_an_upload_that_is_half_closed_is_told_so(gateway: str) -> None:
    head = b"POST /v1/files HTTP/1.1\r\nhost: localhost\r\ncontent-type: multipart/form-data; boundary=x\r\n"
    async with connected(httpx.URL(gateway)) as (reader, writer), asyncio.timeout(DEADLINE_S):
        writer.write(head + b"content-length: 5000\r\n\r\n" + HEAD + CONTENT[:100])
        writer.write_eof()
        assert b"the body ended before its end" in await reader.read()


HEAD = b'--x\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'


@pytest.mark.parametrize(
    ("kind", "body", "words"),
    [
        ("application/json", b"{}", "multipart"),
        ("multipart/form-data", b"", "boundary"),
        ("multipart/form-data; boundary=x", b"", "ended"),
        ("multipart/form-data; boundary=x", HEAD + b"abc", "ended"),
        ("multipart/form-data; boundary=x", b"--x--\r\n", "file"),
        ("multipart/form-data; boundary=x", HEAD + b"abc\r\n--x--\r\n", "purpose"),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\nabc\r\n--x--\r\n", "name"),
        ("multipart/form-data; boundary=x", b"--xy\r\n", "boundary"),
        ("multipart/form-data; boundary=x", b"--x\r\n" + b"a" * 9_000, "too long"),
    ],
)
async def test_a_body_that_is_none_is_refused_in_words(
    gateway: str, kind: str, body: bytes, words: str
) -> None:
    async with httpx.AsyncClient(base_url=gateway, timeout=60) as http:
        reply = await http.post("/v1/files", content=body, headers={"content-type": kind})
        wrong = await http.get("/v1/files?limit=-1")

    assert (reply.status_code, wrong.status_code) == (400, 400)
    assert words in reply.json()["error"]["message"]


@pytest.mark.parametrize("step", [1, 7, 64])
async def test_a_body_may_come_in_any_pieces(gateway: str, step: int) -> None:
    tail = b'\r\n--x\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--x--\r\n'
    content = b"\r\n--\r\n--y\r\n-" * 3
    body = HEAD + content + tail

    async def in_pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), step):
            yield body[start : start + step]
            await asyncio.sleep(0)

    headers = {"content-type": "multipart/form-data; boundary=x"}
    async with httpx.AsyncClient(base_url=gateway, timeout=60) as http:
        made = (await http.post("/v1/files", content=in_pieces(), headers=headers)).json()
        assert (await http.get(f"/v1/files/{made['id']}/content")).content == content
