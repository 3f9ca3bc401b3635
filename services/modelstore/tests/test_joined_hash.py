"""The hash of all files of a model together."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from schemas.errors import PullFailed
from services.chassis.blobs.chunks import ChunkTable
from services.modelstore.files.hashing import hashed
from services.modelstore.files.joined_hash import JoinedHash
from services.modelstore.files.partial_file import PartialFile

CHUNK = 65_536
CONTENTS = [bytes(range(256)) * 1_000, bytes(range(255, -1, -1)) * 400, b"the last one" * 9_000]


def test_it_is_made_while_files_come_or_are_read_in_whatever_order_their_chunks_come(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}" for number, _ in enumerate(CONTENTS)]
    for path, content in zip(paths, CONTENTS, strict=True):
        path.write_bytes(content)
    tables = [ChunkTable(hashed(path)) for path in paths]
    joined = JoinedHash()
    # Given a file that comes in two goes, its end first
    first, content = tables[0], CONTENTS[0]
    part = PartialFile(tmp_path / "parts", first.sha256, len(content), joined)
    part.write(range(2, 4), content[2 * CHUNK :], first)
    part.close()
    part = PartialFile(tmp_path / "parts", first.sha256, len(content), joined)
    part.resume(first)
    part.write(range(1, 2), content[CHUNK : 2 * CHUNK], first)
    part.write(range(1), content[:CHUNK], first)
    part.check()
    part.close()
    # And one that was not what it should be, and does not count
    other = PartialFile(tmp_path / "parts", tables[1].sha256, CHUNK, joined)
    other.write(range(1), bytes(CHUNK))
    with pytest.raises(PullFailed):
        other.check()
    # And one that is added, and one that is known already
    assert hashed(paths[1], joined=joined).sha256 == tables[1].sha256
    read: list[int] = []
    joined.read(paths[2], read.append)
    assert sum(read) == len(CONTENTS[2])
    # Then it is that of all bytes, one after another
    assert joined.hexdigest() == hashlib.sha256(b"".join(CONTENTS)).hexdigest()
