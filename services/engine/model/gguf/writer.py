"""Writes a GGUF whose tensors come, byte for byte, from places in a `ByteSource`.

The format is described at https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Tensors are copied in
pieces, so that a file larger than memory can be written; the same arguments give the same bytes.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from services.engine.model.gguf.header import (
    ARRAY_TYPE,
    MAGIC,
    SCALARS,
    STRING_TYPE,
    ByteSource,
    GgufFault,
    Scalar,
)

VERSION = 3
COPY_BYTES = 1 << 20
_U32 = SCALARS[4]
_U64 = SCALARS[10]


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the metadata: its key, its value's type and the value's bytes."""

    key: str
    type_id: int
    value: bytes


@dataclass(frozen=True, slots=True)
class TensorCopy:
    """A tensor to write; its `nbytes` bytes begin at byte `position` of the source. None: they are zeros, and
    the file has a hole there."""

    name: str
    dimensions: tuple[int, ...]
    type_id: int
    position: int | None
    nbytes: int


def scalar_entry(key: str, type_id: int, value: Scalar) -> Entry:
    """An entry of a number, a bool or a text, as the GGUF type `type_id`."""
    if isinstance(value, str):
        return Entry(key, STRING_TYPE, _text(value))
    return Entry(key, type_id, SCALARS[type_id].pack(value))


def array_entry(key: str, item_type: int, count: int, items: bytes) -> Entry:
    """An entry of `count` items that are encoded already."""
    return Entry(key, ARRAY_TYPE, _U32.pack(item_type) + _U64.pack(count) + items)


def write_gguf(
    path: Path, entries: Sequence[Entry], tensors: Sequence[TensorCopy], source: ByteSource, *, alignment: int
) -> None:
    """Writes the file under another name and renames it, so that nobody finds half a file at `path`.

    Raises GgufFault where the source ends early, and OSError where the file cannot be written.
    """
    with _renamed_when_whole(path) as file:
        file.write(_header(entries, tensors, alignment))
        for tensor in tensors:
            padding = -tensor.nbytes % alignment
            if tensor.position is None:
                file.seek(tensor.nbytes + padding, os.SEEK_CUR)
                continue
            for piece in _pieces(source, tensor.position, tensor.nbytes):
                file.write(piece)
            file.write(bytes(padding))
        file.truncate()


def read_exactly(source: ByteSource, offset: int, length: int) -> bytes:
    """`length` bytes from `offset`; raises GgufFault where there are fewer."""
    content = source.read(offset, length)
    if len(content) != length:
        raise GgufFault(f"{len(content)} of {length} bytes came from byte {offset} of the model")
    return content


def _header(entries: Sequence[Entry], tensors: Sequence[TensorCopy], alignment: int) -> bytes:
    counts = _U32.pack(VERSION) + _U64.pack(len(tensors)) + _U64.pack(len(entries))
    metadata = b"".join(_text(entry.key) + _U32.pack(entry.type_id) + entry.value for entry in entries)
    header = MAGIC + counts + metadata + b"".join(_descriptions(tensors, alignment))
    return header + bytes(-len(header) % alignment)


def _descriptions(tensors: Iterable[TensorCopy], alignment: int) -> Iterator[bytes]:
    offset = 0
    for tensor in tensors:
        shape = b"".join(map(_U64.pack, tensor.dimensions))
        rank = _U32.pack(len(tensor.dimensions))
        yield _text(tensor.name) + rank + shape + _U32.pack(tensor.type_id) + _U64.pack(offset)
        offset += tensor.nbytes + -tensor.nbytes % alignment


def _pieces(source: ByteSource, position: int, nbytes: int) -> Iterator[bytes]:
    for start in range(0, nbytes, COPY_BYTES):
        yield read_exactly(source, position + start, min(COPY_BYTES, nbytes - start))


def _text(text: str) -> bytes:
    encoded = text.encode("utf-8")
    return _U64.pack(len(encoded)) + encoded


@contextmanager
def _renamed_when_whole(path: Path) -> Iterator[BinaryIO]:
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
