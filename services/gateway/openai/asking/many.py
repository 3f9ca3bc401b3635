"""Several requests to the mesh for one HTTP request."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from schemas.commands import Ask
from schemas.errors import ChoirError
from schemas.replies import Result
from services.gateway.http.context import GatewayContext
from services.gateway.http.errors import status_of

AT_ONCE = 16
FOR_GOOD = frozenset((400, 403, 404, 413, 422))
"""What clients are told of a request that fails however often it is sent."""


async def results_of(
    context: GatewayContext, asks: Sequence[Ask], *, background: bool = False
) -> tuple[Result, ...]:
    """The results in the order of the requests; the first error ends the wait for all of them, and the work
    too, unless it may be asked again as it is. Whether they go on in the `background` is as
    `GatewayContext.follow` says."""
    if len(asks) == 1:
        return (await context.result_of(asks[0], background=background),)
    room = asyncio.Semaphore(AT_ONCE)

    async def one(ask: Ask) -> Result:
        async with room:
            return await context.result_of(ask, background=background)

    tasks = [asyncio.create_task(one(ask)) for ask in asks]
    try:
        return tuple(await asyncio.gather(*tasks))
    except ChoirError as error:
        if status_of(error) in FOR_GOOD:
            context.abandon(ask.request_id for ask in asks)
        raise
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def part_id(request_id: str, number: int) -> str:
    """The id of one of several requests: the first has that of the whole."""
    return request_id if number == 0 else f"{request_id}-{number}"
