"""`choir fetch`, `choir cancel`, `choir feedback`: a request that was asked before, by its id."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from services.cli.commands.looking.overview import JsonFlag
from services.cli.views.terminal import console, print_json

RequestId = Annotated[
    str | None, typer.Argument(metavar="REQUEST_ID", help="Which request; `choir requests` lists ids.")
]
LastFlag = Annotated[
    bool, typer.Option("--last", "-l", help="The one that was asked last from this host, instead of an id.")
]


def fetch(
    request_id: RequestId = None,
    last: LastFlag = False,
    wait: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=0, max=3600, help="Wait so long, if it is not done yet."),
    ] = 0.0,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Every text of a chain, every vote of an ensemble.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show the answer to a request that was asked before, as `choir ask` does."""
    from schemas.errors import Undecided
    from schemas.replies import Result
    from services.cli.sessions.ask_session import print_result, show_result, undecided_result
    from services.cli.sessions.last_request import chosen
    from services.client.client import Choir

    which = chosen(request_id, last)

    async def get() -> Result:
        async with Choir() as mesh:
            return await mesh.fetch(which, wait)

    try:
        result = asyncio.run(get())
    except Undecided as error:
        result = undecided_result(error)
    if not as_json:
        show_result(result, verbose=verbose)
    elif not print_result(result):
        raise typer.Exit(1)


def cancel(request_id: RequestId = None, last: LastFlag = False, as_json: JsonFlag = False) -> None:
    """Give up a request: its slots are free for others. Its result, if it has one, stays."""
    from schemas.replies import Cancelled
    from services.cli.sessions.last_request import chosen
    from services.client.client import Choir

    which = chosen(request_id, last)

    async def give_up() -> Cancelled:
        async with Choir() as mesh:
            return Cancelled(request_id=which, cancelled=await mesh.cancel(which))

    reply = asyncio.run(give_up())
    if as_json:
        print_json(reply)
    elif reply.cancelled:
        console().print(f"request {which} is cancelled")
    else:
        console().print(f"request {which} has its result already; `choir fetch {which}` shows it")


def feedback(
    request_id: RequestId = None,
    last: LastFlag = False,
    correct: Annotated[
        str | None, typer.Option("--correct", "-c", metavar="ANSWER", help="What would have been right.")
    ] = None,
    right: Annotated[bool, typer.Option("--right", help="The mesh's own answer was right.")] = False,
    topic: Annotated[
        str | None, typer.Option(metavar="TOPIC", help="What it was about, if you know better than the mesh.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Say what the right answer was, so that the weights of the strategies learn.

    Give --correct ANSWER, or --right if the mesh was. Each agent's answer then counts as right or wrong, once
    for each request. `choir scores` shows what has been learnt.
    """
    from schemas.errors import InvalidRequest
    from schemas.replies import FeedbackCounted
    from services.cli.sessions.last_request import chosen
    from services.client.client import Choir

    if (correct is None) != right:
        raise InvalidRequest("say --correct ANSWER, or --right: one of the two", field="correct")
    which = chosen(request_id, last)

    async def tell() -> FeedbackCounted:
        async with Choir() as mesh:
            answer = (await mesh.fetch(which)).text if correct is None else correct
            if answer is None:
                raise InvalidRequest(
                    f"request {which} has no answer that could be right: say --correct",
                    field="correct",
                )
            return await mesh.feedback(which, answer, topic)

    counted = asyncio.run(tell())
    if as_json:
        print_json(counted)
        return
    out = console()
    out.print(f"right: {', '.join(counted.right) or 'nobody'}")
    out.print(f"wrong: {', '.join(counted.wrong) or 'nobody'}")
    if counted.already_counted:
        out.print("this request was counted before: nothing has changed")
