"""Backends: what an agent generates with, one file each, and one line in the table `BACKENDS`."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from services.agent.backends.backend import Backend, Generated, OnPiece, OpenBackend, Prompt
from services.agent.settings import BackendName

BACKENDS: dict[BackendName, str] = {
    "llama_cpp": "services.agent.backends.llama_cpp",
    "instant": "services.agent.backends.instant",
    "ollama": "services.agent.backends.ollama",
    "openai": "services.agent.backends.openai",
}
"""The module of each backend; its `open_backend` loads a model. Imported only by the agents that use it."""


def backend_opener(name: BackendName) -> OpenBackend:
    """What loads models for this backend."""
    return cast(OpenBackend, import_module(BACKENDS[name]).open_backend)


__all__ = ["BACKENDS", "Backend", "Generated", "OnPiece", "OpenBackend", "Prompt", "backend_opener"]
