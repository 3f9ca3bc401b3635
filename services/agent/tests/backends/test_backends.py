"""One contract for all backends: what an agent may rely on, whatever generates."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from infra.testing.made_models.variants import split_model
from schemas.commands import ChatMessage
from schemas.errors import ContextExceeded, ModelUnusable
from schemas.requests.sampling import Sampling
from services.agent.backends import BACKENDS, Backend, backend_opener
from services.agent.backends.instant import Instant
from services.agent.settings import BackendName, ModelSection
from services.agent.tests.conftest import CONTEXT_TOKENS
from services.agent.tests.servers.http_server import http_server
from services.agent.tests.servers.llama_server import LlamaServer
from services.agent.tests.servers.ollama_server import ollama
from services.tasks.token_stream import Piece

PATIENCE_S = 180.0
WORDS = "one two three four five six seven eight"
SCHEMA = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}


@pytest_asyncio.fixture(params=sorted(BACKENDS))
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    """A loaded model of each backend; those that ask a server have one."""
    async with opened(request.param, request) as backend:
        yield backend


@pytest_asyncio.fixture(params=sorted(set(BACKENDS) - {"instant"}))
async def sampled(request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    """A loaded model of each backend that samples: `instant` has one reply, whatever it is told."""
    async with opened(request.param, request) as backend:
        yield backend


@asynccontextmanager
async def opened(name: BackendName, request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    async with AsyncExitStack() as stack:
        section = await section_for(name, request, stack)
        backend = await backend_opener(name)(section, 1)
        yield backend
        await backend.close()


async def section_for(
    name: BackendName, request: pytest.FixtureRequest, stack: AsyncExitStack
) -> ModelSection:
    """A model of two narrow layers, or of eight words, behind any backend."""
    settings: dict[str, Any] = {"name": "tiny", "slots": 2, "context_tokens": CONTEXT_TOKENS}
    match name:
        case "llama_cpp":
            settings["path"] = request.getfixturevalue("model_path")
        case "instant":
            settings |= {"reply": WORDS, "delay_ms": 40}
        case "openai":
            server = request.getfixturevalue("openai_server")
            settings["server"] = {"type": "llama_cpp_python", "url": server.url}
        case "ollama":
            server = await stack.enter_async_context(http_server(ollama))
            settings["server"] = {"type": "ollama", "url": server.url}
    return ModelSection.model_validate(settings)


def say(text: str) -> tuple[ChatMessage, ...]:
    return (ChatMessage(role="user", content=text),)


class Listener:
    """Takes the pieces of a text; one that `holds` never returns from the first."""

    def __init__(self, *, holds: bool = False) -> None:
        self.pieces: list[str] = []
        self.began = asyncio.Event()
        self._holds = holds

    async def hear(self, piece: Piece) -> None:
        self.pieces.append(piece.text)
        self.began.set()
        if self._holds:
            await asyncio.Event().wait()


async def test_it_generates_a_text_and_says_how_it_ended(backend: Backend) -> None:
    generated = await backend.generate(say("hi"), Sampling(max_tokens=6), None)
    assert generated.text
    assert generated.finish_reason in ("stop", "length")
    assert 1 <= generated.generated_tokens <= 6
    assert generated.prompt_tokens >= 1
    assert generated.eval_ns > 0


@pytest.mark.parametrize("kind", ["exo", "lm_studio", "openai", "vllm"])
async def test_what_is_sent_to_every_kind_of_server_is_understood_by_a_real_one(
    kind: str, openai_server: LlamaServer
) -> None:
    """The server is llama_cpp.server, whatever the kind: what the others answer is not known here. It knows
    `max_tokens` only, so a text asked for as `openai` says it fills the context."""
    server = {"type": kind, "url": openai_server.url}
    settings = {"name": "tiny", "slots": 2, "context_tokens": CONTEXT_TOKENS, "server": server}
    backend = await backend_opener("openai")(ModelSection.model_validate(settings), 1)
    listener = Listener()
    try:
        generated = await backend.generate(say("hi"), Sampling(max_tokens=6), listener.hear)
    finally:
        await backend.close()
    assert generated.text and generated.text == "".join(listener.pieces)
    assert generated.finish_reason == "length"
    assert (generated.generated_tokens == 6) == (kind != "openai")


async def test_the_pieces_are_the_text(backend: Backend) -> None:
    listener = Listener()
    generated = await backend.generate(say("hi"), Sampling(max_tokens=6), listener.hear)
    assert "".join(listener.pieces) == generated.text
    assert len(listener.pieces) > 1


async def test_the_text_is_the_same_whether_somebody_listens_or_not(backend: Backend) -> None:
    sampling = Sampling(max_tokens=6, seed=3)
    heard = await backend.generate(say("hi"), sampling, Listener().hear)
    unheard = await backend.generate(say("hi"), sampling, None)
    assert heard.text == unheard.text


async def test_no_more_tokens_than_were_asked_for(backend: Backend) -> None:
    generated = await backend.generate(say("hi"), Sampling(max_tokens=2), None)
    assert (generated.generated_tokens, generated.finish_reason) == (2, "length")


async def test_two_at_a_time_do_not_mix(backend: Backend) -> None:
    sampling = Sampling(max_tokens=6)
    alone = [await backend.generate(say(text), sampling, None) for text in ("hi", "good day")]
    listeners = Listener(), Listener()
    both = await asyncio.gather(
        *(
            backend.generate(say(text), sampling, listener.hear)
            for text, listener in zip(("hi", "good day"), listeners, strict=True)
        )
    )
    assert [generated.text for generated in both] == [generated.text for generated in alone]
    assert ["".join(listener.pieces) for listener in listeners] == [generated.text for generated in both]


async def test_a_cancelled_generation_stops_and_leaves_the_backend_as_it_was(backend: Backend) -> None:
    before = await backend.generate(say("hi"), Sampling(max_tokens=6), None)
    listener = Listener(holds=True)  # so that it does not end before it is cancelled
    long = asyncio.create_task(backend.generate(say("hi"), Sampling(max_tokens=200), listener.hear))
    await asyncio.wait_for(listener.began.wait(), PATIENCE_S)
    long.cancel()
    with pytest.raises(asyncio.CancelledError):
        await long
    heard = len(listener.pieces)
    after = await asyncio.wait_for(backend.generate(say("hi"), Sampling(max_tokens=6), None), PATIENCE_S)
    assert after.text == before.text
    assert len(listener.pieces) == heard


async def test_a_prompt_is_counted_as_it_is_read(backend: Backend) -> None:
    count = await backend.count_tokens(say("hi"))
    longer = await backend.count_tokens(say("hi " * 20))
    generated = await backend.generate(say("hi"), Sampling(max_tokens=1), None)
    assert 1 <= count.prompt_tokens < longer.prompt_tokens
    assert count.prompt_tokens == generated.prompt_tokens
    assert count.context_tokens == CONTEXT_TOKENS == backend.info.context_tokens


async def test_a_prompt_over_the_context_is_refused_with_the_error_that_says_so(backend: Backend) -> None:
    with pytest.raises(ContextExceeded, match=str(CONTEXT_TOKENS)):
        await backend.generate(say("hi " * 2 * CONTEXT_TOKENS), Sampling(max_tokens=1), None)


async def test_speed_is_what_was_measured_or_nothing(backend: Backend) -> None:
    await backend.generate(say("hi"), Sampling(max_tokens=6), None)
    speed = backend.tokens_per_s()
    assert speed is None if isinstance(backend, Instant) else speed is not None and speed > 0


async def test_a_seed_decides_what_comes_at_a_temperature(sampled: Backend) -> None:
    texts = [
        (await sampled.generate(say("hi"), Sampling(max_tokens=8, temperature=1.5, seed=seed), None)).text
        for seed in (7, 7, 8)
    ]
    assert texts[0] == texts[1] != texts[2]


async def test_a_stop_string_ends_the_text_and_is_not_part_of_it(sampled: Backend) -> None:
    whole = await sampled.generate(say("hi"), Sampling(max_tokens=6), None)
    stop = whole.text.split()[1] if len(whole.text.split()) > 1 else whole.text[2:]
    stopped = await sampled.generate(say("hi"), Sampling(max_tokens=6, stop=(stop,)), None)
    assert stop not in stopped.text
    assert whole.text.startswith(stopped.text.rstrip())
    assert stopped.finish_reason == "stop"


async def test_each_token_comes_with_its_log_probability_if_asked_for(sampled: Backend) -> None:
    generated = await sampled.generate(say("hi"), Sampling(max_tokens=3, logprobs=2), None)
    assert len(generated.logprobs) == generated.generated_tokens == 3
    for token in generated.logprobs:
        assert token["logprob"] <= 0
        assert len(token["top"]) == 2
        assert {"text", "logprob"} <= set(token["top"][0])
    assert "".join(token["text"] for token in generated.logprobs).strip() == generated.text.strip()


async def test_a_schema_makes_the_text_json(sampled: Backend) -> None:
    sampling = Sampling(max_tokens=200, json_schema=SCHEMA, temperature=1.0, seed=4)
    generated = await sampled.generate(say("hi"), sampling, None)
    assert generated.text.startswith("{")
    if generated.finish_reason == "stop":
        assert isinstance(json.loads(generated.text)["answer"], str)


async def test_every_duration_is_said_or_measured(sampled: Backend) -> None:
    generated = await sampled.generate(say("hi"), Sampling(max_tokens=6), None)
    assert generated.prompt_eval_ns > 0
    assert generated.eval_ns > 0
    assert generated.first_token_ns > 0


async def test_an_answer_without_a_delay_is_there_at_once() -> None:
    backend = Instant(ModelSection(name="quick", reply="ok"))
    generated = await backend.generate(say("hi there"), Sampling(), None)
    assert (generated.text, generated.prompt_tokens, generated.finish_reason) == ("ok", 2, "stop")


@pytest.mark.parametrize("fault", ["missing", "empty", "not gguf", "truncated"])
async def test_a_file_that_cannot_be_served_is_refused_before_it_is_loaded(
    fault: str, model_path: Path, tmp_path: Path
) -> None:
    path = tmp_path / "broken.gguf"
    whole = model_path.read_bytes()
    contents = {"empty": b"", "not gguf": b"#!/bin/sh\n" * 100, "truncated": whole[: len(whole) // 2]}
    if fault in contents:
        path.write_bytes(contents[fault])
    with pytest.raises(ModelUnusable, match=r"broken\.gguf"):
        await backend_opener("llama_cpp")(ModelSection(name="broken", path=path), 1)


async def test_a_model_without_a_file_is_named() -> None:
    with pytest.raises(ModelUnusable, match="nowhere has no path"):
        await backend_opener("llama_cpp")(ModelSection(name="nowhere"), 1)


async def test_a_file_that_is_not_the_one_that_is_meant_is_refused_by_name(model_path: Path) -> None:
    model = ModelSection(name="tiny", path=model_path, sha256="0" * 64)
    with pytest.raises(ModelUnusable, match=r"tiny\.gguf is damaged or another file"):
        await backend_opener("llama_cpp")(model, 1)


async def test_a_split_model_is_told_by_all_its_parts(model_path: Path, tmp_path: Path) -> None:
    first, *others = split_model(model_path, tmp_path / "split.gguf")
    together = b"".join(part.read_bytes() for part in (first, *others))
    model = ModelSection(name="tiny", path=first, slots=1, sha256=hashlib.sha256(together).hexdigest())
    loaded = await backend_opener("llama_cpp")(model, 1)
    try:
        assert loaded.info.size_bytes == len(together)
    finally:
        await loaded.close()
    # When a weight in the last part is another one
    content = bytearray(others[-1].read_bytes())
    content[-1] ^= 1
    others[-1].write_bytes(content)
    with pytest.raises(ModelUnusable, match=r"split-00001-of-\d+\.gguf is damaged or another file"):
        await backend_opener("llama_cpp")(model, 1)
