"""A model of the store in one file or in several, read by range from the hosts that hold them."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.errors import ModelUnusable
from schemas.nodes.model_store import StoredModel
from services.chassis.blobs.range_source import RangeSource
from services.engine.model.gguf.check import check_model
from services.engine.model.gguf.header import ByteSource, GgufHeader, read_header
from services.engine.model.gguf.split_files import JoinedSource


class ZeroWeights:
    """A header, and zeros where the tensors of its file are: nothing of these is read."""

    def __init__(self, file: ByteSource, data_offset: int) -> None:
        self._file = file
        self._data_offset = data_offset
        self.size = file.size

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`."""
        length = max(0, min(length, self.size - offset))
        in_header = max(0, min(length, self._data_offset - offset))
        return (self._file.read(offset, in_header) if in_header else b"") + bytes(length - in_header)


class KeptModel:
    """What a stage reads of one; `parts` are its files, in their order. `sha256` is that of all its bytes, as
    the catalogue says. Raises ModelUnusable where that says nothing of several files together."""

    def __init__(self, model: StoredModel, parts: Sequence[RangeSource]) -> None:
        if model.whole_sha256 is None:
            raise ModelUnusable(
                f"the catalogue does not know the SHA-256 of the {len(model.files)} files of {model.name} "
                f"together: `choir pull {model.name} --store` at a host that holds it reads them for that",
                field="path",
            )
        self.sha256 = model.whole_sha256
        self.file = model.files[0].name
        self._parts = tuple(parts)
        self._data_offsets: tuple[int, ...] = ()
        self.source: ByteSource = _joined(self._parts)

    @property
    def size(self) -> int:
        """How many bytes all of it has."""
        return self.source.size

    @property
    def fetched_bytes(self) -> int:
        """What came over the wire."""
        return sum(part.fetched_bytes for part in self._parts)

    def checked(self) -> GgufHeader:
        """The header of the whole model; the beginnings of all files are kept from now on. Blocks; raises
        GgufFault where they are no model, and PullFailed if nobody sends them."""
        header = check_model(self.source)
        later = (read_header(part).data_offset for part in self._parts[1:])
        self._data_offsets = (header.data_offset, *later)
        for part, data_offset in zip(self._parts, self._data_offsets, strict=True):
            part.pin(data_offset)
        return header

    def without_weights(self) -> ByteSource:
        """The same with weights that are all zero, of which nothing is fetched; the model was checked."""
        parts = zip(self._parts, self._data_offsets, strict=True)
        return _joined([ZeroWeights(part, data_offset) for part, data_offset in parts])


def _joined(parts: Sequence[ByteSource]) -> ByteSource:
    return parts[0] if len(parts) == 1 else JoinedSource(parts)
