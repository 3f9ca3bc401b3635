"""Files that are written whole or not at all, and never readable for others if they are secret."""

from __future__ import annotations

import os
from pathlib import Path

OWNER_ONLY = 0o600


def write_whole(path: Path, content: bytes, mode: int = OWNER_ONLY) -> None:
    """Writes or replaces a file. OSError if that cannot be; what was there stays then."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
    new.replace(path)
