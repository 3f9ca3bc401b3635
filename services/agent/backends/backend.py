"""The protocol of a backend: one model that generates and counts tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from schemas.commands import ChatMessage
from schemas.errors import ChoirError
from schemas.replies import TokenCount
from schemas.sampling import Sampling
from services.agent.settings import ModelSection
from services.tasks.generate import Generated, OnText

__all__ = ["Backend", "BackendInfo", "Generated", "OnText", "OpenBackend"]


@dataclass(frozen=True)
class BackendInfo:
    """What is known of the model behind a backend. `file` is the file's name, without its folder."""

    context_tokens: int | None = None
    parameters: int | None = None
    file: str | None = None
    size_bytes: int | None = None
    quantisation: str | None = None
    description: str | None = None


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

    async def generate(
        self, messages: tuple[ChatMessage, ...], sampling: Sampling, on_text: OnText | None
    ) -> Generated:
        """Generates one text. A cancelled call stops generating, and returns when the slot is free again.

        Raises ContextExceeded, GenerationFailed; WorkerFailed where another agent may succeed.
        """

    async def count_tokens(self, messages: tuple[ChatMessage, ...]) -> TokenCount:
        """How long a prompt is for this model."""

    async def close(self) -> None:
        """Frees the model."""


class OpenBackend(Protocol):
    """Loads a model; raises ModelUnusable with the reason."""

    async def __call__(self, model: ModelSection, threads: int | None) -> Backend:
        """Returns when the model can be asked."""
