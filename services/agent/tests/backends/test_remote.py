"""Backends that ask a server: what each has of its own, and how faults of servers are named."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator

import ollama as ollama_client
import pytest

from infra.broker.local_cluster import free_port
from infra.host.children.processes import PREEXEC, until
from schemas.commands import ChatMessage, Embed
from schemas.errors import ChoirError, ContextExceeded, InvalidRequest, ModelUnusable, WorkerFailed
from schemas.requests.sampling import Sampling
from services.agent.backends.servers.faults import status_fault
from services.agent.backends.servers.ollama import Ollama, open_backend
from services.agent.backends.servers.openai import OpenAI
from services.agent.backends.servers.presets import parameters
from services.agent.settings import ModelSection
from services.agent.tests.conftest import DEMO
from services.agent.tests.servers.http_server import Reply, Request, http_server
from services.agent.tests.servers.llama_server import LlamaServer
from services.agent.tests.servers.ollama_server import NDJSON, frames, line, ollama

HI = (ChatMessage(role="user", content="hi"),)
KENYA = (ChatMessage(role="user", content="What is the capital of Kenya?"),)
SERVE_DEADLINE_S = 180.0


def section(kind: str, url: str, model: str) -> ModelSection:
    return ModelSection.model_validate({"name": model, "slots": 2, "server": {"type": kind, "url": url}})


async def test_a_demo_model_behind_a_server_says_what_it_says_elsewhere(openai_server: LlamaServer) -> None:
    backend = OpenAI(section("llama_cpp_python", openai_server.url, DEMO))
    generated = await backend.generate(KENYA, Sampling(max_tokens=12), None)
    await backend.close()
    assert (generated.text, generated.prompt_tokens, generated.generated_tokens) == ("Nairobi", 10, 2)


async def test_ollama_generates_and_embeds() -> None:
    async with http_server(ollama) as server:
        backend = Ollama(section("ollama", server.url, "tiny"))
        generated = await backend.generate(HI, Sampling(max_tokens=3), None)
        vectors = await backend.embed(Embed(inputs=("one", "three")))
        await backend.close()
    assert (generated.text, generated.finish_reason, generated.load_ns) == (
        "one two three",
        "length",
        1_000_000,
    )
    assert vectors.embeddings is not None
    assert vectors.embeddings.numbers == ((3.0, 1.0), (5.0, 1.0))


async def test_an_error_in_the_midst_of_an_ollama_stream_is_the_worker_s() -> None:
    async def fail(request: Request, reply: Reply) -> None:
        await reply.begin_chunks(NDJSON)
        for frame in frames(["one", " two"]):
            await reply.chunk(frame)
        await reply.chunk(line({"error": "an error was encountered while running the model"}))
        await reply.chunk(b"")

    async with http_server(fail) as server:
        backend = Ollama(section("ollama", server.url, "tiny"))
        with pytest.raises(WorkerFailed, match="encountered while running the model"):
            await backend.generate(HI, Sampling(), None)
        await backend.close()


@pytest.mark.parametrize(
    ("status", "said", "error"),
    [
        (400, "This model's maximum context length is 256 tokens", ContextExceeded),
        (500, "out of memory", WorkerFailed),
        (503, "loading model", WorkerFailed),
        (429, "slow down", WorkerFailed),
        (401, "no key", WorkerFailed),
        (404, "no such page", WorkerFailed),
    ],
)
def test_a_status_is_an_error_of_ours(status: int, said: str, error: type[ChoirError]) -> None:
    found = status_fault("http://mac:1234", status, said)
    assert type(found) is error and said in found.message


@pytest.mark.parametrize(
    ("kind", "sampling", "field"),
    [
        ("exo", Sampling(json_schema={"type": "object"}), "sampling.json_schema"),
        ("lm_studio", Sampling(grammar='root ::= "a"'), "sampling.grammar"),
        ("lm_studio", Sampling(logprobs=2), "sampling.logprobs"),
        ("openai", Sampling(temperature=1.0, top_k=7), "sampling.top_k"),
        ("openai", Sampling(stop=("a", "b", "c", "d", "e")), "sampling.stop"),
    ],
)
def test_what_a_kind_of_server_cannot_do_is_refused_by_name(
    kind: str, sampling: Sampling, field: str
) -> None:
    with pytest.raises(InvalidRequest, match=f"{field}: a server of type {kind}") as caught:
        parameters(kind, sampling)  # type: ignore[arg-type]
    assert caught.value.field == field


def test_a_top_k_that_changes_nothing_is_not_refused() -> None:
    assert "top_k" not in parameters("openai", Sampling(top_k=7))
    assert parameters("lm_studio", Sampling(top_k=7))["top_k"] == 7


async def test_a_model_that_is_not_there_is_named_with_those_that_are() -> None:
    async with http_server(ollama) as server:
        with pytest.raises(ModelUnusable, match="has no model gpt-9; it has: tiny"):
            await open_backend(section("ollama", server.url, "gpt-9"), None)


@pytest.fixture
def real_ollama() -> Iterator[str]:
    """A real `ollama serve` on a port of its own, with the models that this host has."""
    binary = shutil.which("ollama")
    if binary is None:
        pytest.skip("needs `ollama` on PATH")
    address = f"127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [binary, "serve"],
        env={**os.environ, "OLLAMA_HOST": address},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=PREEXEC,
    )
    try:
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait()


async def test_a_real_ollama_generates(real_ollama: str) -> None:
    client = ollama_client.Client(host=real_ollama)

    def answers() -> bool:
        try:
            client.list()
        except ConnectionError:
            return False
        return True

    assert await until(answers, SERVE_DEADLINE_S), "ollama serve did not answer"
    listed = [model.model for model in client.list().models if model.model]
    if not listed:
        pytest.skip("needs a model in Ollama: `ollama pull` one")
    backend = await open_backend(section("ollama", real_ollama, listed[0]), None)
    generated = await backend.generate(HI, Sampling(max_tokens=4), None)
    await backend.close()
    assert generated.text and 1 <= generated.generated_tokens <= 4
    assert generated.prompt_tokens > 0 and generated.eval_ns > 0
