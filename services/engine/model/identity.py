"""Tells one model's weights from another's: by all bytes of its files, or by samples of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.errors import ModelUnusable
from services.engine.model.gguf.header import GgufFault
from services.engine.model.gguf.split_files import model_source, sha256_of

SAMPLES = 64
SAMPLE_BYTES = 64 * 1024
LENGTH = 32


def checksum(path: Path, expected: str | None = None) -> str:
    """The SHA-256 of a model's file in hexadecimal, of a split one that of all parts, one after another.
    Raises ModelUnusable, naming the file, where it is not `expected`, and where one cannot be read."""
    with _readable(path):
        found = sha256_of(path)
    if expected is not None and found != expected:
        reason = f"its SHA-256 is {found}, it should be {expected}"
        raise ModelUnusable(f"{path} is damaged or another file: {reason}", field="path")
    return found


def file_identity(path: Path) -> str:
    """A hash of a model's size and of samples all over it: a file of up to 4 MiB is read whole, of a larger
    one so much; all parts of a split one are as one file. The hash is the same for a copy elsewhere; weights
    that were trained on differ all over the file. Raises ModelUnusable where a file cannot be read."""
    with _readable(path), model_source(path) as source:
        digest = hashlib.sha256(str(source.size).encode())
        for number in range(SAMPLES):
            start = max(0, source.size - SAMPLE_BYTES) * number // (SAMPLES - 1)
            digest.update(source.read(start, SAMPLE_BYTES))
    return digest.hexdigest()[:LENGTH]


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Whatever cannot be read is a ModelUnusable that names the file."""
    try:
        yield
    except OSError as error:
        raise ModelUnusable(f"{path}: {error.strerror}", field="path") from error
    except GgufFault as fault:
        raise ModelUnusable(f"{path}: {fault}", field="path") from fault
