"""Tries a worker out from this host: its server, its model, its speed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from schemas.commands import ChatMessage, Embed
from schemas.errors import ChoirError, ErrorBody, ModelUnusable
from schemas.message import Message
from schemas.nodes.workers import Worker
from schemas.requests.sampling import Sampling
from services.agent.settings import WorkersSection
from services.chassis.settings import ServiceSettings, load_settings

if TYPE_CHECKING:
    from services.agent.backends.servers.remote import RemoteBackend

PROMPT = "Say hello in one short sentence."
SAMPLING = Sampling(max_tokens=24)
MS = 1e6


class WorkersSettings(ServiceSettings):
    """The keys that this host's operator has, and the limits."""

    workers: WorkersSection = WorkersSection()


class Trial(Message):
    """What came of trying a worker out. Durations in milliseconds."""

    id: str
    url: str
    model: str
    reachable: bool = False
    model_there: bool = False
    text: str | None = None
    prompt_tokens: int | None = None
    generated_tokens: int | None = None
    answered_ms: float | None = None
    first_token_ms: float | None = None
    total_ms: float | None = None
    tokens_per_s: float | None = None
    embedding_dimensions: int | None = None
    problem: ErrorBody | None = None


class Trials(Message):
    """Several of them."""

    trials: tuple[Trial, ...]


async def try_worker(worker: Worker, *, generate: bool = True) -> Trial:
    """Looks, and generates a short text unless told not to. What fails is in `problem`; nothing is raised."""
    from services.agent.workers.external import connect, look

    trial = Trial(id=worker.id, url=worker.url, model=worker.model)
    try:
        limits = load_settings(WorkersSettings).workers
        backend = connect(worker, limits)
    except ChoirError as error:
        return trial.model_copy(update={"problem": error.body()})
    try:
        started = time.perf_counter_ns()
        await look(backend, limits.check_limit_s)
        answered_ms = (time.perf_counter_ns() - started) / MS
        seen = {"reachable": True, "model_there": True, "answered_ms": answered_ms}
        trial = trial.model_copy(update=seen)
        return trial.model_copy(update=await _generation(backend)) if generate else trial
    except ModelUnusable as error:
        return trial.model_copy(update={"reachable": True, "problem": error.body()})
    except ChoirError as error:
        return trial.model_copy(update={"problem": error.body()})
    finally:
        await backend.close()


async def _generation(backend: RemoteBackend) -> dict[str, object]:
    started = time.perf_counter_ns()
    message = ChatMessage(role="user", content=PROMPT)
    generated = await backend.generate((message,), SAMPLING, None)
    return {
        "text": generated.text,
        "prompt_tokens": generated.prompt_tokens,
        "generated_tokens": generated.generated_tokens,
        "first_token_ms": generated.first_token_ns / MS,
        "total_ms": (time.perf_counter_ns() - started) / MS,
        "tokens_per_s": backend.tokens_per_s(),
        "embedding_dimensions": await _dimensions(backend),
    }


async def _dimensions(backend: RemoteBackend) -> int | None:
    """How long its embeddings are; None for the many servers and models that make none."""
    try:
        embeddings = (await backend.embed(Embed(inputs=(PROMPT,)))).embeddings
    except ChoirError:
        return None
    return None if embeddings is None else embeddings.dimensions
