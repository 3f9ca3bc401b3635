"""`choir chat`: a conversation."""

from __future__ import annotations

from typing import Annotated

import typer

from services.cli.shell import completion
from services.cli.views.terminal import console


def chat(
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Talk to this one model.", autocompletion=completion.model),
    ] = None,
    strategy: Annotated[
        str,
        typer.Option(
            "--strategy",
            "-s",
            metavar="S,S",
            help="Let all models answer and decide so.",
            autocompletion=completion.strategies,
        ),
    ] = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="What comes of each line as a JSON document on a line.")
    ] = False,
) -> None:
    """Talk with one model, or with all of them. /help lists what can be typed."""
    from services.cli.sessions.chat.conversation import Conversation
    from services.cli.sessions.chat.session import ChatSession
    from services.cli.sessions.chat.slash import unknown_strategy

    strategies = tuple(part.strip() for part in strategy.split(",") if part.strip())
    if model is not None and strategies:
        raise typer.BadParameter("--model asks one model, --strategy all of them: not both")
    if (unknown := unknown_strategy(strategies)) is not None:
        raise typer.BadParameter(unknown)
    ChatSession(Conversation(model, strategies), console(), as_json=as_json).run()
