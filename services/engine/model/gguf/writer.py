"""Writes a GGUF whose tensors come, byte for byte, from places in a `ByteSource`.

The header is written by the `gguf` package. Tensors are copied in pieces, so that a file larger than memory
can be written; the same arguments give the same bytes.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from services.engine.model.gguf.header import ByteSource, ForeseeingSource, GgufFault, Scalar
from services.engine.model.gguf.tables import TensorType, ValueType

COPY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the metadata: its key, its type, and the value; of an array the type of its items too, and
    of texts in it their bytes."""

    key: str
    type_id: int
    value: Scalar | Sequence[Scalar] | Sequence[bytes]
    item_type: int | None = None


@dataclass(frozen=True, slots=True)
class TensorCopy:
    """A tensor to write; its `nbytes` bytes begin at byte `position` of the source. None: they are zeros, and
    the file has a hole there."""

    name: str
    dimensions: tuple[int, ...]
    type_id: int
    position: int | None
    nbytes: int


def write_gguf(
    path: Path, entries: Sequence[Entry], tensors: Sequence[TensorCopy], source: ByteSource, *, alignment: int
) -> None:
    """Writes the file under another name and renames it, so that nobody finds half a file at `path`.

    Raises GgufFault where the source ends early, and OSError where the file cannot be written.
    """
    from gguf import GGUFWriter  # takes numpy with it, and a fifth of a second

    with _renamed_when_whole(path) as part, closing(GGUFWriter(part, arch="")) as writer:
        writer.data_alignment = alignment
        for entry in entries:
            item_type = None if entry.item_type is None else ValueType(entry.item_type)
            writer.add_key_value(entry.key, entry.value, ValueType(entry.type_id), item_type)
        for tensor in tensors:
            shape, kind = tensor.dimensions[::-1], TensorType(tensor.type_id)
            writer.add_tensor_info(tensor.name, shape, None, tensor.nbytes, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        [file] = writer.fout
        writer.write_padding(file, file.tell())
        if isinstance(source, ForeseeingSource):
            source.foresee([(one.position, one.nbytes) for one in tensors if one.position is not None])
        for tensor in tensors:
            if tensor.position is None:
                file.seek(tensor.nbytes, os.SEEK_CUR)
            else:
                for piece in _pieces(source, tensor.position, tensor.nbytes):
                    file.write(piece)
            writer.write_padding(file, tensor.nbytes)
        file.truncate()


def _pieces(source: ByteSource, position: int, nbytes: int) -> Iterator[bytes]:
    for start in range(0, nbytes, COPY_BYTES):
        offset, length = position + start, min(COPY_BYTES, nbytes - start)
        piece = source.read(offset, length)
        if len(piece) != length:
            raise GgufFault(f"{len(piece)} of {length} bytes came from byte {offset} of the model")
        yield piece


@contextmanager
def _renamed_when_whole(path: Path) -> Iterator[Path]:
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
