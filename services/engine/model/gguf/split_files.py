"""Models in several files: the parts of a split GGUF as one source of bytes, with one header."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

from services.engine.model.gguf.header import (
    ByteSource,
    FileSource,
    ForeseeingSource,
    GgufFault,
    GgufHeader,
    read_header,
)

PART_NAME = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.gguf)", re.IGNORECASE)
MAX_PARTS = 512
SPLIT_PREFIX = "split."
PIECE_BYTES = 1 << 20


class JoinedSource:
    """The parts of a split model, one after another, as a `ByteSource`."""

    def __init__(self, parts: Sequence[ByteSource]) -> None:
        self.parts = tuple(parts)
        self.starts = tuple(accumulate((part.size for part in parts), initial=0))
        self.size = self.starts[-1]

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`; fewer only at the end."""
        pieces = []
        for part, start in zip(self.parts, self.starts, strict=False):
            begin, end = max(offset, start), min(offset + length, start + part.size)
            if begin < end:
                pieces.append(part.read(begin - start, end - begin))
        return b"".join(pieces)

    def foresee(self, ranges: Sequence[tuple[int, int]]) -> None:
        """These ranges, each an offset and a length, are read next; parts that are far away hear of it."""
        for part, start in zip(self.parts, self.starts, strict=False):
            if isinstance(part, ForeseeingSource):
                own = ((max(at, start), min(at + length, start + part.size)) for at, length in ranges)
                part.foresee([(begin - start, end - begin) for begin, end in own if begin < end])


def part_name(named: re.Match[str], number: int) -> str:
    """The name of a part of the model of which `named` is one, by PART_NAME."""
    return f"{named['stem']}-{number:05d}-of-{named['count']}{named['suffix']}"


def part_paths(path: Path) -> list[Path]:
    """All files of the model whose first or only file this is; raises GgufFault for another part, and where
    one is missing."""
    named = PART_NAME.fullmatch(path.name)
    if named is None or not path.is_file():
        return [path]
    count = int(named["count"])
    if int(named["number"]) != 1 or not 1 <= count <= MAX_PARTS:
        raise GgufFault(
            f"it is part {int(named['number'])} of {count}; a split model is known by its first part"
        )
    names = [part_name(named, part) for part in range(1, count + 1)]
    missing = [name for name in names if not path.with_name(name).is_file()]
    if missing:
        raise GgufFault(f"it is the first of {count} parts, and {missing[0]} is not beside it")
    return [path.with_name(name) for name in names]


@contextmanager
def model_source(path: Path) -> Iterator[ByteSource]:
    """The bytes of a model in one file, or in the parts of which `path` is the first. Raises OSError and
    GgufFault."""
    paths = part_paths(path)
    with ExitStack() as opened:
        parts = [opened.enter_context(FileSource(part)) for part in paths]
        yield parts[0] if len(parts) == 1 else JoinedSource(parts)


def size_of(path: Path) -> int:
    """The bytes of a model, of all its parts together. Raises OSError and GgufFault."""
    return sum(part.stat().st_size for part in part_paths(path))


def sha256_of(path: Path) -> str:
    """The SHA-256 of a model's bytes in hexadecimal, all parts one after another. Raises OSError and
    GgufFault."""
    digest = hashlib.sha256()
    for part in part_paths(path):
        with part.open("rb") as file:
            while piece := file.read(PIECE_BYTES):
                digest.update(piece)
    return digest.hexdigest()


def part_headers(source: JoinedSource) -> list[GgufHeader]:
    """The headers of all parts; raises GgufFault unless they are those of one model, in order."""
    headers = [read_header(part) for part in source.parts]
    for number, header in enumerate(headers):
        told = (header.integer("split.no"), header.integer("split.count"))
        if told != (number, len(headers)):
            raise GgufFault(
                f"split.no and split.count are {told[0]} and {told[1]}, not {number} and {len(headers)}"
            )
    tensors = sum(len(header.tensors) for header in headers)
    promised = headers[0].integer("split.tensors.count")
    if promised not in (None, tensors):
        raise GgufFault(f"split.tensors.count is {promised}, and its parts have {tensors}")
    return headers


def joined_header(headers: Sequence[GgufHeader], source: JoinedSource) -> GgufHeader:
    """The header of the whole model: metadata of the first part, tensors of all, by their places in the
    joined source."""
    first = headers[0]
    shifts = [
        start + header.data_offset - first.data_offset
        for header, start in zip(headers, source.starts, strict=False)
    ]
    tensors = tuple(
        replace(tensor, offset=tensor.offset + shift)
        for header, shift in zip(headers, shifts, strict=True)
        for tensor in header.tensors
    )
    metadata = {key: value for key, value in first.metadata.items() if not key.startswith(SPLIT_PREFIX)}
    return replace(first, metadata=metadata, tensors=tensors)
