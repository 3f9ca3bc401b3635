"""Reads a GGUF header and trusts nothing: metadata and tensor descriptions, by ranges.

The format is described at https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Only the header
is read, through `ByteSource.read(offset, length)`, so the source may be a file or something that is
fetched by ranges. Every count and length is checked against what is left of the source before it
is used: a damaged or hostile file costs neither memory nor time beyond its own size. Large arrays are
not kept; they are described by `MetadataArray` and can be read later.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self, runtime_checkable

from services.engine.model.gguf.tables import DEFAULT_ALIGNMENT, FILE_TYPES, MAGIC, VERSION, ValueType

VERSIONS = (2, VERSION)
MAX_ENTRIES = 1 << 16
MAX_ARRAY_ITEMS = 1 << 24
MAX_SHORT_ARRAY = 512
MAX_STRING_BYTES = 1 << 20
MAX_KEY_BYTES = 1 << 16
MAX_TENSOR_NAME_BYTES = 63
MAX_DIMENSIONS = 4
MAX_ELEMENTS = 1 << 48
WINDOW_BYTES = 1 << 16

SCALARS: dict[int, struct.Struct] = {
    ValueType.UINT8: struct.Struct("<B"),
    ValueType.INT8: struct.Struct("<b"),
    ValueType.UINT16: struct.Struct("<H"),
    ValueType.INT16: struct.Struct("<h"),
    ValueType.UINT32: struct.Struct("<I"),
    ValueType.INT32: struct.Struct("<i"),
    ValueType.FLOAT32: struct.Struct("<f"),
    ValueType.BOOL: struct.Struct("<?"),
    ValueType.UINT64: struct.Struct("<Q"),
    ValueType.INT64: struct.Struct("<q"),
    ValueType.FLOAT64: struct.Struct("<d"),
}
INTEGER_TYPES = frozenset(kind for kind in ValueType if "INT" in kind.name)
_U32 = SCALARS[ValueType.UINT32]
_U64 = SCALARS[ValueType.UINT64]

Scalar = int | float | bool | str


class GgufFault(ValueError):
    """Raised when bytes are not a well-formed GGUF header; says which part and why."""


class ByteSource(Protocol):
    """Bytes of a known size that are read by range."""

    @property
    def size(self) -> int:
        """How many bytes there are."""

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`; fewer only at the end."""


@runtime_checkable
class ForeseeingSource(ByteSource, Protocol):
    """One that is far away, and fetches what will be read before it is."""

    def foresee(self, ranges: Sequence[tuple[int, int]]) -> None:
        """These ranges, each an offset and a length, are read next, in this order."""


class FileSource:
    """A file as a `ByteSource`; a context manager."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("rb")
        self.size = os.fstat(self._file.fileno()).st_size

    def read(self, offset: int, length: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(length)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


@dataclass(frozen=True, slots=True)
class MetadataArray:
    """Where an array of the metadata stands. `longest_bytes` is that of its longest string, else 0. `numbers`
    are the items of a short one that is of numbers or of bools."""

    item_type: int
    count: int
    offset: int
    nbytes: int
    longest_bytes: int
    numbers: tuple[Scalar, ...] = ()

    def read(self, source: ByteSource) -> Sequence[Scalar] | Sequence[bytes]:
        """The items themselves, texts as their bytes, from the source that the header was read from."""
        cursor, what = _Cursor(source, self.offset), "the items of an array"
        if self.item_type == ValueType.STRING:
            return [cursor.take(cursor.u64(what), what) for _ in range(self.count)]
        numbers = memoryview(cursor.take(self.nbytes, what))
        return numbers.cast(SCALARS[self.item_type].format.lstrip("<"))  # type: ignore[call-overload, no-any-return]


MetadataValue = Scalar | MetadataArray


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor's description. `dimensions` are in GGUF's order, the contiguous one first;
    `offset` counts from the start of the data section."""

    name: str
    dimensions: tuple[int, ...]
    type_id: int
    offset: int

    @property
    def elements(self) -> int:
        """How many numbers the tensor holds."""
        return prod(self.dimensions)


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """Everything before the tensor data, which begins at byte `data_offset` of the source."""

    version: int
    metadata: dict[str, MetadataValue]
    value_types: dict[str, int]
    tensors: tuple[TensorInfo, ...]
    alignment: int
    data_offset: int

    def text(self, key: str) -> str | None:
        """The string under `key`, or None where there is none."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None

    def integer(self, key: str) -> int | None:
        """The integer under `key`, or None where there is none."""
        value = self.metadata.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    @property
    def quantisation(self) -> str | None:
        """How most weights are stored ("Q4_K_M"); None where the file says nothing, or an unknown number."""
        number = self.integer("general.file_type")
        return None if number is None else FILE_TYPES.get(number)

    def array(self, key: str) -> MetadataArray | None:
        """The array under `key`, or None where there is none."""
        value = self.metadata.get(key)
        return value if isinstance(value, MetadataArray) else None


def read_header(source: ByteSource) -> GgufHeader:
    """The header of a GGUF; raises GgufFault where the bytes are not one."""
    cursor = _Cursor(source)
    version = _read_preamble(cursor)
    tensor_count = cursor.count("tensors", MAX_ENTRIES)
    entry_count = cursor.count("metadata entries", MAX_ENTRIES)
    metadata, value_types = _read_metadata(cursor, entry_count)
    tensors = tuple(_read_tensor(cursor) for _ in range(tensor_count))
    alignment = _alignment(metadata)
    data_offset = -(-cursor.position // alignment) * alignment
    return GgufHeader(version, metadata, value_types, tensors, alignment, data_offset)


def _read_preamble(cursor: _Cursor) -> int:
    magic = cursor.take(len(MAGIC), "the magic number")
    if magic != MAGIC:
        raise GgufFault(f"it does not begin with {MAGIC!r}, so it is not a GGUF file")
    version = cursor.u32("the version")
    if version not in VERSIONS:
        big_endian = int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS
        hint = " (a big-endian file)" if big_endian else ""
        raise GgufFault(f"GGUF version {version} is not one of {VERSIONS}{hint}")
    return version


def _read_metadata(cursor: _Cursor, count: int) -> tuple[dict[str, MetadataValue], dict[str, int]]:
    metadata: dict[str, MetadataValue] = {}
    value_types: dict[str, int] = {}
    for _ in range(count):
        key = cursor.text(MAX_KEY_BYTES, "a metadata key")
        if not key or key in metadata:
            raise GgufFault(f"the metadata key {key!r} is empty or appears twice")
        value_types[key] = cursor.u32(f"the type of {key}")
        metadata[key] = _read_value(cursor, value_types[key], key)
    return metadata, value_types


def _read_value(cursor: _Cursor, type_id: int, key: str) -> MetadataValue:
    if type_id == ValueType.STRING:
        return cursor.text(MAX_STRING_BYTES, f"the value of {key}")
    if type_id == ValueType.ARRAY:
        return _read_array(cursor, key)
    if type_id not in SCALARS:
        raise GgufFault(f"{key} has the unknown value type {type_id}")
    return cursor.scalar(type_id)


def _read_array(cursor: _Cursor, key: str) -> MetadataArray:
    item_type = cursor.u32(f"the item type of {key}")
    count = cursor.count(f"items of {key}", MAX_ARRAY_ITEMS)
    start = cursor.position
    longest = 0
    numbers: tuple[Scalar, ...] = ()
    if item_type == ValueType.STRING:
        longest = cursor.skip_strings(count, key)
    elif item_type in SCALARS and count <= MAX_SHORT_ARRAY:
        numbers = tuple(cursor.scalar(item_type) for _ in range(count))
    elif item_type in SCALARS:
        cursor.skip(count * SCALARS[item_type].size, f"the items of {key}")
    else:
        raise GgufFault(f"{key} is an array of the unsupported item type {item_type}")
    return MetadataArray(item_type, count, start, cursor.position - start, longest, numbers)


def _read_tensor(cursor: _Cursor) -> TensorInfo:
    name = cursor.text(MAX_TENSOR_NAME_BYTES, "a tensor's name")
    rank = cursor.u32(f"the number of dimensions of {name}")
    if not 1 <= rank <= MAX_DIMENSIONS:
        raise GgufFault(f"tensor {name!r} has {rank} dimensions; 1 to {MAX_DIMENSIONS} are possible")
    dimensions = tuple(cursor.u64(f"a dimension of {name}") for _ in range(rank))
    if min(dimensions) < 1 or prod(dimensions) > MAX_ELEMENTS:
        raise GgufFault(f"tensor {name!r} has the impossible dimensions {dimensions}")
    return TensorInfo(
        name, dimensions, cursor.u32(f"the type of {name}"), cursor.u64(f"the offset of {name}")
    )


def _alignment(metadata: dict[str, MetadataValue]) -> int:
    value = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    valid = isinstance(value, int) and not isinstance(value, bool) and 0 < value <= 1 << 20
    if not valid or value & (value - 1):  # type: ignore[operator]
        raise GgufFault(f"general.alignment is {value!r}, not a power of two")
    return int(value)  # type: ignore[arg-type]


class _Cursor:
    """A position in a source, with a window of bytes read ahead of it."""

    def __init__(self, source: ByteSource, position: int = 0) -> None:
        self._source = source
        self._window = b""
        self._window_start = position
        self.position = position

    @property
    def _left(self) -> int:
        return self._source.size - self.position

    def take(self, length: int, what: str) -> bytes:
        """The next `length` bytes."""
        self._require(length, what)
        start = self.position - self._window_start
        if start + length > len(self._window):
            self._refill(max(length, WINDOW_BYTES))
            start = 0
        taken = self._window[start : start + length]
        if len(taken) < length:
            raise GgufFault(f"the file ends inside {what} (byte {self.position})")
        self.position += length
        return taken

    def skip(self, length: int, what: str) -> None:
        """Moves on by `length` bytes without reading them."""
        self._require(length, what)
        self.position += length
        if self.position > self._window_start + len(self._window):
            self._window, self._window_start = b"", self.position

    def u32(self, what: str) -> int:
        return int(_U32.unpack(self.take(4, what))[0])

    def u64(self, what: str) -> int:
        return int(_U64.unpack(self.take(8, what))[0])

    def scalar(self, type_id: int) -> Scalar:
        layout = SCALARS[type_id]
        value: Scalar = layout.unpack(self.take(layout.size, "a metadata value"))[0]
        return value

    def count(self, what: str, limit: int) -> int:
        """A u64 count of things; every thing takes at least a byte of what is left."""
        count = self.u64(f"the number of {what}")
        if count > limit or count > self._left:
            raise GgufFault(f"it claims {count} {what}, more than are possible")
        return count

    def text(self, limit: int, what: str) -> str:
        """A length-prefixed UTF-8 string of at most `limit` bytes."""
        length = self.u64(f"the length of {what}")
        if length > limit:
            raise GgufFault(f"{what} claims {length} bytes; at most {limit} are read")
        try:
            return self.take(length, what).decode("utf-8")
        except UnicodeDecodeError as error:
            raise GgufFault(f"{what} is not valid UTF-8") from error

    def skip_strings(self, count: int, key: str) -> int:
        """Moves past `count` strings; the length of the longest in bytes."""
        if count * _U64.size > self._left:
            raise GgufFault(f"{key} claims {count} strings, more than fit into the file")
        what, longest = f"the items of {key}", 0
        for _ in range(count):
            length = self.u64(what)
            if length > MAX_STRING_BYTES:
                raise GgufFault(f"{key} has a string of {length} bytes; at most {MAX_STRING_BYTES} are read")
            longest = max(longest, length)
            self.skip(length, what)
        return longest

    def _require(self, length: int, what: str) -> None:
        if length > self._left:
            raise GgufFault(f"the file ends inside {what} (byte {self._source.size})")

    def _refill(self, length: int) -> None:
        self._window = self._source.read(self.position, min(length, self._left))
        self._window_start = self.position
