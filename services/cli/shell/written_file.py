"""Checks that a command can write its file, before the work begins."""

from __future__ import annotations

import tempfile
from pathlib import Path

from schemas.errors import InvalidRequest


def named_folder(name: str, field: str) -> Path:
    """The folder of that name, which need not be there. Raises InvalidRequest for no name, or a file's."""
    if not name:
        raise InvalidRequest(f"{field}: it must not be empty; . is the folder that you are in", field=field)
    folder = Path(name)
    if folder.exists() and not folder.is_dir():
        raise InvalidRequest(f"{field}: {name} is a file, not a folder", field=field)
    return folder


def check_writable(path: Path, field: str) -> None:
    """Raises InvalidRequest for a file that could not be written; makes the folder that it is in."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        why = (error.strerror or "it failed").lower()
        raise InvalidRequest(f"{field}: {path} cannot be written: {why}", field=field) from error
