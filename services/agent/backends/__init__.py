"""What an agent can generate with: one file each, and one line in the table."""

from __future__ import annotations

from services.agent.backends.backend import Backend, Generated, OnText, OpenBackend
from services.agent.backends.instant import open_instant
from services.agent.backends.llama_cpp import open_llama_cpp
from services.agent.settings import BackendName

BACKENDS: dict[BackendName, OpenBackend] = {
    "llama_cpp": open_llama_cpp,
    "instant": open_instant,
}

__all__ = ["BACKENDS", "Backend", "Generated", "OnText", "OpenBackend"]
