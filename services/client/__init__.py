"""The Python client, a library: `from services.client import Choir`.

Parts of it are imported without the rest: a command line that only prints its help opens no connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.client.client import Batched, Choir

__all__ = ["Batched", "Choir"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from services.client import client

    return getattr(client, name)
