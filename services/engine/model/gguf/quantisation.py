"""Names of quantisations: how a file's weights are stored."""

from __future__ import annotations

from services.engine.model.gguf.header import GgufHeader
from services.engine.model.gguf.tables import FileType

FILE_TYPES: dict[int, str] = {
    kind.value: kind.name.removeprefix("ALL_").removeprefix("MOSTLY_")
    for kind in FileType
    if kind is not FileType.GUESSED
}
"""`general.file_type` of a GGUF file, as in llama.cpp's `enum llama_ftype`."""


def quantisation_of(header: GgufHeader) -> str | None:
    """What the file says of itself ("Q4_K_M"); None where it says nothing, or a number that is unknown."""
    number = header.integer("general.file_type")
    return None if number is None else FILE_TYPES.get(number)
