"""Completion in a shell: models of the running mesh, and strategies."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

MESH_LIMIT_S = 0.7
"""Nobody waits longer for a proposal: without a mesh, or with a busy one, there is none."""


def model(incomplete: str) -> list[str]:
    """Models that begin so."""
    return [name for name in live_models() if name.startswith(incomplete)]


def models(incomplete: str) -> list[str]:
    """The same where several are given, `A,B`: for the last of them."""
    return last_of_list(incomplete, live_models())


def strategies(incomplete: str) -> list[str]:
    """Strategies, where several are given: for the last of them."""
    from schemas.ensembles.strategies import STRATEGIES

    return last_of_list(incomplete, STRATEGIES)


def last_of_list(incomplete: str, known: Sequence[str]) -> list[str]:
    """`majority,we` as `majority,weighted`; what is in the list already is not proposed again."""
    before, comma, last = incomplete.rpartition(",")
    named = before.split(",")
    return [f"{before}{comma}{name}" for name in known if name.startswith(last) and name not in named]


def live_models() -> list[str]:
    """The models that can be asked now; none if the mesh does not say so in time."""
    from schemas.errors import ChoirError
    from services.client.client import Choir

    async def look() -> list[str]:
        async with asyncio.timeout(MESH_LIMIT_S), Choir(name="choir-completion") as mesh:
            return [summary.name for summary in await mesh.models()]

    try:
        return asyncio.run(look())
    except (TimeoutError, ChoirError):  # whoever presses the tabulator wants no error in the line
        return []
