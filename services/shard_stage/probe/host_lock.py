"""The lock of a host: instances that share it measure one after the other."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.errors import ModelUnusable

LOCK_FILE = "measuring.lock"
PATIENCE_S = 20.0
"""After this wait an instance measures without the lock: a figure that is too low is better than no stage."""
LOOK_INTERVAL_S = 0.02


@contextmanager
def host_lock(folder: Path, patience_s: float = PATIENCE_S) -> Iterator[bool]:
    """Blocks until nobody else on this host is inside, at most `patience_s`; whether it is this one's turn.

    The lock is of the file system, so it goes with a process that dies. Raises ModelUnusable for a folder
    that cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK_FILE).open("w")
    except OSError as error:
        raise ModelUnusable(f"the folder of slices {folder}: {error.strerror}") from error
    with file:
        yield _locked(file.fileno(), patience_s)


def _locked(descriptor: int, patience_s: float) -> bool:
    end_s = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end_s:
                return False
            time.sleep(LOOK_INTERVAL_S)
        else:
            return True
