"""What every backend can do: one model, behind one small protocol."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from schemas.commands import ChatMessage
from schemas.replies import FinishReason, TokenCount
from schemas.sampling import Sampling
from services.agent.settings import ModelSection

OnText = Callable[[str], Awaitable[None]]
"""Takes each new piece of text as it is generated."""


@dataclass(frozen=True)
class Generated:
    """One finished generation. Durations in nanoseconds; `load_ns` is what it waited for the model."""

    text: str
    finish_reason: FinishReason
    prompt_tokens: int = 0
    generated_tokens: int = 0
    queue_ns: int = 0
    load_ns: int = 0
    prompt_eval_ns: int = 0
    eval_ns: int = 0
    first_token_ns: int = 0
    logprobs: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class BackendInfo:
    """What is known of the model behind a backend."""

    context_tokens: int | None = None
    parameters: int | None = None
    size_bytes: int | None = None
    description: str | None = None


class Backend(Protocol):
    """One loaded model."""

    @property
    def info(self) -> BackendInfo:
        """What is known of the model."""

    def tokens_per_s(self) -> float | None:
        """Measured speed of generation over all slots; None before anything was generated."""

    async def generate(
        self, messages: tuple[ChatMessage, ...], sampling: Sampling, on_text: OnText | None
    ) -> Generated:
        """Generates one text. A cancelled call stops generating. Raises ContextExceeded, GenerationFailed."""

    async def count_tokens(self, messages: tuple[ChatMessage, ...]) -> TokenCount:
        """How long a prompt is for this model."""

    async def close(self) -> None:
        """Frees the model."""


class OpenBackend(Protocol):
    """Loads a model; raises ModelUnusable with the reason."""

    async def __call__(self, model: ModelSection, threads: int | None) -> Backend:
        """Returns when the model can be asked."""
