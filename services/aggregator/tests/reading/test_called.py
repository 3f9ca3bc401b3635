"""Votes on tool calls, and on answers without the thinking before them."""

from __future__ import annotations

from typing import Any

from nats.aio.client import Client

from infra.testing.mesh import enqueue, gather
from schemas.commands import Generate
from schemas.replies import Answer
from schemas.requests.chat import Tool, ToolCall
from services.aggregator.tests.ensemble import aggregating, answer, members, result_of

WEATHER = Tool(name="weather")


def calling(call_id: str, **arguments: Any) -> Any:
    """A member that calls the tool with these arguments."""

    def call(command: Generate) -> Answer:
        made = ToolCall(id=call_id, name="weather", arguments=arguments)
        return answer(command.request_id, command.agent, "").model_copy(update={"tool_calls": (made,)})

    return call


async def test_calls_that_ask_for_the_same_win_together(connection: Client) -> None:
    said = {
        "alpha": calling("a", city="Rome", days=2),
        "beta": calling("b", city="Paris", days=2),
        "gamma": calling("c", days=2, city="Paris"),
        "delta": "Look out of the window.",
    }
    async with aggregating(connection) as mesh, members(connection, said) as asked:
        await enqueue(mesh, gather("r1", tuple(said)).model_copy(update={"tools": (WEATHER,)}))
        result = await result_of(mesh, "r1")
    (call,) = result.tool_calls
    assert (call.id, call.arguments) == ("b", {"city": "Paris", "days": 2})
    assert result.text == ""
    assert (result.decisions[0].share, result.decisions[0].tie) == (0.5, False)
    assert [command.tools for command in asked["delta"].asked] == [(WEATHER,)]


async def test_where_a_text_wins_nothing_is_called(connection: Client) -> None:
    said = {"alpha": calling("a"), "beta": "Paris", "gamma": "paris."}
    async with aggregating(connection) as mesh, members(connection, said):
        await enqueue(mesh, gather("r1", tuple(said)).model_copy(update={"tools": (WEATHER,)}))
        result = await result_of(mesh, "r1")
    assert (result.text, result.tool_calls) == ("Paris", ())


async def test_thinking_casts_no_vote(connection: Client) -> None:
    def thinking(text: str, thought: str) -> Any:
        def think(command: Generate) -> Answer:
            answered = answer(command.request_id, command.agent, text)
            return answered.model_copy(update={"thinking": thought})

        return think

    said = {
        "alpha": thinking("Paris", "It may be Rome."),
        "beta": thinking("Paris", "Rome? No."),
        "gamma": thinking("Rome", "Paris would be too easy."),
    }
    async with aggregating(connection) as mesh, members(connection, said):
        await enqueue(mesh, gather("r1", tuple(said)))
        result = await result_of(mesh, "r1")
    assert result.decisions[0].answer == "paris"
    assert result.answers[2].thinking == "Paris would be too easy."
