"""What people ask and are answered is in the queue and in the results, as long as these are kept, and nowhere
else.

Words that nobody else says are searched for afterwards: in every stream and bucket, in the event database,
and in whatever the mesh has written into its logs and its state folder. So are API keys, and what is shown as
one, which a gateway was sent in headers, cookies, queries and paths: these are nowhere at all.
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

import httpx
import pytest
import pytest_asyncio
from nats.aio.client import Client

from infra.testing.choir_up import connect_inside
from infra.testing.mesh import DEADLINE_S, eventually
from schemas import subjects
from schemas.errors import ChoirError
from schemas.nodes.workers import ManageWorkers, Worker
from schemas.requests.dead_letters import ManageDeadLetters
from schemas.requests.keys import KEY_SCOPES, ApiKey, ManageKeys, digest_of, new_secret
from services.agent.tests.servers.http_server import Reply, Request, http_server
from services.agent.tests.workers.worker_mesh import SSE, event
from services.client.client import Choir
from services.gateway.tests.serving import serving

ASKED, ANSWERED = "zwieselquartz", "murmelbasalt"
PROMPT = f"Where is the {ASKED} kept?\nTell me of {ASKED}."
SECRET = "gneisgeheimnis"
"""In whatever is shown to a gateway as a key, and is none."""
WITH_TEXTS = (
    subjects.COMMANDS_STREAM,
    subjects.ANSWERS_STREAM,
    subjects.RESULTS_STREAM,
    subjects.TOKENS_STREAM,
    subjects.DEAD_STREAM,
    subjects.bucket_stream(subjects.RESPONSES_BUCKET),
)
"""Streams that carry texts, and keep them for as long as their settings say; what a response of the Responses
API was asked is kept for a day, for its client comes back."""
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


async def ask_a_gateway(http: httpx.AsyncClient, secret: str) -> None:
    """Requests over HTTP with a key, and with what may be one, in all places where people put them."""
    key = {"authorization": f"Bearer {secret}"}
    chat = {"model": "talkative-well", "messages": [{"role": "user", "content": PROMPT}]}
    for path, body, status in (
        ("/v1/chat/completions", chat, 200),
        ("/v1/chat/completions", {**chat, "stream": True}, 200),
        ("/v1/chat/completions", {**chat, "model": "talkative-500", "timeout": 1}, None),
        ("/v1/chat/completions", {**chat, "model": "nobody"}, 404),
        ("/v1/chat/completions", {**chat, "messages": [{"role": PROMPT, "content": 1}]}, 400),
        ("/v1/chat/completions", {**chat, "model": "choir-short", "max_tokens": 10**6, "n": PROMPT}, 400),
        ("/v1/completions", {"model": "choir-one", "prompt": PROMPT}, 200),
        ("/v1/responses", {"model": "choir-one", "input": PROMPT}, 200),
        ("/v1/messages", {**chat, "max_tokens": 9}, 200),
        ("/api/generate", {"model": "choir-one", "prompt": PROMPT, "stream": False}, 200),
        ("/api/chat", {**chat, "model": PROMPT}, 404),
        ("/dashboard/ask/answers", {"prompt": PROMPT, "models": ["choir-one"]}, 200),
    ):
        if status is None:
            with suppress(httpx.TimeoutException):  # the mesh tries again for a while: this client hangs up
                await http.post(path, json=body, headers=key, timeout=1.0)
            continue
        reply = await http.post(path, json=body, headers=key)
        assert reply.status_code == status, (path, reply.text)
    wrong = f"choir-k-{SECRET}-0000000000000000000000000000000000000000000"
    for headers in (
        {"authorization": f"Bearer {wrong}"},
        {"authorization": f"Basic {SECRET}"},
        {"x-api-key": wrong},
        {"api-key": f"sk-{SECRET}"},
        {"cookie": f"choir_key={wrong}; choir_login={SECRET}"},
    ):
        for path in ("/v1/models", "/dashboard/admin", "/nothing"):
            assert (await http.get(path, headers=headers)).status_code in (401, 404)
    for said in (wrong, f"sk-{SECRET}", secret):
        for path in (
            f"/v1/models?api_key={said}",
            f"/api/tags?key={said}&token={said}",
            f"/v1/models/{said}",
            f"/v1/responses/{said}",
            f"/api/distributed/requests/{said}",
            f"/{said}/v1/models",
            f"/nothing/{said}%0A{said}",
            f"/dashboard/requests/{said}",
        ):
            for headers in ({}, key):
                reply = await http.get(path, headers=headers)
                assert reply.status_code in (200, 400, 401, 404), (path, reply.text)
    await http.post("/dashboard/login", json={"key": wrong})
    await http.post("/dashboard/login", json={"key": secret})


async def one_dies(http: httpx.AsyncClient, inside: Client, secret: str) -> None:
    """A command that a request to a gateway has made, spoilt on its way: it is kept in DEAD."""
    key = {"authorization": f"Bearer {secret}"}
    body = {"model": "choir-slow", "input": PROMPT, "background": True}
    made = (await http.post("/v1/responses", json=body, headers=key)).json()["id"]
    request_id = made.removeprefix("resp_").encode()

    async def spoil() -> bool:
        sequence = 0
        while True:
            wanted = json.dumps({"seq": sequence + 1, "next_by_subj": ">"}).encode()
            asked = f"$JS.API.DIRECT.GET.{subjects.COMMANDS_STREAM}"
            reply = await inside.request(asked, wanted, timeout=DEADLINE_S)
            said = reply.headers or {}
            if "Nats-Sequence" not in said:
                return False
            sequence = int(said["Nats-Sequence"])
            if request_id in reply.data:
                own = {name: value for name, value in said.items() if not name.startswith("Nats-")}
                await inside.publish(said["Nats-Subject"], reply.data + b"}", headers=own)
                return True

    async def has_died() -> bool:
        return words_in(await contents(inside, subjects.DEAD_STREAM)) == [ASKED]

    await eventually(spoil)
    await eventually(has_died)
    reply = await http.post(f"/v1/responses/{made}/cancel", headers=key)
    assert reply.status_code == 200, reply.text


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
    talked: Talked, live_mesh: str, live_state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await ask_in_many_ways(talked)
    secret = new_secret("k-texts")
    of_key = secret.rpartition("k-texts-")[2].encode()
    key = ApiKey(
        id="k-texts", digest=digest_of(secret), ending=secret[-4:], created_at_s=0.0, scopes=KEY_SCOPES
    )
    await talked.choir.keys(ManageKeys(action="add", key=key))
    async with (
        serving(live_mesh, access_log=True, keys_required=True, retry_grace_s=0.0) as url,
        httpx.AsyncClient(base_url=url, timeout=DEADLINE_S) as http,
    ):

        async def is_known() -> bool:
            reply = await http.get("/v1/models", headers={"authorization": f"Bearer {secret}"})
            return reply.status_code == 200

        await eventually(is_known)
        await ask_a_gateway(http, secret)
        inside = await connect_inside(live_mesh)
        await one_dies(http, inside, secret)
    await talked.choir.keys(ManageKeys(action="remove", id="k-texts"))
    # In the gateway's log, which has a line for each request
    said = capsys.readouterr()
    logged = (said.out + said.err).encode()
    assert b"/v1/chat/completions" in logged and b"answered" in logged and b"(not told)" in logged
    assert words_in(logged) == [] and SECRET.encode() not in logged and of_key not in logged
    # In streams and buckets
    names = [str(info.config.name) for info in await inside.jetstream().streams_info()]
    assert {f"KV_{subjects.NODES_BUCKET}", f"KV_{subjects.ATTEMPTS_BUCKET}", *WITH_TEXTS} <= set(names)
    held = {name: await contents(inside, name) for name in names}
    for letter in (await talked.choir.dead_letters(ManageDeadLetters())).letters:
        await talked.choir.dead_letters(ManageDeadLetters(action="drop", sequence=letter.sequence))
    await inside.close()
    found = {name: words_in(content) for name, content in held.items()}
    assert [name for name, content in held.items() if SECRET.encode() in content or of_key in content] == []
    assert found[subjects.RESULTS_STREAM] == [ASKED, ANSWERED]
    assert found[subjects.DEAD_STREAM] == [ASKED]
    assert {name for name, words in found.items() if words} <= set(WITH_TEXTS)
    # In the event database, table by table
    tables = (await talked.choir.sql("SELECT table_name FROM information_schema.tables")).rows
    for (table,) in tables:
        rows = await talked.choir.sql(f"SELECT * FROM {table}")
        assert (table, words_in(str(rows.rows).encode())) == (table, [])
        assert SECRET not in str(rows.rows) and of_key.decode() not in str(rows.rows), table
    assert ("task_retried",) in tables
    # In logs, and in what else lies beside the broker's store
    logs = [live_state / "up.log", *(live_state / "choir").rglob("*")]
    written = {path: path.read_bytes() for path in logs if path.is_file() and "broker" not in path.parts}
    assert any(b"status 500" in text for text in written.values())
    assert {path: words for path, text in written.items() if (words := words_in(text))} == {}
    assert [path for path, text in written.items() if SECRET.encode() in text or of_key in text] == []
