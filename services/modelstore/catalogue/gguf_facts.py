"""What the files of a model say of themselves. Nothing that they say is believed before it was checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import ModelUnusable
from schemas.nodes.model_store import MAX_LICENCE_CHARACTERS
from services.engine.model.gguf.check import check_model, check_tensors
from services.engine.model.gguf.header import FileSource, GgufFault, GgufHeader, read_header

MAX_TEXT = 200


@dataclass(frozen=True)
class Facts:
    """What a model is, as its files say."""

    architecture: str
    layers: int | None
    parameters: int
    context_tokens: int | None
    quantisation: str | None
    licence: str | None
    licence_text: str | None


def facts_of(paths: Sequence[Path]) -> Facts:
    """The facts of a model in one file, or of all parts of a split one, in their order. Blocks; ModelUnusable
    names the file and what is wrong with it."""
    headers = []
    for number, path in enumerate(paths):
        try:
            with FileSource(path) as source:
                headers.append(
                    check_model(source)
                    if len(paths) == 1
                    else _check_part(read_header(source), source.size, number, len(paths))
                )
        except OSError as error:
            raise ModelUnusable(f"{path} cannot be read: {error.strerror}", field="path") from error
        except GgufFault as fault:
            raise ModelUnusable(f"{path} is not usable: {fault}", field="path") from fault
    header = headers[0]
    tensors = sum(len(one.tensors) for one in headers)
    promised = header.integer("split.tensors.count") if len(paths) > 1 else None
    if promised is not None and promised != tensors:
        raise ModelUnusable(
            f"{paths[0]} is not usable: split.tensors.count is {promised}, and its parts have {tensors}",
            field="path",
        )
    architecture = header.text("general.architecture") or ""
    return Facts(
        architecture=short_text(architecture) or "",
        layers=header.integer(f"{architecture}.block_count"),
        parameters=sum(tensor.elements for one in headers for tensor in one.tensors),
        context_tokens=header.integer(f"{architecture}.context_length"),
        quantisation=header.quantisation,
        licence=short_text(header.text("general.license") or header.text("general.license.name")),
        licence_text=licence_text(header.text("general.license.text")),
    )


def _check_part(header: GgufHeader, size: int, number: int, count: int) -> GgufHeader:
    told = (header.integer("split.no"), header.integer("split.count"))
    if told != (number, count):
        raise GgufFault(f"split.no and split.count are {told[0]} and {told[1]}, not {number} and {count}")
    if number == 0 and not header.text("general.architecture"):
        raise GgufFault("its metadata has no general.architecture")
    check_tensors(header, size, may_be_empty=True)
    return header


def licence_text(text: str | None) -> str | None:
    """A licence as people read it, cut to what a message carries."""
    if not text:
        return None
    plain = "".join(char for char in text if char.isprintable() or char in "\n\t")
    return plain[:MAX_LICENCE_CHARACTERS] or None


def short_text(text: str | None) -> str | None:
    """A text without what would command a terminal, and not long."""
    if text is None:
        return None
    plain = "".join(char for char in text if char.isprintable())
    return plain[:MAX_TEXT] or None
