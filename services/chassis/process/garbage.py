"""A start searches no garbage: what imports make stays, and looking through it was a fifth of the time.

Importing this makes the search rare; it is what a program imports first.
"""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager

RARE = 500_000
"""Objects made since the last search, more than all imports of a service make at a time."""

SERVING = 20_000
"""The same while a service serves: Python's own 700 are fewer than what a busy one holds for a moment, so it
searched several times a request, in vain (a tenth of a gateway's processor time)."""

_USUAL = gc.get_threshold()
gc.set_threshold(RARE, *_USUAL[1:])


def end_without_search() -> None:
    """For a program that ends now: all that it has goes with it, so nothing is searched once more."""
    gc.freeze()


@contextmanager
def unsearched() -> Iterator[None]:
    """For a moment in which much is made that is needed."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def search_while_serving() -> None:
    """For a program that goes on for long: what it has imported by now is searched again at its end alone.

    Left out there too, libraries with a check of their own would tell of leaks that are none.
    """
    gc.freeze()
    atexit.register(gc.unfreeze)
    gc.set_threshold(SERVING, *_USUAL[1:])
