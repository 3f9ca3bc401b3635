"""The protocol of a backend: one model that generates and counts tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from schemas.commands import ChatMessage, Embed, Tokenize
from schemas.errors import ChoirError
from schemas.nodes.lease import Capability
from schemas.replies import TokenCount, Tokenized
from schemas.requests.chat import Tool
from schemas.requests.origin import NOBODY, Origin
from schemas.requests.sampling import Sampling
from services.agent.settings import ModelSection
from services.tasks.generate import Generated, OnPiece, Prompt

__all__ = ["Backend", "BackendInfo", "Generated", "OnPiece", "OpenBackend", "Prompt"]


@dataclass(frozen=True)
class BackendInfo:
    """What is known of the model behind a backend. `file` is the file's name, without its folder; `identity`
    tells its weights from others."""

    context_tokens: int | None = None
    parameters: int | None = None
    file: str | None = None
    size_bytes: int | None = None
    quantisation: str | None = None
    description: str | None = None
    capabilities: tuple[Capability, ...] = ()
    identity: str | None = None


class Backend(Protocol):
    """One loaded model."""

    @property
    def info(self) -> BackendInfo:
        """What is known of the model."""

    def failure(self) -> ChoirError | None:
        """Why it cannot be asked any more, before it is opened anew; None while it can. What was in work when
        that is found out ends as WorkerFailed."""

    def step_s(self) -> float:
        """For how long nothing new could be begun, in seconds: a single step has taken so long by now."""

    def tokens_per_s(self) -> float | None:
        """Measured speed of generation over all slots; None before anything was generated."""

    def kept(self, *, idle: bool = False) -> tuple[Origin, ...]:
        """The origins of the prompts whose caches are kept here, the latest first; with `idle` of those that
        could be used at once. None where nothing is known of caches."""

    async def generate(
        self, prompt: Prompt, sampling: Sampling, on_piece: OnPiece | None, origin: Origin = NOBODY
    ) -> Generated:
        """Generates one text. Nothing that is kept of earlier ones may serve another tenant than that of
        `origin`. A cancelled call stops generating, and returns when the slot is free again.

        Raises ContextExceeded, GenerationFailed; WorkerFailed where another agent may succeed.
        """

    async def embed(self, embed: Embed) -> Generated:
        """The vectors of texts. Raises ContextExceeded, GenerationFailed, InvalidRequest; WorkerFailed where
        another agent may succeed."""

    async def count_tokens(
        self, messages: tuple[ChatMessage, ...], tools: tuple[Tool, ...] = ()
    ) -> TokenCount:
        """How long a prompt is for this model."""

    async def tokenize(self, request: Tokenize) -> Tokenized:
        """Tokens of a text, the text of tokens, or what is known of the tokenizer. Raises InvalidRequest
        where that is not known."""

    async def close(self) -> None:
        """Frees the model."""


class OpenBackend(Protocol):
    """Loads a model; raises ModelUnusable with the reason."""

    async def __call__(self, model: ModelSection, threads: int | None) -> Backend:
        """Returns when the model can be asked."""
