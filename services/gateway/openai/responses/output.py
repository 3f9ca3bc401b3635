"""The output of a result as items, in the order in which a stream shows them."""

from __future__ import annotations

from schemas.replies import Result
from services.gateway.openai.replying.outcome import choices, json_arguments
from services.gateway.openai.responses import items
from services.gateway.openai.responses.items import Item


def output_of(response_id: str, result: Result) -> list[Item]:
    """Thoughts, text, calls: those that there are. A result without any has an empty message."""
    choice = choices(result)[0]
    output = [items.reasoning(response_id, choice.thinking)] if choice.thinking else []
    if choice.text or not choice.tool_calls:
        output.append(items.message(response_id, choice.text))
    output += [
        items.function_call(response_id, number, call.id, call.name, json_arguments(call.arguments))
        for number, call in enumerate(choice.tool_calls)
    ]
    return output
