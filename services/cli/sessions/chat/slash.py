"""The slash commands of a chat, in one table."""

from __future__ import annotations

from collections.abc import Callable

from schemas.ensembles.strategies import STRATEGIES
from services.cli.sessions.chat.conversation import Conversation

Reply = str


class Quit(Exception):
    """Raised to end the chat."""


def _model(conversation: Conversation, argument: str, known: tuple[str, ...]) -> Reply:
    if not argument:
        return f"there are: {', '.join(known) or 'none'}; you talk to {conversation.partner}"
    if argument not in known:
        return f"there is no model {argument!r}; there are: {', '.join(known) or 'none'}"
    conversation.model = argument
    return f"you talk to {conversation.partner}"


def _strategy(conversation: Conversation, argument: str, _known: tuple[str, ...]) -> Reply:
    wanted = tuple(part.strip() for part in argument.split(",") if part.strip())
    if not wanted:
        return f"there are: {', '.join(STRATEGIES)}; you talk to {conversation.partner}"
    if unknown := unknown_strategy(wanted):
        return unknown
    conversation.model = None
    conversation.strategies = wanted
    return f"you talk to {conversation.partner}"


def unknown_strategy(wanted: tuple[str, ...]) -> str | None:
    """What is wrong with these names, if there is no strategy of one of them."""
    unknown = [name for name in wanted if name not in STRATEGIES]
    return f"there is no strategy {unknown[0]!r}; there are: {', '.join(STRATEGIES)}" if unknown else None


def _new(conversation: Conversation, _argument: str, _known: tuple[str, ...]) -> Reply:
    conversation.forget()
    return "what was said before is forgotten"


def _help(_conversation: Conversation, _argument: str, _known: tuple[str, ...]) -> Reply:
    return "\n".join(f"{usage:<18} {what}" for usage, what, _ in SLASH_COMMANDS.values())


def _quit(_conversation: Conversation, _argument: str, _known: tuple[str, ...]) -> Reply:
    raise Quit


SLASH_COMMANDS: dict[str, tuple[str, str, Callable[[Conversation, str, tuple[str, ...]], Reply]]] = {
    "/model": ("/model NAME", "talk to one model; alone, list them", _model),
    "/strategy": ("/strategy S,S", "talk to all models, which decide so; alone, list strategies", _strategy),
    "/new": ("/new", "forget what was said", _new),
    "/help": ("/help", "this list", _help),
    "/quit": ("/quit", "end; Ctrl-D does too", _quit),
}


def obey(line: str, conversation: Conversation, known_models: tuple[str, ...]) -> Reply:
    """Does what a line that begins with a slash says, and returns what to show."""
    name, _, argument = line.partition(" ")
    if name not in SLASH_COMMANDS:
        return f"there is no {name}; there are: {' '.join(SLASH_COMMANDS)}"
    return SLASH_COMMANDS[name][2](conversation, argument.strip(), known_models)
