"""`instant`: always the same reply, after an optional delay. It measures the mesh, not a model."""

from __future__ import annotations

import asyncio
import hashlib
import time

from schemas.commands import ChatMessage, Embed, RawPrompt, Tokenize
from schemas.errors import ChoirError, ContextExceeded, InvalidRequest
from schemas.replies import Sample, TokenCount, Tokenized
from schemas.requests.chat import Tool
from schemas.requests.origin import NOBODY, Origin
from schemas.requests.sampling import Sampling
from services.agent.backends.backend import Backend, BackendInfo, Generated, OnPiece, Prompt
from services.agent.settings import ModelSection
from services.tasks.generate import conversation_of
from services.tasks.token_stream import Piece

DEFAULT_CONTEXT_TOKENS = 8_192
IDENTITY_LENGTH = 32


class Instant:
    """A reply that is known beforehand; a word counts as a token."""

    def __init__(self, model: ModelSection) -> None:
        self._words = model.reply.split(" ")
        self._delay_s = model.delay_ms / 1000
        context_tokens = model.context_tokens or DEFAULT_CONTEXT_TOKENS
        self.info = BackendInfo(
            context_tokens=context_tokens,
            description="a fixed reply, for measuring",
            capabilities=("completion", "raw"),
            identity=hashlib.sha256(model.reply.encode()).hexdigest()[:IDENTITY_LENGTH],
        )

    def failure(self) -> ChoirError | None:
        """Nothing here can fail for good."""
        return None

    def step_s(self) -> float:
        """It waits for nothing but the clock."""
        return 0.0

    def tokens_per_s(self) -> float | None:
        """Nothing is generated, so nothing is measured."""
        return None

    def kept(self, *, idle: bool = False) -> tuple[Origin, ...]:
        """Nothing is evaluated, so nothing is kept."""
        return ()

    async def generate(
        self, prompt: Prompt, sampling: Sampling, on_piece: OnPiece | None, origin: Origin = NOBODY
    ) -> Generated:
        """Waits, then says its reply, word by word if somebody listens. ContextExceeded as a model would."""
        started = time.perf_counter_ns()
        count = self._count(words_of(prompt))
        if count.prompt_tokens >= count.context_tokens:
            raise ContextExceeded(
                f"the prompt has {count.prompt_tokens} tokens, the context {count.context_tokens}"
            )
        words = self._words[: sampling.max_tokens]
        pause_s = self._delay_s / len(words)
        if on_piece is None:
            if self._delay_s:
                await asyncio.sleep(self._delay_s)
        else:
            for index, word in enumerate(words):
                if pause_s:
                    await asyncio.sleep(pause_s)
                text = word if index == 0 else f" {word}"
                for number in range(sampling.n):
                    await on_piece(Piece(text, sample=number))
        sample = Sample(
            text=" ".join(words),
            finish_reason="stop" if len(words) == len(self._words) else "length",
            generated_tokens=len(words),
        )
        return Generated(
            text=sample.text,
            finish_reason=sample.finish_reason,
            prompt_tokens=count.prompt_tokens,
            generated_tokens=len(words) * sampling.n,
            eval_ns=time.perf_counter_ns() - started,
            samples=(sample,) * (sampling.n - 1),
        )

    async def count_tokens(
        self, messages: tuple[ChatMessage, ...], tools: tuple[Tool, ...] = ()
    ) -> TokenCount:
        """A word counts as a token."""
        return self._count(count_words(messages))

    def _count(self, words: int) -> TokenCount:
        context_tokens = self.info.context_tokens or DEFAULT_CONTEXT_TOKENS
        return TokenCount(prompt_tokens=words, context_tokens=context_tokens)

    async def embed(self, embed: Embed) -> Generated:
        """It has no vectors."""
        raise InvalidRequest("embed: a fixed reply has no vectors: ask another model", field="embed")

    async def tokenize(self, request: Tokenize) -> Tokenized:
        """It has no tokens."""
        raise InvalidRequest("model: a fixed reply has no tokens: ask another model", field="model")

    async def close(self) -> None:
        """There is nothing to free."""


def count_words(messages: tuple[ChatMessage, ...]) -> int:
    """Words of a conversation."""
    return sum(len(message.content.split()) for message in messages)


def words_of(prompt: Prompt) -> int:
    """Words of a prompt; a token id counts as one."""
    if isinstance(prompt, RawPrompt):
        return len(prompt.text.split()) if prompt.text is not None else len(prompt.tokens or ())
    return count_words(conversation_of(prompt).messages)


async def open_backend(model: ModelSection, threads: int | None) -> Backend:
    """Ready at once."""
    return Instant(model)
