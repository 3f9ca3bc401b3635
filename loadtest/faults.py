"""The errors of a load test, in one sentence each, and the exit codes that stand for them."""

from __future__ import annotations

import sys

from schemas.errors import MeshUnreachable

FAILED, WRONG_USAGE, NO_MESH = 1, 2, 3


class LoadtestError(Exception):
    """Any failure that the load test has a name for."""


class WrongOption(LoadtestError):
    """Raised when an option cannot be meant: it names the option and what it may be."""


class NoMesh(LoadtestError):
    """Raised when there is no mesh to test, or none of the models that are asked for."""


def complain(program: str, error: Exception) -> int:
    """Tells an error in one line on standard error; the exit code that stands for it."""
    sys.stderr.write(f"{program}: {' '.join(str(error).split())}\n")
    if isinstance(error, WrongOption):
        return WRONG_USAGE
    return NO_MESH if isinstance(error, (NoMesh, MeshUnreachable)) else FAILED
