"""Batches of the official client, over a real mesh of instant models."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import openai
import pytest
from nats.aio.client import Client
from openai import AsyncOpenAI
from openai.types import Batch

from infra.testing.choir_up import connect_inside
from schemas import subjects
from schemas.errors import Cancelled
from schemas.requests.files import BatchRecord
from services.chassis.nats.bucket import Bucket, messages
from services.client import Choir
from services.gateway.openai.batches import runner
from services.gateway.openai.batches.line import LINE_ROOM
from services.gateway.openai.files.store import PIECE_BYTES, FileStore
from services.gateway.openai.tests.test_retries import results_in
from services.gateway.requests.identity import id_of_key
from services.gateway.tests.serving import accepted, serving

CHAT = "/v1/chat/completions"
DEADLINE_S = 180.0
WRONG_BY_S = 30 * 3_600.0


def line(number: int, model: str = "choir-one", url: str = CHAT, **body: Any) -> dict[str, Any]:
    asked = {"model": model, "messages": [{"role": "user", "content": f"Question {number}"}], **body}
    return {"custom_id": f"q-{number}", "method": "POST", "url": url, "body": asked}


async def begin(client: AsyncOpenAI, *lines: dict[str, Any], endpoint: Any = CHAT) -> Batch:
    content = b"\n".join(json.dumps(one).encode() for one in lines)
    file = await client.files.create(file=("lines.jsonl", content), purpose="batch")
    return await client.batches.create(
        input_file_id=file.id, endpoint=endpoint, completion_window="24h", metadata={"chapter": "2"}
    )


async def until(client: AsyncOpenAI, batch: Batch, there: Callable[[Batch], bool]) -> Batch:
    """The batch when it is as it should be."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            if there(batch := await client.batches.retrieve(batch.id)):
                return batch
            await asyncio.sleep(0.1)


async def until_results(connection: Client, count: int) -> None:
    """Returns when the mesh has so many."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            if await results_in(connection) >= count:
                return
            await asyncio.sleep(0.01)


def over(batch: Batch) -> bool:
    return batch.status in ("completed", "failed", "cancelled", "expired")


async def lines_of(client: AsyncOpenAI, file_id: str | None) -> list[dict[str, Any]]:
    assert file_id is not None
    return [json.loads(one) for one in (await client.files.content(file_id)).text.splitlines()]


async def test_a_batch_has_an_answer_or_an_error_for_each_line(client: AsyncOpenAI) -> None:
    begun = await begin(client, line(1), line(2, "nobody"), line(3, stream=True), line(4, temperature="hot"))
    batch = await until(client, begun, over)

    assert (begun.status, batch.status, batch.metadata) == ("validating", "completed", {"chapter": "2"})
    assert batch.request_counts is not None
    assert batch.request_counts.to_dict() == {"total": 4, "completed": 2, "failed": 2}
    answers = await lines_of(client, batch.output_file_id)
    assert [answer["custom_id"] for answer in answers] == ["q-1", "q-3"]
    assert [answer["response"]["status_code"] for answer in answers] == [200, 200]
    said = answers[0]["response"]["body"]["choices"][0]["message"]["content"]
    assert (said, answers[0]["error"]) == ("Paris", None)
    unknown, wrong = await lines_of(client, batch.error_file_id)
    assert unknown["response"]["body"]["error"]["code"] == "model_not_found"
    assert (wrong["response"]["status_code"], wrong["response"]["body"]["error"]["param"]) == (
        400,
        "temperature",
    )
    assert batch.id in [one.id async for one in client.batches.list(limit=1)]


async def test_an_input_that_cannot_be_fails_and_says_which_line(client: AsyncOpenAI) -> None:
    begun = await begin(client, line(1), line(1), line(2, url="/v1/embeddings"), {"custom_id": "x"})
    batch = await until(client, begun, over)

    assert (batch.status, batch.output_file_id) == ("failed", None)
    assert batch.errors is not None
    faults = [(fault.line, fault.code) for fault in batch.errors.data or ()]
    assert faults == [(2, "duplicate_custom_id"), (3, "mismatched_url"), (4, "invalid_json_line")]
    empty = await until(client, await begin(client), over)
    assert empty.status == "failed"


async def test_a_batch_goes_on_on_another_gateway_and_asks_nothing_twice(live_mesh: str) -> None:
    lines = 40
    asked = [line(number, "choir-four") for number in range(lines)]
    connection = await connect_inside(live_mesh)
    before = await results_in(connection)

    # Given a batch whose gateway goes when some lines are done
    async with (
        serving(live_mesh) as first,
        AsyncOpenAI(base_url=f"{first}/v1", api_key="none", max_retries=0) as client,
    ):
        begun = await begin(client, *asked)
        await until_results(connection, before + 2)
    records = Bucket(connection, subjects.BATCHES_BUCKET, messages(BatchRecord))
    left = (await records.get(begun.id)).value
    assert left is not None
    assert (left.status, left.runner) == ("in_progress", None)

    # When another one goes on with it
    async with (
        serving(live_mesh) as second,
        AsyncOpenAI(base_url=f"{second}/v1", api_key="none", max_retries=0) as client,
    ):
        batch = await until(client, begun, over)
        answers = await lines_of(client, batch.output_file_id)

    # Then each line has one answer, and no work was done twice
    assert [answer["custom_id"] for answer in answers] == [f"q-{number}" for number in range(lines)]
    assert await results_in(connection) - before == lines
    await connection.close()


async def test_a_batch_of_a_gateway_that_is_silent_is_taken_over(
    client: AsyncOpenAI, live_mesh: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = await until(client, await begin(client, line(1)), over)
    connection = await connect_inside(live_mesh)
    records = Bucket(connection, subjects.BATCHES_BUCKET, messages(BatchRecord))
    record = (await records.get(begun.id)).value
    assert record is not None

    # Given a batch that belongs to a gateway which was killed
    monkeypatch.setattr(runner, "SILENCE_S", 0.5)
    fresh = {"id": f"{begun.id}-killed", "status": "validating", "runner": "gateway-killed"}
    await records.put(f"{begun.id}-killed", record.model_copy(update=fresh))

    # Then another one works on it, when it has been silent for a while
    batch = await until(client, begun.model_copy(update={"id": f"{begun.id}-killed"}), over)
    assert (batch.status, batch.request_counts and batch.request_counts.completed) == ("completed", 1)
    await connection.close()


@pytest.mark.parametrize("ahead_s", [WRONG_BY_S, -WRONG_BY_S])
async def test_a_batch_ends_by_the_time_of_all_gateways(
    live_mesh: str, monkeypatch: pytest.MonkeyPatch, ahead_s: float
) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + ahead_s)
    connection = await connect_inside(live_mesh)
    records = Bucket(connection, subjects.BATCHES_BUCKET, messages(BatchRecord))
    async with (
        serving(live_mesh) as url,
        AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        # Given a gateway on a host whose clock is wrong by more than a batch has, when it has a new one
        begun = await begin(client, line(1))
        record = (await records.get(begun.id)).value
        assert record is not None
        batch = await until(client, begun, over)
        # Then that has its day
        assert batch.status == "completed"
        now_s, times = real(), (batch.created_at, batch.in_progress_at, batch.completed_at)
        assert times == pytest.approx((now_s,) * 3, abs=DEADLINE_S)
        assert batch.expires_at == pytest.approx(now_s + 24 * 3_600, abs=DEADLINE_S)
        # And one of another gateway ends when its time is over, and not before
        model = "choir-one" if ahead_s > 0 else "choir-slow"
        content = json.dumps(line(1, model)).encode()
        file = await client.files.create(file=("lines.jsonl", content), purpose="batch")
        fields = {"input_file_id": file.id, "expires_at_s": real() + ahead_s / 2}
        other = record.model_copy(update={"id": f"{begun.id}-other", **fields})
        await records.put(other.id, other)
        batch = await until(client, begun.model_copy(update={"id": other.id}), over)
        assert batch.status == ("completed" if ahead_s > 0 else "expired")
        assert file.created_at == pytest.approx(real(), abs=DEADLINE_S)
    await connection.close()


async def test_a_line_that_is_too_long_is_told_and_not_held_in_memory(live_mesh: str) -> None:
    async with (
        serving(live_mesh, max_body_bytes=2_048) as url,
        AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        batch = await until(client, await begin(client, line(1), line(2, user="x" * 2 * LINE_ROOM)), over)
    assert batch.status == "failed" and batch.errors is not None and batch.errors.data is not None
    assert [(fault.line, fault.code) for fault in batch.errors.data] == [(2, "invalid_json_line")]
    assert "max_body_bytes" in (batch.errors.data[0].message or "")

    connection = await connect_inside(live_mesh)
    store = FileStore(connection, time.time)

    async def content() -> AsyncIterator[bytes]:
        for piece in (b"\n \n1", b"2" * 3 * PIECE_BYTES, b"3\n4", b"5", b"\n\n6"):
            yield piece

    file = await store.add(content(), "lines.jsonl", "batch")
    assert [each async for each in store.lines(file.id, 4)] == [b"12222", b"45", b"6"]
    await store.delete(file.id)
    await connection.close()


async def test_a_batch_that_is_cancelled_gives_up_its_work(client: AsyncOpenAI, live_mesh: str) -> None:
    begun = await begin(client, line(1), line(2, "choir-slow"))
    request_id = id_of_key(f"{begun.id}/q-2", CHAT, "")
    async with Choir(live_mesh) as mesh:
        await accepted(mesh, request_id)
        await until(client, begun, lambda one: bool(one.request_counts and one.request_counts.completed))

        cancelling = await client.batches.cancel(begun.id)
        batch = await until(client, begun, over)

        assert (cancelling.status, batch.status) == ("cancelling", "cancelled")
        assert [answer["custom_id"] for answer in await lines_of(client, batch.output_file_id)] == ["q-1"]
        with pytest.raises(Cancelled):
            await mesh.fetch(request_id, wait_s=30)
        assert (await client.batches.cancel(begun.id)).status == "cancelled"


async def test_the_work_of_a_batch_lets_others_pass(client: AsyncOpenAI, live_mesh: str) -> None:
    connection = await connect_inside(live_mesh)

    async def queued() -> set[str]:
        """The subjects of the batch work that waits."""
        waiting = subjects.all_generates("batch", "choir-slow")
        info = await connection.jetstream().stream_info(subjects.COMMANDS_STREAM, subjects_filter=waiting)
        return set(info.state.subjects or {})

    left = await queued()  # by tests before this one, for the sweeper
    begun = await begin(client, line(1, "choir-slow"))
    request_id = id_of_key(f"{begun.id}/q-1", CHAT, "")
    async with Choir(live_mesh) as mesh:
        await accepted(mesh, request_id)
    more = await queued() - left
    await connection.close()
    await client.batches.cancel(begun.id)
    await until(client, begun, over)

    assert len(more) == 1


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input_file_id": "file-nobody", "endpoint": CHAT, "completion_window": "24h"}, "input_file_id"),
        ({"input_file_id": "../etc", "endpoint": CHAT, "completion_window": "24h"}, "input_file_id"),
        ({"input_file_id": "file-x", "endpoint": "/v1/files", "completion_window": "24h"}, "endpoint"),
        ({"input_file_id": "file-x", "endpoint": CHAT, "completion_window": "1h"}, "completion_window"),
    ],
)
async def test_what_cannot_be_is_named(gateway: str, body: dict[str, str], param: str) -> None:
    async with httpx.AsyncClient(base_url=gateway, timeout=60) as http:
        reply = await http.post("/v1/batches", json=body)

    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)


async def test_what_nobody_knows_is_not_found(client: AsyncOpenAI) -> None:
    for unknown in ("batch_nobody", "x y", "batch_a.b"):
        with pytest.raises(openai.NotFoundError):
            await client.batches.retrieve(unknown)
        with pytest.raises(openai.NotFoundError):
            await client.batches.cancel(unknown)
