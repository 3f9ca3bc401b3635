"""Which file of weights was asked under each name, and how it was asked: what a figure is a figure of."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from schemas.commands import Tokenize
from schemas.message import Struct
from schemas.replies import ModelSummary
from services.client.client import Choir


class ModelFile(Struct):
    """A model as the mesh serves it. `sha256_of_samples` is the hash of its file's size and of samples all
    over it (of a file of up to 4 MiB: of all of it), None where no agent knows its file.
    `chat_template_sha256` is None of a model without a template, or with one that its agent does not tell."""

    sha256_of_samples: str | None = None
    file: str | None = None
    size_bytes: int | None = None
    quantisation: str | None = None
    parameters: int | None = None
    context_tokens: int | None = None
    chat_template_sha256: str | None = None


async def identified(mesh: Choir, asked: Iterable[ModelSummary]) -> dict[str, ModelFile]:
    """The models by their names."""
    return {model.name: await _identified(mesh, model) for model in asked}


async def _identified(mesh: Choir, model: ModelSummary) -> ModelFile:
    template = None
    if "tokenizing" in model.capabilities:
        told = (await mesh.tokenize(Tokenize(model=model.name))).tokenizer
        template = None if told is None else told.chat_template
    return ModelFile(
        sha256_of_samples=model.identity,
        file=model.file,
        size_bytes=model.size_bytes,
        quantisation=model.quantisation,
        parameters=model.parameters,
        context_tokens=model.context_tokens,
        chat_template_sha256=None if template is None else hashlib.sha256(template.encode()).hexdigest(),
    )
