"""Files that a command will write: whether it can, before the work."""

from __future__ import annotations

import tempfile
from pathlib import Path

from schemas.errors import InvalidRequest


def check_writable(path: Path, field: str) -> None:
    """Raises InvalidRequest for a file that could not be written; makes the folder that it is in."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        why = (error.strerror or "it failed").lower()
        raise InvalidRequest(f"{field}: {path} cannot be written: {why}", field=field) from error
