"""Ollama's client against models that really generate."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import httpx
import ollama
import pytest
import pytest_asyncio

from infra.testing.choir_up import up
from services.client.client import Choir
from services.gateway.tests.serving import serving

CONFIG = """
[broker]
port = 0
[metrics]
enabled = false
[summarizer]
replicas = 0
[[ensembles]]
name = "council"
members = ["choir-llama", "choir-qwen"]
strategies = ["weighted", "majority"]
[[agents]]
name = "pair"
threads = 1
models = [
  { name = "choir-qwen", path = "demo:choir-qwen", slots = 2 },
  { name = "choir-llama", path = "demo:choir-llama", slots = 2 },
]
"""
QUESTION = "What is the capital of Italy?"
ASKED = [{"role": "user", "content": QUESTION}]
GREEDY = {"temperature": 0.0, "repeat_penalty": 1.0, "top_k": 40, "top_p": 0.95, "num_predict": 64}


@pytest.fixture(scope="module")
def demo_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a mesh of two demo models, for all tests of this module."""
    state = tmp_path_factory.mktemp("demo")
    config = state / "choir.toml"
    config.write_text(CONFIG)
    with up(state, config) as url:
        yield url


@pytest_asyncio.fixture
async def client(demo_url: str) -> AsyncIterator[ollama.AsyncClient]:
    """Ollama's client of a gateway over these models."""
    async with serving(demo_url) as url, ollama.AsyncClient(url) as client:
        yield client


async def test_a_greedy_text_is_the_one_that_the_mesh_itself_gives(
    client: ollama.AsyncClient, demo_url: str
) -> None:
    async with Choir(demo_url) as mesh:
        native = await mesh.ask(QUESTION, model="choir-qwen", max_tokens=64)
    reply = await client.chat("choir-qwen", ASKED, options=GREEDY)
    assert reply["message"]["content"] == native.text
    parts = [part async for part in await client.chat("choir-qwen", ASKED, options=GREEDY, stream=True)]
    assert "".join(part["message"]["content"] for part in parts) == native.text
    assert parts[-1].eval_count == reply.eval_count == native.answers[0].generated_tokens
    assert parts[-1].prompt_eval_count == native.answers[0].prompt_tokens
    assert parts[-1].eval_duration is not None and parts[-1].prompt_eval_duration


async def test_a_seed_gives_the_same_text_and_none_gives_others(client: ollama.AsyncClient) -> None:
    async def text(**options: float) -> str:
        told = {"temperature": 5.0, "top_k": 0, "top_p": 1.0, "num_predict": 8, **options}
        return str((await client.generate("choir-qwen", "Write something.", options=told)).response)

    assert await text(seed=7) == await text(seed=7)
    assert len({await text() for _ in range(3)}) > 1


async def test_a_schema_is_followed_and_a_text_of_few_tokens_says_that_it_was_cut(
    client: ollama.AsyncClient,
) -> None:
    schema = {"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"]}
    few = await client.chat("choir-qwen", ASKED, format=schema, options={**GREEDY, "num_predict": 1})
    assert (few.done_reason, few.eval_count) == ("length", 1)
    reply = await client.chat("choir-qwen", ASKED, format=schema, options=GREEDY)
    assert reply.done_reason == "stop"
    assert isinstance(json.loads(reply["message"]["content"])["yes"], bool)


async def test_each_token_is_told_with_its_probability(client: ollama.AsyncClient) -> None:
    whole = await client.chat("choir-qwen", ASKED, options=GREEDY, logprobs=True, top_logprobs=3)
    assert whole.logprobs is not None and len(whole.logprobs) >= (whole.eval_count or 0) > 0
    for token in whole.logprobs:
        assert token.logprob <= 0
        assert token.top_logprobs is not None and len(token.top_logprobs) == 3
        assert token.top_logprobs[0].logprob == max(other.logprob for other in token.top_logprobs)
    parts = await client.chat("choir-qwen", ASKED, options=GREEDY, logprobs=True, top_logprobs=3, stream=True)
    streamed = [token.token async for part in parts for token in part.logprobs or ()]
    assert streamed == [token.token for token in whole.logprobs]


async def test_a_prompt_that_does_not_fit_is_refused_before_the_stream_begins(
    client: ollama.AsyncClient,
) -> None:
    long = [{"role": "user", "content": "word " * 4_000}]
    with pytest.raises(ollama.ResponseError, match=r"has \d+ tokens, .* context of \d+") as raised:
        async for _ in await client.chat("choir-qwen", long, stream=True):
            pass
    assert raised.value.status_code == 400


async def test_an_ensemble_of_models_answers_and_counts_the_tokens_of_all(client: ollama.AsyncClient) -> None:
    one = await client.chat("choir-qwen", ASKED, options=GREEDY)
    both = await client.chat("choir/majority", ASKED, options=GREEDY)
    assert both["message"]["content"]
    assert (both.prompt_eval_count or 0) > (one.prompt_eval_count or 0)
    assert (both.eval_count or 0) > 0


async def test_an_ensemble_of_the_users_own_is_a_model_to_every_client(
    client: ollama.AsyncClient, demo_url: str
) -> None:
    names = [model.model for model in (await client.list()).models]
    assert "council:latest" in names
    reply = await client.chat("council", ASKED, options=GREEDY)
    async with Choir(demo_url) as mesh:
        native = await mesh.ask(QUESTION, model="council", max_tokens=64)
    assert reply["message"]["content"] == native.text
    assert [decision.strategy for decision in native.decisions] == ["weighted", "majority"]
    assert {answer.agent for answer in native.answers} == {"choir-llama", "choir-qwen"}


async def test_vectors_have_length_one_and_like_texts_lie_near(client: ollama.AsyncClient) -> None:
    texts = ["What is the capital of Italy?", "What is the capital of Spain?", "Compute 17 times 3."]
    near, nearer, far = (await client.embed("choir-qwen", texts)).embeddings
    assert sum(x * x for x in near) == pytest.approx(1.0)
    assert _dot(near, nearer) > _dot(near, far)
    again = (await client.embed("choir-qwen", texts[0])).embeddings[0]
    assert _dot(near, again) == pytest.approx(1, abs=1e-3)
    old = (await client.embeddings("choir-qwen", texts[0])).embedding
    assert len(old) == len(near)


async def test_a_text_that_is_too_long_for_a_vector_is_cut_where_that_is_told_and_else_refused(
    client: ollama.AsyncClient, demo_url: str
) -> None:
    long = "word " * 4_000
    reply = await client.embed("choir-qwen", long)
    for refused in (client.embed("choir-qwen", long, truncate=False), client.embeddings("choir-qwen", long)):
        with pytest.raises(ollama.ResponseError, match=r"has \d+ tokens; .* holds \d+") as raised:
            await refused
        assert raised.value.status_code == 400

    async with serving(demo_url) as url, httpx.AsyncClient(base_url=url, timeout=180) as http:
        told = await http.post("/api/embed", json={"model": "choir-qwen", "input": [long, "short"]})
        whole = await http.post("/api/embed", json={"model": "choir-qwen", "input": "short"})
    cut, given = map(int, told.headers["choir-truncated"].split(" of "))
    assert 0 < cut < given and told.json()["prompt_eval_count"] == given - cut
    assert given - cut == (reply.prompt_eval_count or 0) + whole.json()["prompt_eval_count"]
    assert "choir-truncated" not in whole.headers


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(one, other, strict=True))


async def test_a_conversation_with_tools_goes_on(client: ollama.AsyncClient) -> None:
    def add(a: int, b: int) -> int:
        """Adds two numbers.

        Args:
          a: the first one
          b: the second one
        """
        return a + b

    call = {"function": {"name": "add", "arguments": {"a": 1, "b": 2}}}
    said: list[dict[str, Any]] = [
        {"role": "user", "content": "Add 1 and 2."},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_name": "add", "content": "3"},
    ]
    reply = await client.chat("choir-qwen", said, tools=[add], options={**GREEDY, "num_predict": 16})
    assert reply.message.role == "assistant"
    assert reply.message.content or reply.message.tool_calls


async def test_a_raw_prompt_is_gone_on_with_as_it_stands(client: ollama.AsyncClient) -> None:
    told = {**GREEDY, "num_predict": 4}
    raw = await client.generate("choir-qwen", "The capital of", options=told, raw=True)
    templated = await client.generate("choir-qwen", "The capital of", options=told)
    assert (raw.prompt_eval_count or 0) < (templated.prompt_eval_count or 0)
