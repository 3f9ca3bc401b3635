"""Backends: what an agent generates with, one file each, and a line in `BACKENDS` of the settings."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from services.agent.backends.backend import Backend, Generated, OnPiece, OpenBackend, Prompt
from services.agent.settings import BACKENDS, BackendName


def backend_opener(name: BackendName) -> OpenBackend:
    """What loads models for this backend."""
    return cast(OpenBackend, import_module(BACKENDS[name]).open_backend)


__all__ = ["BACKENDS", "Backend", "Generated", "OnPiece", "OpenBackend", "Prompt", "backend_opener"]
