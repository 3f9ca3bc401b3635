"""The errors of a load test, in one sentence each."""

from __future__ import annotations


class LoadtestError(Exception):
    """Any failure that the load test has a name for."""


class WrongOption(LoadtestError):
    """Raised when an option cannot be meant: it names the option and what it may be."""


class NoMesh(LoadtestError):
    """Raised when there is no mesh to test, or none of the models that are asked for."""
