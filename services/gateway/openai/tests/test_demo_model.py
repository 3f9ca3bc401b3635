"""The official client before a real model: scoring, tokens, vectors, calls, forms, probabilities."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import llama_cpp
import numpy as np
import pytest
import pytest_asyncio
from llama_cpp import Llama
from openai import AsyncOpenAI

from infra.demo_models.checksums import model_path
from infra.testing.choir_up import up
from services.gateway.tests.serving import serving

MODEL = "choir-llama"
CONFIG = f"""
[broker]
port = 0
[metrics]
enabled = false
[[agents]]
name = "{MODEL}"
models = [{{ name = "{MODEL}", path = "demo:{MODEL}", slots = 2 }}]
"""
CITY: dict[str, object] = {
    "type": "object",
    "properties": {"city": {"enum": ["Lima", "Paris"]}},
    "required": ["city"],
}
NOISE = 0.01
"""A probability depends a little on what else the processor computes with it."""


@pytest.fixture(scope="module")
def model_mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a mesh of one real model."""
    state = tmp_path_factory.mktemp("state")
    config = state / "choir.toml"
    config.write_text(CONFIG)
    with up(state, config) as url:
        yield url


@pytest_asyncio.fixture
async def address(model_mesh: str) -> AsyncIterator[str]:
    """The address of a gateway."""
    async with serving(model_mesh) as url:
        yield url


@pytest_asyncio.fixture
async def asking(address: str) -> AsyncIterator[AsyncOpenAI]:
    """A client of it."""
    async with AsyncOpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


async def test_a_given_text_has_the_score_that_llama_cpp_gives_it(address: str) -> None:
    # Given token ids, as lm-evaluation-harness gets them from the server, and no other tokenizer
    async with httpx.AsyncClient(base_url=address, timeout=60) as http:
        info = (await http.get("/tokenizer_info")).json()
        text = "Question: What is the capital of France?\nAnswer: Paris"
        tokens = (await http.post("/tokenize", json={"prompt": text, "add_special_tokens": False})).json()
        control = await http.post(
            "/tokenize", json={"prompt": info["eos_token"], "add_special_tokens": False}
        )
        back = (await http.post("/detokenize", json={"tokens": tokens["tokens"]})).json()

        # When they are scored as it does
        prompts = [tokens["tokens"], tokens["tokens"][:4]]
        body = {"model": MODEL, "prompt": prompts, "temperature": 0}
        scoring = {"max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": True}
        choices = (await http.post("/v1/completions", json={**body, **scoring})).json()["choices"]

    # Then there is one more token than were given, and each has the probability that the model file gives it
    assert len(control.json()["tokens"]) == 1
    assert back["prompt"] == text
    assert [choice["index"] for choice in choices] == [0, 1]
    for choice, given in zip(choices, prompts, strict=True):
        told = choice["logprobs"]["token_logprobs"]
        assert told[0] is None
        assert len(told) == len(given) + 1
        expected = logprobs_of(model_path(MODEL), given)
        assert all(math.isclose(a, b, abs_tol=NOISE) for a, b in zip(told[1:-1], expected, strict=True))
        top = choice["logprobs"]["top_logprobs"]
        assert all(own <= max(best.values()) for own, best in zip(told[1:], top[1:], strict=True))


def logprobs_of(path: Path, tokens: list[int]) -> list[float]:
    """What llama-cpp-python says of each token but the first, with the engine's form of keys and values."""
    form = {"type_k": llama_cpp.GGML_TYPE_Q8_0, "type_v": llama_cpp.GGML_TYPE_F16, "flash_attn": True}
    llama = Llama(str(path), logits_all=True, n_ctx=256, n_threads=1, verbose=False, **form)
    try:
        llama.eval(tokens)
        logits = np.array(llama.scores[: len(tokens)], dtype=np.float64)
    finally:
        llama.close()
    logits -= logits.max(axis=1, keepdims=True)
    table = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return [float(table[place][token]) for place, token in enumerate(tokens[1:])]


async def test_vectors_of_equal_texts_are_equal(asking: AsyncOpenAI) -> None:
    reply = await asking.embeddings.create(model=MODEL, input=["Paris", "Nairobi", "Paris"])
    numbers = await asking.embeddings.create(model=MODEL, input="Paris", encoding_format="float")

    paris, nairobi, again = (entry.embedding for entry in reply.data)
    assert paris == again
    assert paris != nairobi
    assert numbers.data[0].embedding == pytest.approx(paris)


async def test_a_call_that_is_required_comes_with_its_arguments(asking: AsyncOpenAI) -> None:
    async with asking.chat.completions.stream(
        model=MODEL,
        messages=[{"role": "user", "content": "What is the weather in Lima?"}],
        tools=[{"type": "function", "function": {"name": "weather", "parameters": CITY, "strict": True}}],
        tool_choice="required",
        temperature=0,
    ) as coming:
        completion = await coming.get_final_completion()

    [choice] = completion.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls is not None
    function = choice.message.tool_calls[0].function
    assert function.name == "weather"
    assert json.loads(function.arguments)["city"] in ("Lima", "Paris")


async def test_an_answer_has_the_form_and_the_probabilities_that_were_asked_for(asking: AsyncOpenAI) -> None:
    completion = await asking.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "What is the capital of France?"}],
        response_format={"type": "json_schema", "json_schema": {"name": "city", "schema": CITY}},
        logprobs=True,
        top_logprobs=2,
        temperature=0,
        n=2,
    )

    assert len(completion.choices) == 2
    for choice in completion.choices:
        assert json.loads(choice.message.content or "")["city"] in ("Lima", "Paris")
        assert choice.logprobs is not None
        assert choice.logprobs.content is not None
        assert len(choice.logprobs.content[0].top_logprobs) == 2


async def test_a_message_tells_which_stop_sequence_ended_it(address: str) -> None:
    asked = {"model": MODEL, "max_tokens": 24, "temperature": 0, "stop_sequences": ["zzz", "a"]}
    body = {**asked, "messages": [{"role": "user", "content": "What is the capital of France?"}]}
    async with httpx.AsyncClient(base_url=address, timeout=60) as http:
        whole = (await http.post("/v1/messages", json=body)).json()
        stream = (await http.post("/v1/messages", json={**body, "stream": True})).text
    assert (whole["stop_reason"], whole["stop_sequence"]) == ("stop_sequence", "a")
    assert '"stop_reason":"stop_sequence","stop_sequence":"a"' in stream
