"""The commit of Choir that a run was made with."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

CHANGED = " with changes"
DEADLINE_S = 20.0
HERE = Path(__file__).parent


def commit() -> str | None:
    """The hash of this checkout's commit, and whether files differ from it; None where this is no checkout,
    or there is no git."""
    head = _git("rev-parse", "HEAD")
    if head is None:
        return None
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return head + (CHANGED if changed else "")


def _git(*arguments: str) -> str | None:
    program = shutil.which("git")
    if program is None:
        return None
    command = [program, "-C", str(HERE), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    except subprocess.TimeoutExpired:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
