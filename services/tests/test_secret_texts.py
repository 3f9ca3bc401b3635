"""What people ask and are answered is in the queue and in the results, as long as these are kept, and nowhere
else.

Words that nobody else says are searched for afterwards: in every stream and bucket, in the event database,
and in whatever the mesh has written into its logs and its state folder.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest_asyncio
from nats.aio.client import Client

from infra.testing.choir_up import connect_inside
from schemas import subjects
from schemas.errors import ChoirError
from schemas.nodes.workers import ManageWorkers, Worker
from services.agent.tests.servers.http_server import Reply, Request, http_server
from services.agent.tests.workers.worker_mesh import SSE, event
from services.chassis.tests.mesh import DEADLINE_S, eventually
from services.client.client import Choir

ASKED, ANSWERED = "zwieselquartz", "murmelbasalt"
PROMPT = f"Where is the {ASKED} kept?\nTell me of {ASKED}."
WITH_TEXTS = (
    subjects.COMMANDS_STREAM,
    subjects.ANSWERS_STREAM,
    subjects.RESULTS_STREAM,
    subjects.TOKENS_STREAM,
    subjects.DEAD_STREAM,
)
"""Streams that carry texts, and keep them for as long as their settings say."""
FAILURES = {"500": "status 500", "400": "status 400", "404": "status 404", "half": "broke off"}
"""How a server fails, and what is told of that."""


class Talkative:
    """A server of the OpenAI API that repeats what it was asked wherever it can; `mood` says how it fails."""

    def __init__(self, mood: str) -> None:
        self.mood = mood
        self.asked = asyncio.Event()

    async def handle(self, request: Request, reply: Reply) -> None:
        """Answers one request."""
        if request.path == "/v1/models":
            await reply.json({"object": "list", "data": [{"id": "talkative", "object": "model"}]})
            return
        self.asked.set()
        if self.mood.isdigit():
            asked = request.json.get("messages", "nothing")
            await reply.json({"error": {"message": f"bad input: {json.dumps(asked)}"}}, int(self.mood))
        else:
            await reply.begin_chunks(SSE)
            for word in (f"it is {ANSWERED}", f" as you say, {PROMPT}"):
                await reply.chunk(event({"delta": {"role": "assistant", "content": word}}))
            if self.mood == "well":
                await reply.chunk(event({"delta": {}, "finish_reason": "stop"}))
                await reply.chunk(b"data: [DONE]\n\n")
                await reply.chunk(b"")


@dataclass
class Talked:
    """A client of a mesh to which talkative servers were added, a model for each mood."""

    choir: Choir
    servers: dict[str, Talkative]


@pytest_asyncio.fixture
async def talked(live_mesh: str) -> AsyncIterator[Talked]:
    servers = {mood: Talkative(mood) for mood in ("well", *FAILURES)}
    async with AsyncExitStack() as stack:
        choir = await stack.enter_async_context(Choir(live_mesh))
        for mood, talkative in servers.items():
            server = await stack.enter_async_context(http_server(talkative.handle))
            worker = Worker(
                id=f"talkative-{mood}",
                type="lm_studio",
                host="127.0.0.1",
                port=server.port,
                model="talkative",
                served_as=f"talkative-{mood}",
            )
            await choir.workers(ManageWorkers(action="add", worker=worker))
            stack.push_async_callback(choir.workers, ManageWorkers(action="remove", id=worker.id))

        async def served() -> bool:
            return {f"talkative-{mood}" for mood in servers} <= {one.name for one in await choir.models()}

        await eventually(served)
        yield Talked(choir, servers)


async def ask_in_many_ways(talked: Talked) -> None:
    """Requests that are answered, and requests that fail in as many ways as can be had."""
    choir = talked.choir
    failing = [await choir.submit(PROMPT, model=f"talkative-{mood}", timeout_s=3600) for mood in FAILURES]
    answered = await choir.ask(PROMPT, model="talkative-well")
    assert answered.text is not None and words_in(answered.text.encode()) == [ASKED, ANSWERED]
    await choir.ask(PROMPT, model="talkative-well", cache=True)
    await choir.ask(PROMPT, model="talkative-well", priority="batch")
    together = await choir.ask(PROMPT, models=("choir-one", "talkative-well"), strategies=("majority",))
    await choir.feedback(together.request_id, ANSWERED)
    await choir.ask(
        PROMPT, model="talkative-well", summarize_with=("choir-one",), summary_prompt=f"{ASKED}: {{text}}"
    )
    async for _ in choir.ask_stream(PROMPT, model="talkative-well"):
        pass
    refused: list[dict[str, Any]] = [
        {"model": "choir-short", "messages": [{"role": "user", "content": PROMPT * 100}]},
        {"model": "talkative-well", "raw": {"text": PROMPT}},
        {"model": "choir-one", "prompt": PROMPT, "grammar": f"root ::= {ASKED}"},
        {"model": "choir-one", "prompt": PROMPT, "json_schema": {"type": ASKED}},
        {"model": "nobody", "prompt": PROMPT},
    ]
    for options in refused:
        with suppress(ChoirError):
            await choir.ask(**options)
    slow = await choir.submit(PROMPT, model="choir-slow")
    for mood in FAILURES:
        await asyncio.wait_for(talked.servers[mood].asked.wait(), DEADLINE_S)
    await eventually(partial(all_told, choir))
    for request_id in (slow, *failing):
        await choir.cancel(request_id)


async def all_told(choir: Choir) -> bool:
    """Whether the event database has each failure."""
    rows = str((await choir.sql("SELECT * FROM errors")).rows)
    return all(what in rows for what in FAILURES.values())


async def contents(client: Client, stream: str) -> bytes:
    """Subjects, headers and payloads of all that a stream holds."""
    held, sequence = b"", 0
    while True:
        wanted = json.dumps({"seq": sequence + 1, "next_by_subj": ">"}).encode()
        reply = await client.request(f"$JS.API.DIRECT.GET.{stream}", wanted, timeout=DEADLINE_S)
        headers = reply.headers or {}
        if "Nats-Sequence" not in headers:
            assert headers.get("Status") == "404", headers
            return held
        sequence = int(headers["Nats-Sequence"])
        held += str(headers).encode() + reply.data


def words_in(held: bytes) -> list[str]:
    """Which of the words are there, in any of the ways in which they may be written."""
    return [word for word in (ASKED, ANSWERED) if word.encode() in held.lower()]


async def test_texts_are_kept_where_requests_and_results_are_and_nowhere_else(
    talked: Talked, live_mesh: str, live_state: Path
) -> None:
    await ask_in_many_ways(talked)
    # In streams and buckets
    inside = await connect_inside(live_mesh)
    names = [str(info.config.name) for info in await inside.jetstream().streams_info()]
    assert {f"KV_{subjects.NODES_BUCKET}", f"KV_{subjects.ATTEMPTS_BUCKET}", *WITH_TEXTS} <= set(names)
    found = {name: words_in(await contents(inside, name)) for name in names}
    await inside.close()
    assert found[subjects.RESULTS_STREAM] == [ASKED, ANSWERED]
    assert {name for name, words in found.items() if words} <= set(WITH_TEXTS)
    # In the event database, table by table
    tables = (await talked.choir.sql("SELECT table_name FROM information_schema.tables")).rows
    for (table,) in tables:
        rows = await talked.choir.sql(f"SELECT * FROM {table}")
        assert (table, words_in(str(rows.rows).encode())) == (table, [])
    assert ("task_retried",) in tables
    # In logs, and in what else lies beside the broker's store
    logs = [live_state / "up.log", *(live_state / "choir").rglob("*")]
    written = {path: path.read_bytes() for path in logs if path.is_file() and "broker" not in path.parts}
    assert any(b"status 500" in held for held in written.values())
    assert {path: words for path, held in written.items() if (words := words_in(held))} == {}
