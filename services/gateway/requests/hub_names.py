"""Models of a hub, as clients name them: `hf.co/ORGANISATION/REPOSITORY:QUANTISATION`. Pure."""

from __future__ import annotations

import re

from services.gateway.requests.ensembles import without_tag

HUB = re.compile(r"(?:hf:|(?:https?://)?(?:www\.)?(?:hf\.co|huggingface\.co)/)(?P<rest>[^/\s]+/[^/\s]+)")
"""As `choir pull` has it, and as Ollama's clients do."""
STORED = "hf:"


def hub_name(name: str) -> str | None:
    """What a store calls a model of a hub that a client names so; None for a model of another kind."""
    found = HUB.fullmatch(without_tag(name))
    return None if found is None else STORED + found["rest"]


def is_meant(hub: str, repository: str | None, file: str | None) -> bool:
    """Whether a store's name of a model of a hub means a file of a repository."""
    wanted, _, quantisation = hub.removeprefix(STORED).partition(":")
    return wanted == repository and quantisation.lower() in (file or "").lower()
