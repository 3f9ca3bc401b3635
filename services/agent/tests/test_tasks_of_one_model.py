"""Calls, scores, vectors, several texts and tokens through the mesh, from a model of the agent's own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from nats.aio.client import Client

from infra.testing.made_models.variants import demo_model
from infra.testing.mesh import enqueue, generate, open_mesh, settled
from schemas import subjects
from schemas.commands import ChatMessage, Embed, Generate, RawPrompt, Tokenize
from schemas.replies import ErrorReply, Result, TokenChunk, Tokenized
from schemas.requests.chat import Tool
from schemas.requests.sampling import Sampling
from services.agent.service import Agent
from services.agent.settings import AgentSection
from services.agent.tests.workers.worker_mesh import result_of
from services.chassis.context import ServiceContext

SHORT = Sampling(max_tokens=4)
CITY = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]}
IMAGE = {"type": "image", "data": "aaaa"}
LOST = {"name": "a", "parameters": {"$ref": "#/nowhere"}}


@pytest_asyncio.fixture
async def mesh(connection: Client) -> AsyncIterator[ServiceContext]:
    """A mesh with one agent, which serves a demo model under the name alpha."""
    model = {"name": "alpha", "path": str(demo_model("llama")), "slots": 2, "context_tokens": 512}
    section = {"name": "singer", "backend": "llama_cpp", "models": [model], "threads": 1}
    agent = Agent(AgentSection.model_validate(section))
    await agent.start(open_mesh(connection, "agent", "agent-1"))
    await settled(connection)
    yield open_mesh(connection)
    await agent.stop()


async def outcome(mesh: ServiceContext, command: Generate) -> Result:
    await enqueue(mesh, command)
    return await result_of(mesh.client, command.request_id)


def asked(**fields: object) -> Generate:
    return Generate.model_validate({**generate("r1", sampling=SHORT).model_dump(), **fields})


async def test_a_required_call_is_the_result_s_and_is_streamed(
    mesh: ServiceContext, connection: Client
) -> None:
    chunks = await connection.subscribe(subjects.tokens_of("r1"))
    command = asked(
        tools=(Tool(name="weather", parameters=CITY),),
        tool_choice="required",
        sampling=Sampling(max_tokens=60),
        stream=True,
    )
    result = await outcome(mesh, command)
    (call,) = result.tool_calls
    assert (call.name, call.arguments["city"] in ("Paris", "Rome")) == ("weather", True)
    assert (result.text, result.answers[0].tool_calls) == ("", (call,))
    told = TokenChunk.model_validate_json((await chunks.next_msg(60)).data)
    assert (told.tool_calls, told.text) == ((call,), "")


async def test_a_text_is_scored_and_the_score_is_the_stored_result(mesh: ServiceContext) -> None:
    sampling = Sampling(max_tokens=1, logprobs=1, prompt_logprobs=True)
    result = await outcome(mesh, asked(messages=(), raw=RawPrompt(tokens=(5, 9, 11)), sampling=sampling))
    (answer,) = result.answers
    assert [entry["token_id"] for entry in answer.prompt_logprobs] == [5, 9, 11]
    assert "logprob" not in answer.prompt_logprobs[0]
    assert all(entry["logprob"] <= entry["top"][0]["logprob"] <= 0 for entry in answer.prompt_logprobs[1:])
    assert (len(answer.logprobs), answer.prompt_tokens, answer.generated_tokens) == (1, 3, 1)


async def test_texts_become_vectors(mesh: ServiceContext) -> None:
    texts = ("a giraffe", "the moon", "a giraffe")
    result = await outcome(mesh, asked(messages=(), embed=Embed(inputs=texts)))
    (answer,) = result.answers
    assert answer.embeddings is not None and answer.prompt_tokens > 0
    first, second, third = answer.embeddings.numbers
    assert first == third != second
    assert len(first) == answer.embeddings.dimensions == 192


async def test_a_text_that_is_too_long_for_a_vector_is_named(mesh: ServiceContext) -> None:
    embed = Embed(inputs=("short", "long " * 2_000))
    result = await outcome(mesh, asked(messages=(), embed=embed))
    assert result.error is not None
    assert (result.error.code, result.error.field) == ("context_exceeded", "embed.inputs.1")


async def test_several_texts_are_one_answer(mesh: ServiceContext, connection: Client) -> None:
    chunks = await connection.subscribe(subjects.tokens_of("r1"))
    sampling = Sampling(max_tokens=12, temperature=2.0, top_k=0, top_p=1.0, n=3, seed=5)
    result = await outcome(mesh, asked(sampling=sampling, stream=True))
    (answer,) = result.answers
    texts = [answer.text, *(sample.text for sample in answer.samples)]
    assert len(set(texts)) == 3
    streamed = ["", "", ""]
    while not (chunk := TokenChunk.model_validate_json((await chunks.next_msg(60)).data)).done:
        streamed[chunk.sample] += chunk.text
    assert streamed == texts


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("messages.0.images", {"messages": [{"role": "user", "content": [IMAGE]}]}),
        ("sampling.think", {"sampling": {"think": True}}),
        ("tools", {"tools": [LOST], "tool_choice": "required"}),
    ],
)
async def test_what_the_model_cannot_do_is_refused_by_name(
    mesh: ServiceContext, field: str, fields: dict[str, object]
) -> None:
    result = await outcome(mesh, asked(**fields))
    assert result.error is not None
    assert (result.error.code, result.error.field) == ("invalid_request", field)


async def test_tokens_are_told_through_the_agent(mesh: ServiceContext, connection: Client) -> None:
    async def ask(**fields: object) -> bytes:
        request = Tokenize.model_validate({"model": "alpha", **fields})
        return (await connection.request(subjects.tokenizer("alpha"), request.to_bytes(), timeout=60)).data

    tokens = Tokenized.model_validate_json(await ask(text="Hello there")).tokens or ()
    assert Tokenized.model_validate_json(await ask(tokens=tokens)).text == "Hello there"
    asked_ = (ChatMessage(role="user", content="Hello there"),)
    assert len(Tokenized.model_validate_json(await ask(messages=asked_)).tokens or ()) > len(tokens)
    told = Tokenized.model_validate_json(await ask()).tokenizer
    assert told is not None and told.eos == "<|end|>" and told.chat_template
    refused = ErrorReply.model_validate_json(await ask(tokens=[999_999])).error
    assert (refused.code, refused.field) == ("invalid_request", "tokens.0")
