"""A gateway before a router that is older than itself."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from nats.aio.client import Client
from nats.aio.msg import Msg

from schemas import subjects
from schemas.errors import InvalidRequest
from schemas.replies import Answer, ErrorReply, ModelsReply, ModelSummary, Result
from schemas.subjects import LOCAL_TENANT, door
from services.gateway.tests.serving import serving


@pytest_asyncio.fixture(params=["cache", "cache_settled"])
async def older(connection: Client, request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """What a router says that was made before there was this field."""
    unknown: str = request.param

    async def ask(msg: Msg) -> None:
        asked = json.loads(msg.data)
        if unknown in asked:
            error = InvalidRequest(f"{unknown}: it is not known", field=unknown)
            reply = ErrorReply(error=error.body())
            await connection.publish(msg.reply, reply.to_bytes(), headers={subjects.KIND_HEADER: "error"})
            return
        request_id = asked["request_id"]
        answer = Answer(
            request_id=request_id,
            agent="one",
            model="one",
            instance="one",
            text="Paris",
            finish_reason="stop",
        )
        result = Result(
            request_id=request_id,
            fingerprint="f",
            topology="single",
            text="Paris",
            answers=(answer,),
            accepted_at_s=time.time(),
            completed_at_s=time.time(),
        )
        await connection.publish(msg.reply, result.to_bytes(), headers={subjects.KIND_HEADER: "result"})

    async def models(msg: Msg) -> None:
        one = ModelSummary(name="one", agents=("one",), slots=1, busy=0)
        await connection.publish(msg.reply, ModelsReply(models=(one,)).to_bytes())

    for subject, answers in ((subjects.ASK, ask), (subjects.STREAM_ASK, ask), (subjects.MODELS, models)):
        await connection.subscribe(door(LOCAL_TENANT, subject), cb=answers)
    await connection.flush()
    yield


async def test_a_router_that_knows_nothing_of_the_cache_is_asked_as_before(
    older: None, mesh_url: str
) -> None:
    body = {"model": "one", "messages": [{"role": "user", "content": "Where?"}], "temperature": 0}
    async with serving(mesh_url) as url, httpx.AsyncClient(base_url=url, timeout=30) as client:
        whole = await client.post("/v1/chat/completions", json=body)
        assert whole.json()["choices"][0]["message"]["content"] == "Paris"
        assert whole.headers["choir-cache"] == "off"
        stream = await client.post("/v1/chat/completions", json={**body, "seed": 1, "stream": True})
        assert "Paris" in stream.text and stream.text.endswith("data: [DONE]\n\n")
        asked = {"model": "one", "input": "Where?", "temperature": 0}
        response = await client.post("/v1/responses", json=asked)
        assert response.json()["output"][0]["content"][0]["text"] == "Paris"
        assert response.headers["choir-cache"] == "off"
