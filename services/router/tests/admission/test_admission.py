"""What is let in is stored once; what is refused leaves no trace in the queue."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from infra.testing.mesh import DEADLINE_S, events, eventually, settled
from schemas import subjects
from schemas.commands import ChatMessage, Generate
from schemas.errors import NotReady
from schemas.events import AnyEvent, RequestAccepted, RequestRefused, TaskQueued
from schemas.nodes.lease import ServedModel
from schemas.nodes.workers import WorkerState
from schemas.replies import Accepted, ErrorReply, TokenCount
from services.chassis.identity import Identity
from services.chassis.registry.lease import Lease, Load
from services.router.admission import controller
from services.router.endpoints import handlers
from services.router.tests.front import CONTEXT_TOKENS, MODELS, Front
from services.tasks.token_count import TEMPLATE_TOKENS_PER_MESSAGE, certainly_fits

LONG = "word " * CONTEXT_TOKENS


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever counts a prompt may take long, as on a slow host: one that is not counted is let in."""
    monkeypatch.setattr(controller, "COUNT_TIMEOUT_S", DEADLINE_S)


async def count_as(front: Front, tokens: int, model: str = "alpha") -> list[bytes]:
    """An agent that counts every prompt as so long; the list has what it was asked."""
    asked: list[bytes] = []

    async def count(msg: Any) -> None:
        asked.append(msg.data)
        await msg.respond(TokenCount(prompt_tokens=tokens, context_tokens=CONTEXT_TOKENS).to_bytes())

    await front.client.subscribe(subjects.count_tokens(model), cb=count)
    await settled(front.client)
    return asked


async def test_an_accepted_request_is_one_command_and_its_result_comes_back(front: Front) -> None:
    asked = asyncio.create_task(front.ask(prompt="Tallest animal?", model="alpha", request_id="r1"))
    command = await front.command("r1")
    await front.finish("r1")
    result = await asked

    assert isinstance(command, Generate)
    assert (command.model, command.messages[0].content) == ("alpha", "Tallest animal?")
    assert (result.request_id, result.text, result.error) == ("r1", "the giraffe", None)
    assert await front.stored() == 1


async def test_a_request_without_an_id_gets_one(front: Front) -> None:
    replies = [await front.request(subjects.SUBMIT, prompt="hi", model="alpha") for _ in range(2)]
    first, second = (Accepted.model_validate_json(reply.data).request_id for reply in replies)
    assert first != second
    assert await front.stored() == 2


async def test_acceptance_and_refusal_are_told_without_the_prompt(front: Front) -> None:
    await front.request(subjects.SUBMIT, prompt="secret", model="alpha", request_id="r1")
    await front.refused(subjects.SUBMIT, prompt="secret", model="omega", request_id="r2")

    async def all_three() -> list[AnyEvent] | None:
        told = await events(front.client)
        return told if len(told) == 3 else None

    accepted, queued, refused = await eventually(all_three)
    assert isinstance(queued, TaskQueued)
    assert (queued.task_id, queued.trace_id, queued.model) == ("r1.1.alpha", accepted.trace_id, "alpha")
    assert isinstance(accepted, RequestAccepted)
    assert (accepted.request_id, accepted.topology, accepted.models) == ("r1", "single", ("alpha",))
    assert isinstance(refused, RequestRefused)
    assert (refused.request_id, refused.error.code) == ("r2", "unknown_model")
    assert "secret" not in accepted.model_dump_json() + refused.model_dump_json()


@pytest.mark.parametrize(
    ("ask", "code", "field"),
    [
        ({"model": "omega"}, "unknown_model", "model"),
        ({"models": ["omega"]}, "unknown_model", "models.0"),
        ({"strategies": ["dice"]}, "unknown_strategy", "strategies.0"),
        ({"quorum": 4}, "invalid_request", "quorum"),
        ({"colour": "red"}, "invalid_request", "colour"),
        ({"prompt": ""}, "invalid_request", "prompt"),
        ({"request_id": "a.b c"}, "invalid_request", "request_id"),
        ({"timeout_s": -3}, "invalid_request", "timeout_s"),
    ],
)
async def test_what_is_refused_is_not_enqueued(
    ask: dict[str, Any], code: str, field: str, front: Front
) -> None:
    for subject in (subjects.ASK, subjects.SUBMIT):
        error = await front.refused(subject, **({"prompt": "hi"} | ask))
        assert (error.code, error.field) == (code, field)
        assert error.known == (MODELS if code == "unknown_model" else error.known)
    assert await front.stored() == 0


async def test_what_is_no_json_is_not_enqueued(front: Front) -> None:
    reply = await front.client.request(subjects.ASK, b"hello", timeout=60)
    assert ErrorReply.model_validate_json(reply.data).error.code == "invalid_request"
    assert await front.stored() == 0


@pytest.mark.parametrize("field", ["prompt", "messages"])
async def test_what_the_broker_would_not_carry_is_refused_by_name(field: str, front: Front) -> None:
    text = "x" * (front.client.max_payload - 400)
    content: Any = text if field == "prompt" else [{"role": "user", "content": text}]
    error = await front.refused(subjects.ASK, model="alpha", **{field: content})
    assert (error.code, error.field) == ("payload_too_large", field)
    assert await front.stored() == 0


async def test_a_full_queue_is_overload_and_says_when_to_come_again(front: Front) -> None:
    js = front.client.jetstream()
    config = (await js.stream_info(subjects.COMMANDS_STREAM)).config
    config.max_msgs = 2
    await js.update_stream(config)
    for _ in range(2):
        await front.request(subjects.SUBMIT, prompt="hi", model="alpha")
    reply = await front.request(subjects.ASK, prompt="hi", model="alpha", request_id="r3")
    error = ErrorReply.model_validate_json(reply.data).error
    assert (error.code, error.request_id) == ("overloaded", "r3")
    assert error.retry_after_s and error.retry_after_s > 0
    assert (reply.headers or {})[subjects.ERROR_CODE_HEADER] == "429"
    assert await front.stored() == 2


async def test_a_model_that_is_only_out_of_service_is_refused_with_the_reason(front: Front) -> None:
    worker = {"id": "w1", "type": "ollama", "host": "example.test", "port": 11434, "model": "delta"}
    await front.request(subjects.WORKER, action="add", worker=worker)

    async def registered() -> bool:
        error = await front.refused(subjects.SUBMIT, prompt="hi", model="delta")
        assert (error.code, error.field, error.known) == ("unknown_model", "model", MODELS)
        return "worker w1 at http://example.test:11434 is registered, and no agent uses it" in error.message

    await eventually(registered)
    problem = NotReady("worker w1 is cordoned: `choir worker uncordon w1` lets it in again").body()
    state = WorkerState(id="w1", type="ollama", url="http://example.test:11434", cordoned=True)
    served = ServedModel(name="delta", backend="ollama", slots=0, worker=state, problem=problem)
    lease = Lease(front.client, Identity("agent", "agent-2"), lambda: Load(models=(served,)))
    await lease.start()

    async def cordoned() -> bool:
        error = await front.refused(subjects.SUBMIT, prompt="hi", models=["alpha", "delta"])
        assert error.field == "models.1"
        return error.message.endswith("; " + problem.message)

    await eventually(cordoned)
    await lease.stop()


# --- one id, one request ----------------------------------------------------------------


async def test_the_same_request_again_while_it_is_in_work_is_the_same_request(front: Front) -> None:
    asked = [
        asyncio.create_task(front.ask(prompt="hi", model="alpha", request_id="r1", timeout_s=60 - i))
        for i in range(3)
    ]
    await front.command("r1")
    await front.finish("r1")
    results = await asyncio.gather(*asked)
    assert results[0] == results[1] == results[2]
    assert await front.stored() == 1


async def test_a_request_in_work_stays_accepted_when_the_last_agent_of_its_model_goes(front: Front) -> None:
    ask = {"prompt": "Tallest animal?", "model": "alpha", "request_id": "r1"}
    await front.request(subjects.SUBMIT, **ask)
    leases = await front.client.jetstream().key_value(subjects.NODES_BUCKET)
    await leases.delete(subjects.node_key("agent", "agent-1"))

    async def gone() -> bool:
        return (await front.refused(subjects.SUBMIT, prompt="hi", model="alpha")).code == "unknown_model"

    await eventually(gone)
    again = Accepted.model_validate_json((await front.request(subjects.SUBMIT, **ask)).data)

    assert again.request_id == "r1"
    assert await front.stored() == 1


async def test_the_same_request_again_after_its_result_gets_that_result(front: Front) -> None:
    asked = asyncio.create_task(front.ask(prompt="hi", model="alpha", request_id="r1"))
    await front.finish("r1")
    assert await front.ask(prompt="hi", model="alpha", request_id="r1") == await asked
    assert await front.stored() == 1


@pytest.mark.parametrize("subject", [subjects.ASK, subjects.SUBMIT])
async def test_another_request_under_an_id_that_is_in_work_is_a_conflict(subject: str, front: Front) -> None:
    asked = asyncio.create_task(front.ask(prompt="hi", model="alpha", request_id="r1"))
    await front.command("r1")
    error = await front.refused(subject, prompt="something else", model="alpha", request_id="r1")
    assert (error.code, error.field) == ("request_id_conflict", "request_id")
    await front.finish("r1")
    assert (await asked).text == "the giraffe"
    assert await front.stored() == 1


@pytest.mark.parametrize("subject", [subjects.ASK, subjects.SUBMIT])
async def test_another_request_under_an_id_that_has_a_result_is_a_conflict(
    subject: str, front: Front
) -> None:
    asked = asyncio.create_task(front.ask(prompt="hi", model="alpha", request_id="r1"))
    await front.finish("r1")
    await asked
    error = await front.refused(subject, prompt="hi", model="beta", request_id="r1")
    assert error.code == "request_id_conflict"
    assert await front.stored() == 1


async def test_asking_again_with_less_patience_does_not_end_the_request(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers, "OVERTIME_S", 0.1)
    asked = asyncio.create_task(front.ask(prompt="hi", model="alpha", request_id="r1", timeout_s=60))
    await front.command("r1")
    error = await front.refused(subjects.ASK, prompt="hi", model="alpha", request_id="r1", timeout_s=0.1)
    assert (error.code, error.request_id) == ("not_ready", "r1")
    await front.finish("r1")
    assert (await asked).text == "the giraffe"


# --- context ----------------------------------------------------------------------------


def test_a_prompt_fits_for_certain_when_even_a_token_for_every_byte_would() -> None:
    fits = ChatMessage(role="user", content="é" * 10)
    assert certainly_fits((fits,), 20 + TEMPLATE_TOKENS_PER_MESSAGE + 1)
    assert not certainly_fits((fits,), 20 + TEMPLATE_TOKENS_PER_MESSAGE)
    assert not certainly_fits((fits, fits), 20 + TEMPLATE_TOKENS_PER_MESSAGE + 1)


@pytest.mark.usefixtures("patient")
async def test_a_prompt_over_the_context_is_refused_with_both_numbers(front: Front) -> None:
    await count_as(front, 251)
    error = await front.refused(subjects.ASK, prompt=LONG, model="alpha")
    assert (error.code, error.field) == ("context_exceeded", "prompt")
    assert "251" in error.message and str(CONTEXT_TOKENS) in error.message
    assert await front.stored() == 0


@pytest.mark.usefixtures("patient")
async def test_a_conversation_over_the_context_is_refused_by_its_name(front: Front) -> None:
    await count_as(front, CONTEXT_TOKENS)
    messages = [{"role": "user", "content": LONG}]
    error = await front.refused(subjects.ASK, messages=messages, model="alpha")
    assert (error.code, error.field) == ("context_exceeded", "messages")


@pytest.mark.usefixtures("patient")
async def test_one_member_for_whom_a_prompt_is_too_long_is_enough_to_refuse_it(front: Front) -> None:
    await count_as(front, 10, "alpha")
    await count_as(front, 900, "beta")
    error = await front.refused(subjects.ASK, prompt=LONG, models=["alpha", "beta"])
    assert error.code == "context_exceeded"
    assert "beta" in error.message
    assert await front.stored() == 0


@pytest.mark.usefixtures("patient")
async def test_a_long_prompt_that_fits_is_let_in_and_nobody_counts_a_short_one(front: Front) -> None:
    counted = await count_as(front, CONTEXT_TOKENS - 1)
    await front.request(subjects.SUBMIT, prompt="hi", model="alpha")
    assert counted == []
    await front.request(subjects.SUBMIT, prompt=LONG, model="alpha")
    assert len(counted) == 1
    assert await front.stored() == 2


async def test_a_prompt_that_nobody_can_count_is_let_in(front: Front) -> None:
    reply = await front.request(subjects.SUBMIT, prompt=LONG, model="alpha", request_id="r1")
    assert Accepted.model_validate_json(reply.data).request_id == "r1"
    assert await front.stored() == 1
