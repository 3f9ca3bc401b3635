"""Tools, raw prompts, texts to embed and questions about tokens, at the router's door."""

from __future__ import annotations

from typing import Any

import pytest

from infra.testing.mesh import settled
from schemas import subjects
from schemas.commands import Gather, Generate
from schemas.errors import InvalidRequest
from schemas.replies import ErrorReply, Tokenized
from services.chassis.nats.error_replies import error_headers
from services.router.tests.front import CONTEXT_TOKENS, Front

IMAGE = {"type": "image", "data": "aaaa"}
TOOL = {"name": "weather", "description": "of a city", "parameters": {"type": "object"}}


@pytest.mark.parametrize(
    ("field", "ask"),
    [
        ("tools", {"prompt": "hi", "tools": [TOOL]}),
        ("raw", {"raw": {"text": "Once upon"}}),
        ("embed", {"embed": {"inputs": ["a giraffe"]}}),
        (
            "messages.0.images",
            {"messages": [{"role": "user", "content": [{"type": "image", "data": "aaaa"}]}]},
        ),
        ("sampling.think", {"prompt": "hi", "sampling": {"think": True}}),
    ],
)
async def test_what_no_agent_of_a_model_can_do_is_refused_at_the_door(
    front: Front, field: str, ask: dict[str, Any]
) -> None:
    refused = await front.refused(subjects.SUBMIT, model="gamma", **ask)
    assert (refused.code, refused.field) == ("invalid_request", field)
    assert "ask another model" in refused.message
    assert await front.stored() == 0


async def test_tools_that_must_not_be_called_need_no_model_that_can(front: Front) -> None:
    ask = {"prompt": "hi", "model": "gamma", "tools": [TOOL], "tool_choice": "none"}
    await front.request(subjects.SUBMIT, request_id="r1", **ask)
    assert await front.stored() == 1


async def test_an_ensemble_in_which_somebody_can_is_asked(front: Front) -> None:
    ask = {"prompt": "hi", "models": ["gamma", "alpha"], "tools": [TOOL], "tool_choice": "required"}
    await front.request(subjects.SUBMIT, request_id="r1", **ask)
    command = await front.command("r1")
    assert isinstance(command, Gather)
    assert command.generate("alpha").tools[0].name == "weather"
    assert command.generate("alpha").tool_choice == "required"


@pytest.mark.parametrize("ask", [{"raw": {"tokens": [1, 2]}}, {"embed": {"inputs": ["a giraffe"]}}])
async def test_a_task_of_one_model_is_one_durable_command(front: Front, ask: dict[str, Any]) -> None:
    await front.request(subjects.SUBMIT, model="alpha", request_id="r1", **ask)
    command = await front.command("r1")
    assert isinstance(command, Generate)
    assert command.messages == ()
    assert command.model_dump(mode="json", include=set(ask), exclude_none=True).keys() == ask.keys()
    assert await front.stored() == 1


async def answer_as_agent(front: Front, model: str, reply: bytes, headers: dict[str, str] | None) -> None:
    async def answer(msg: Any) -> None:
        await front.client.publish(msg.reply, reply, headers=headers)

    await front.client.subscribe(subjects.tokenizer(model), cb=answer)
    await settled(front.client)


async def test_an_agent_is_asked_for_tokens(front: Front) -> None:
    tokens = Tokenized(model="alpha", tokens=(1, 2), context_tokens=CONTEXT_TOKENS)
    await answer_as_agent(front, "alpha", tokens.to_bytes(), None)
    reply = await front.request(subjects.TOKENIZE, model="alpha", text="a giraffe")
    assert Tokenized.model_validate_json(reply.data) == tokens


async def test_what_the_agent_refuses_is_refused(front: Front) -> None:
    error = InvalidRequest("tokens.0: there is no token 99", field="tokens.0")
    reply = ErrorReply(error=error.body()).to_bytes()
    await answer_as_agent(front, "alpha", reply, error_headers(error))
    refused = await front.refused(subjects.TOKENIZE, model="alpha", tokens=[99])
    assert (refused.code, refused.field) == ("invalid_request", "tokens.0")


async def test_nobody_tokenizes_for_a_model_that_is_not_there(front: Front) -> None:
    refused = await front.refused(subjects.TOKENIZE, model="omega", text="a giraffe")
    assert (refused.code, refused.field) == ("unknown_model", "model")
