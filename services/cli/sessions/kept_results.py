"""Results that were kept in a file: one JSON document, or one on each line."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from schemas.errors import InvalidRequest
from schemas.replies import Result


def kept_results(path: Path) -> list[Result]:
    """The results in a file; of a stream's lines those that are no results are passed over. InvalidRequest
    for a file that cannot be read or has none."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"file: {path} cannot be read: {error}", field="file") from error
    try:
        return [Result.read(text.encode())]
    except ValidationError:
        found = [result for line in text.splitlines() if (result := _read(line)) is not None]
    if not found:
        raise InvalidRequest(f"file: {path} has no result", field="file")
    return found


def _read(line: str) -> Result | None:
    try:
        return Result.read(line.encode())
    except ValidationError:
        return None
