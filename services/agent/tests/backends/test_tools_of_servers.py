"""Tools, thinking, images, vectors and penalties of models behind HTTP servers: what is sent and read."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from schemas.commands import Embed, RawPrompt, Tokenize
from schemas.errors import GenerationFailed, InvalidRequest
from schemas.nodes.workers import WorkerType
from schemas.requests.chat import ChatMessage, Image, NamedTool, Tool, ToolCall
from schemas.requests.sampling import Sampling
from services.agent.backends.servers.ollama import Ollama
from services.agent.backends.servers.openai import OpenAI
from services.agent.backends.servers.presets import parameters
from services.agent.backends.servers.remote import RemoteBackend
from services.agent.settings import ModelSection
from services.agent.tests.servers.http_server import Reply, Request, http_server
from services.agent.tests.servers.ollama_server import NDJSON, line
from services.tasks.generate import Conversation
from services.tasks.token_stream import Piece

SSE = "text/event-stream"
WEATHER = Tool(name="weather", description="of a city", parameters={"type": "object", "properties": {}})
CALL = ToolCall(id="call_1", name="weather", arguments={"city": "Paris"})
TALK = (
    ChatMessage(role="user", content="Rain?", images=(Image(data="aW1hZ2U="),)),
    ChatMessage(role="assistant", tool_calls=(CALL,)),
    ChatMessage(role="tool", content="no", tool_call_id="call_1", name="weather"),
)
ASKED = Conversation(TALK, (WEATHER,))
FULL = Sampling(
    temperature=0.5, presence_penalty=0.5, frequency_penalty=0.25, repeat_penalty=1.2, min_p=0.1, think="low"
)
Handle = Callable[[Request, Reply], Awaitable[None]]


def backend(kind: WorkerType, url: str) -> RemoteBackend:
    server = {"type": kind, "url": url}
    section = ModelSection.model_validate({"name": "tiny", "slots": 2, "server": server})
    return Ollama(section) if kind == "ollama" else OpenAI(section)


def events(*deltas: dict[str, Any], reason: str = "stop") -> Iterator[bytes]:
    """A stream of an OpenAI-compatible server."""
    ends: list[tuple[dict[str, Any], str | None]] = [*((delta, None) for delta in deltas), ({}, reason)]
    for delta, finish in ends:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        head = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "tiny"}
        yield f"data: {json.dumps({**head, 'choices': [choice]})}\n\n".encode()
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    yield f"data: {json.dumps({**head, 'choices': [], 'usage': usage})}\n\n".encode()
    yield b"data: [DONE]\n\n"


def saying(content: str, *chunks: bytes) -> Handle:
    async def handle(_request: Request, reply: Reply) -> None:
        await reply.begin_chunks(content)
        for chunk in chunks:
            await reply.chunk(chunk)
        await reply.chunk(b"")

    return handle


OLLAMA_FRAMES = (
    {"message": {"role": "assistant", "content": "", "thinking": "Look it up. "}, "done": False},
    {
        "message": {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Rome"}}}],
        },
        "done": False,
    },
    {
        "message": {"role": "assistant", "content": ""},
        "done": True,
        "done_reason": "stop",
        "prompt_eval_count": 5,
        "eval_count": 3,
    },
)
PARTS = (
    {"role": "assistant", "content": None, "reasoning_content": "Look it up. "},
    {"tool_calls": [{"index": 0, "id": "x1", "function": {"name": "weather", "arguments": '{"ci'}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": 'ty": "Rome"}'}}]},
)


@pytest.mark.parametrize(
    ("kind", "handle"),
    [
        ("ollama", saying(NDJSON, *(line({"model": "tiny", **frame}) for frame in OLLAMA_FRAMES))),
        ("vllm", saying(SSE, *events(*PARTS, reason="tool_calls"))),
    ],
)
async def test_thinking_and_calls_are_read(kind: WorkerType, handle: Handle) -> None:
    pieces: list[Piece] = []

    async def hear(piece: Piece) -> None:
        pieces.append(piece)

    async with http_server(handle) as server:
        one = backend(kind, server.url)
        generated = await one.generate(ASKED, FULL, hear)
        await one.close()
    assert (generated.text, generated.thinking, generated.finish_reason) == ("", "Look it up. ", "stop")
    assert [(call.name, call.arguments) for call in generated.tool_calls] == [("weather", {"city": "Rome"})]
    assert [piece.thinking for piece in pieces] == ["Look it up. ", ""]
    assert pieces[1].tool_calls == generated.tool_calls


async def test_what_ollama_is_sent_is_what_its_api_says() -> None:
    handle = saying(NDJSON, *(line({"model": "tiny", **frame}) for frame in OLLAMA_FRAMES))
    async with http_server(handle) as server:
        one = backend("ollama", server.url)
        await one.generate(ASKED, FULL, None)
        await one.close()
        (asked,) = server.asked("/api/chat")
    sent = asked.json
    user, assistant, tool = sent["messages"]
    assert (user["images"], user["content"]) == (["aW1hZ2U="], "Rain?")
    assert assistant["tool_calls"][0]["function"] == {"name": "weather", "arguments": {"city": "Paris"}}
    assert (tool["role"], tool["content"], tool["tool_name"]) == ("tool", "no", "weather")
    assert sent["tools"][0]["function"]["name"] == "weather"
    assert sent["think"] == "low"
    options = {name: sent["options"][name] for name in ("presence_penalty", "frequency_penalty", "min_p")}
    assert options == {"presence_penalty": 0.5, "frequency_penalty": 0.25, "min_p": 0.1}
    assert sent["options"]["repeat_penalty"] == 1.2


@pytest.mark.parametrize(
    ("kind", "repeat", "think"),
    [
        ("vllm", "repetition_penalty", {"chat_template_kwargs": {"enable_thinking": True}}),
        ("llama_server", "repeat_penalty", {"chat_template_kwargs": {"enable_thinking": True}}),
    ],
)
async def test_what_a_server_is_sent_is_what_its_kind_takes(
    kind: WorkerType, repeat: str, think: dict[str, Any]
) -> None:
    async with http_server(saying(SSE, *events({"content": "no"}))) as server:
        one = backend(kind, server.url)
        choice = Conversation(TALK, (WEATHER,), NamedTool(name="weather"))
        await one.generate(choice, FULL.model_copy(update={"logit_bias": {7: -100.0}}), None)
        await one.close()
        (asked,) = server.asked("/v1/chat/completions")
    sent = asked.json
    user, assistant, tool = sent["messages"]
    assert user["content"][1]["image_url"]["url"] == "data:image/png;base64,aW1hZ2U="
    assert json.loads(assistant["tool_calls"][0]["function"]["arguments"]) == {"city": "Paris"}
    assert (tool["tool_call_id"], tool["content"]) == ("call_1", "no")
    assert sent["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    assert (sent["presence_penalty"], sent["min_p"], sent[repeat]) == (0.5, 0.1, 1.2)
    assert sent["logit_bias"] == {"7": -100.0}
    assert sent.items() >= think.items()


async def test_arguments_that_are_no_json_are_a_failure() -> None:
    broken = {"tool_calls": [{"index": 0, "id": "x", "function": {"name": "weather", "arguments": "{"}}]}
    async with http_server(saying(SSE, *events(broken))) as server:
        one = backend("vllm", server.url)
        with pytest.raises(GenerationFailed, match="no JSON"):
            await one.generate(ASKED, Sampling(), None)
        await one.close()


@pytest.mark.parametrize(
    ("kind", "prompt", "sampling", "field"),
    [
        ("ollama", Conversation(TALK, (WEATHER,), "required"), Sampling(), "tool_choice"),
        ("ollama", ASKED, Sampling(logit_bias={1: 1.0}), "sampling.logit_bias"),
        ("ollama", RawPrompt(text="Once"), Sampling(), "raw"),
        ("openai", RawPrompt(text="Once"), Sampling(), "raw"),
        ("openai", ASKED, Sampling(min_p=0.1), "sampling.min_p"),
        ("exo", ASKED, Sampling(repeat_penalty=1.2), "sampling.repeat_penalty"),
        ("exo", ASKED, Sampling(think=True), "sampling.think"),
        ("vllm", ASKED, Sampling(logprobs=1, prompt_logprobs=True), "sampling.prompt_logprobs"),
    ],
)
async def test_what_a_server_cannot_do_is_refused_by_name(
    kind: WorkerType, prompt: Any, sampling: Sampling, field: str
) -> None:
    one = backend(kind, "http://127.0.0.1:1")
    with pytest.raises(InvalidRequest) as refused:
        await one.generate(prompt, sampling, None)
    assert refused.value.field == field
    with pytest.raises(InvalidRequest) as unknown:
        await one.tokenize(Tokenize(model="tiny", text="a"))
    assert unknown.value.field == "model"
    await one.close()


def test_what_clients_of_ollama_send_without_a_thought_is_no_reason_to_refuse() -> None:
    said = Sampling(temperature=0.8, top_k=40, repeat_penalty=1.1)
    assert not {"top_k", "repeat_penalty"} & parameters("openai", said).keys()


async def test_several_texts_are_several_requests_under_seeds_of_their_own() -> None:
    async with http_server(saying(SSE, *events({"content": "no"}))) as server:
        one = backend("vllm", server.url)
        generated = await one.generate(TALK, Sampling(n=3, seed=7), None)
        await one.close()
        seeds = sorted(asked.json["seed"] for asked in server.asked("/v1/chat/completions"))
    assert [generated.text, *(sample.text for sample in generated.samples)] == ["no", "no", "no"]
    assert (seeds, generated.generated_tokens) == ([7, 8, 9], 9)


@pytest.mark.parametrize(
    ("data", "right"),
    [
        ([[0.5, 1.0], [2.0, 3.0]], True),
        ([[0.5, 1.0]], False),
        ([[0.5, 1.0], [2.0]], False),
        ([[], []], False),
    ],
)
async def test_vectors_are_one_for_each_text(data: list[list[float]], right: bool) -> None:
    async def handle(_request: Request, reply: Reply) -> None:
        rows = [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(data)]
        usage = {"prompt_tokens": 4, "total_tokens": 4}
        await reply.json({"object": "list", "model": "tiny", "data": rows[::-1], "usage": usage})

    async with http_server(handle) as server:
        one = backend("vllm", server.url)
        embed = Embed(inputs=("one", "two"), dimensions=2)
        if right:
            generated = await one.embed(embed)
            assert generated.embeddings is not None
            assert generated.embeddings.numbers == ((0.5, 1.0), (2.0, 3.0))
            assert generated.prompt_tokens == 4
            assert server.asked("/v1/embeddings")[0].json["dimensions"] == 2
        else:
            with pytest.raises(GenerationFailed, match="one vector"):
                await one.embed(embed)
        await one.close()
