"""`llama_cpp`: a GGUF file in this process, through `services.engine`."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import asdict
from functools import partial
from pathlib import Path

from schemas.commands import ChatMessage
from schemas.errors import ModelUnusable
from schemas.replies import TokenCount
from schemas.sampling import Sampling
from services.agent.backends.backend import Backend, BackendInfo, Generated, OnText
from services.agent.settings import ModelSection
from services.engine import Engine, Finished, TokenEvent


class LlamaCpp:
    """An engine, whose events come from its own thread, for a caller on the event loop."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        info = engine.info
        self.info = BackendInfo(
            context_tokens=info.context_tokens,
            parameters=info.parameters,
            file=info.path.name,
            size_bytes=info.size_bytes,
            quantisation=info.quantisation,
            description=info.description or None,
        )

    def tokens_per_s(self) -> float | None:
        """What the engine has measured of late."""
        return self._engine.stats().decode_tokens_per_s or None

    async def generate(
        self, messages: tuple[ChatMessage, ...], sampling: Sampling, on_text: OnText | None
    ) -> Generated:
        """Generates in the engine's next free slot."""
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[TokenEvent | Finished] = asyncio.Queue()

        def pass_on(event: TokenEvent | Finished) -> None:
            if on_text is not None or isinstance(event, Finished):
                loop.call_soon_threadsafe(events.put_nowait, event)

        generation = self._engine.submit(messages, sampling, pass_on)
        try:
            while isinstance(event := await events.get(), TokenEvent):
                if on_text is not None and event.text:
                    await on_text(event.text)
        finally:
            generation.cancel()
        return generated(event)

    async def count_tokens(self, messages: tuple[ChatMessage, ...]) -> TokenCount:
        """Counted with the model's own template and vocabulary."""
        count = await asyncio.to_thread(self._engine.count_tokens, messages)
        return TokenCount(prompt_tokens=count, context_tokens=self._engine.info.context_tokens)

    async def close(self) -> None:
        """Ends the inference thread and frees the model."""
        await asyncio.to_thread(self._engine.close)


def generated(finished: Finished) -> Generated:
    """An engine's outcome as a backend's; raises its error."""
    if finished.error is not None:
        raise finished.error
    return Generated(
        text=finished.text,
        finish_reason=finished.finish_reason,
        prompt_tokens=finished.prompt_tokens,
        generated_tokens=finished.generated_tokens,
        queue_ns=finished.queue_ns,
        prompt_eval_ns=finished.prompt_eval_ns,
        eval_ns=finished.eval_ns,
        first_token_ns=finished.first_token_ns,
        logprobs=tuple(asdict(logprob) for logprob in finished.logprobs),
    )


async def open_backend(model: ModelSection, threads: int | None) -> Backend:
    """Checks and loads the file, away from the event loop."""
    if model.path is None:
        raise ModelUnusable(f"model {model.name} has no path", field="path")
    if model.sha256 is not None:
        await asyncio.to_thread(check_sum, model.path, model.sha256)
    load = partial(
        Engine.load,
        model.path,
        slots=model.slots,
        context_tokens=model.context_tokens,
        threads=threads,
        gpu_layers=model.gpu_layers,
    )
    return LlamaCpp(await asyncio.to_thread(load))


def check_sum(path: Path, sha256: str) -> None:
    """Raises ModelUnusable, naming the file, unless it is the one that is meant."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelUnusable(f"{path}: {error.strerror}", field="path") from error
    if found != sha256:
        raise ModelUnusable(
            f"{path} is damaged or another file: its SHA-256 is {found}, it should be {sha256}", field="path"
        )
