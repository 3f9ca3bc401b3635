"""Request and reply: typed in, typed out, and every error typed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from infra.testing.mesh import DEADLINE_S, eventually
from schemas import subjects
from schemas.commands import Ask
from schemas.errors import InvalidRequest, Overloaded, UnknownModel
from schemas.message import Message
from schemas.replies import Accepted, ErrorReply, Result
from services.chassis.identity import Identity
from services.chassis.nats import endpoints as module
from services.chassis.nats.endpoints import Caller, Endpoints, parse
from services.chassis.nats.error_replies import HTTP_LIKE

Handle = Callable[[Ask, Caller], Awaitable[None]]


@asynccontextmanager
async def answering(client: Client, handle: Handle, limit: int = 8_192) -> AsyncIterator[Endpoints]:
    """An instance that answers `choir.ask` as the test says."""
    endpoints = Endpoints(client, Identity("router", "router-1"), "for a test", limit)
    await endpoints.start()
    await endpoints.add(subjects.doors(subjects.ASK), Ask, handle)
    try:
        yield endpoints
    finally:
        await endpoints.stop(patience_s=0.1)


async def accept(ask: Ask, caller: Caller) -> None:
    await caller.send(Accepted(request_id=ask.request_id or "new"))


async def never(_ask: Ask, _caller: Caller) -> None:
    pytest.fail("a request that is refused reached its handler")


def error_of(reply: Msg) -> ErrorReply:
    """The error in a reply, whose headers say the same."""
    error = ErrorReply.model_validate_json(reply.data)
    headers = reply.headers or {}
    assert headers[subjects.KIND_HEADER] == "error"
    assert headers[subjects.ERROR_CODE_HEADER] == HTTP_LIKE.get(error.error.code, "500")
    assert headers[subjects.ERROR_HEADER]
    assert "\n" not in headers[subjects.ERROR_HEADER]
    return error


async def test_a_request_reaches_its_handler_and_the_reply_its_caller(connection: Client) -> None:
    async with answering(connection, accept):
        reply = await connection.request(subjects.ASK, b'{"prompt": "hi", "request_id": "r1"}', timeout=60)
    assert Accepted.model_validate_json(reply.data).request_id == "r1"


PROMPT = {"prompt": "hi"}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"hello", "body"),
        (b"\xff\xfe", "body"),
        (b"[1]", "body"),
        (b'{"prompt": "hi"', "body"),
        (b'{"prompt": "\\ud800"}', "body"),
        (b"[" * 5_000, "body"),
        (b"", "prompt"),
        (PROMPT | {"colour": "red"}, "colour"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": " \n\t"}, "prompt"),
        ({"prompt": 7}, "prompt"),
        ({"prompt": None}, "prompt"),
        (PROMPT | {"messages": [{"role": "user", "content": "x"}]}, "prompt"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages.0.content"),
        (PROMPT | {"request_id": "a.b"}, "request_id"),
        (PROMPT | {"request_id": "a b"}, "request_id"),
        (PROMPT | {"request_id": "*"}, "request_id"),
        (PROMPT | {"request_id": "r\n"}, "request_id"),
        (PROMPT | {"request_id": "r" * 65}, "request_id"),
        (PROMPT | {"request_id": 7}, "request_id"),
        (PROMPT | {"model": "two words"}, "model"),
        (PROMPT | {"model": "a", "models": ["b"]}, "model"),
        (PROMPT | {"models": ["a", "a"]}, "models"),
        (PROMPT | {"models": "a"}, "models"),
        (PROMPT | {"timeout_s": -1}, "timeout_s"),
        (PROMPT | {"timeout_s": 1e9}, "timeout_s"),
        (PROMPT | {"timeout_s": float("nan")}, "timeout_s"),
        (PROMPT | {"timeout_s": "60"}, "timeout_s"),
        (PROMPT | {"quorum": 0}, "quorum"),
        (PROMPT | {"max_agents": 10**9}, "max_agents"),
        (PROMPT | {"stream": "yes"}, "stream"),
        (PROMPT | {"schema_version": 2}, "schema_version"),
        (PROMPT | {"sampling": {"max_tokens": -5}}, "sampling.max_tokens"),
        (PROMPT | {"sampling": {"temperature": float("nan")}}, "sampling.temperature"),
        (PROMPT | {"sampling": {"temperature": float("inf")}}, "sampling.temperature"),
        (PROMPT | {"sampling": {"seed": 2**40}}, "sampling.seed"),
        (PROMPT | {"sampling": {"top_p": 0}}, "sampling.top_p"),
        (PROMPT | {"sampling": {"grammar": "root ::= x", "json_schema": {}}}, "sampling.grammar"),
        (PROMPT | {"sampling": {"stop": [""]}}, "sampling.stop"),
    ],
)
def test_bad_input_is_refused_with_the_field_that_is_wrong(
    body: bytes | dict[str, object], field: str
) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(InvalidRequest) as refused:
        parse(data, Ask)
    assert refused.value.field == field
    assert refused.value.message.startswith(f"{field}: ")


@pytest.mark.parametrize("body", [b"hello", b"", b'{"prompt": "hi", "colour": "red"}'])
async def test_bad_input_gets_a_typed_reply_and_reaches_no_handler(body: bytes, connection: Client) -> None:
    async with answering(connection, never):
        reply = await connection.request(subjects.ASK, body, timeout=60)
    assert error_of(reply).error.code == "invalid_request"
    assert (reply.headers or {})[subjects.ERROR_CODE_HEADER] == "400"


async def test_a_typed_error_of_a_handler_is_the_reply(connection: Client) -> None:
    async def refuse(_ask: Ask, _caller: Caller) -> None:
        raise UnknownModel("no one serves\n'größe'", field="model", known=("alpha",))

    async with answering(connection, refuse):
        reply = await connection.request(subjects.ASK, b'{"prompt": "hi", "request_id": "r1"}', timeout=60)
    error = error_of(reply).error
    assert (error.code, error.field, error.known) == ("unknown_model", "model", ("alpha",))
    assert error.request_id == "r1"
    assert error.message == "no one serves\n'größe'"
    assert (reply.headers or {})[subjects.ERROR_HEADER] == "no one serves 'gr??e'"
    assert (reply.headers or {})[subjects.ERROR_CODE_HEADER] == "404"


async def test_a_handler_with_a_fault_answers_with_an_internal_error_and_goes_on(connection: Client) -> None:
    async def fail_once(ask: Ask, caller: Caller) -> None:
        if ask.prompt == "fail":
            raise ZeroDivisionError("something that is nobody's business")
        await accept(ask, caller)

    async with answering(connection, fail_once):
        reply = await connection.request(subjects.ASK, b'{"prompt": "fail"}', timeout=60)
        after = await connection.request(subjects.ASK, b'{"prompt": "hi"}', timeout=60)
    error = error_of(reply).error
    assert (error.code, error.message) == ("internal", "ZeroDivisionError in router")
    assert Accepted.model_validate_json(after.data)


async def test_slow_handlers_do_not_hold_up_one_another(connection: Client) -> None:
    together = asyncio.Barrier(20)

    async def meet(ask: Ask, caller: Caller) -> None:
        await together.wait()
        await accept(ask, caller)

    async with answering(connection, meet):
        replies = await asyncio.gather(
            *(connection.request(subjects.ASK, b'{"prompt": "hi"}', timeout=60) for _ in range(20))
        )
    assert all(Accepted.model_validate_json(reply.data) for reply in replies)


async def test_more_callers_than_may_wait_are_told_to_come_later(connection: Client) -> None:
    release, waiting = asyncio.Event(), 0

    async def wait(ask: Ask, caller: Caller) -> None:
        nonlocal waiting
        waiting += 1
        await release.wait()
        await accept(ask, caller)

    async with answering(connection, wait, limit=3):  # the last place is for another tenant
        patient = [
            asyncio.create_task(connection.request(subjects.ASK, b'{"prompt": "hi"}', timeout=60))
            for _ in range(2)
        ]
        await eventually(lambda: waiting == 2)
        refused = await connection.request(subjects.ASK, b'{"prompt": "hi"}', timeout=60)
        release.set()
        answered = await asyncio.gather(*patient)
        again = await connection.request(subjects.ASK, b'{"prompt": "hi"}', timeout=60)
    error = error_of(refused).error
    assert (error.code, error.retry_after_s) == ("overloaded", 1.0)
    assert all(Accepted.model_validate_json(reply.data) for reply in [*answered, again])


async def test_who_still_waits_when_it_stops_is_told_to_ask_again(connection: Client) -> None:
    begun = asyncio.Event()

    async def wait(_ask: Ask, _caller: Caller) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with answering(connection, wait):
        asked = asyncio.create_task(
            connection.request(subjects.ASK, b'{"prompt": "hi", "request_id": "r1"}', timeout=60)
        )
        await begun.wait()
    error = error_of(await asked).error
    assert (error.code, error.request_id) == ("not_ready", "r1")


async def test_a_request_without_a_reply_subject_is_answered_to_nobody(connection: Client) -> None:
    done = asyncio.Event()

    async def handle(ask: Ask, caller: Caller) -> None:
        await accept(ask, caller)
        done.set()

    async with answering(connection, handle):
        await connection.publish(subjects.ASK, b'{"prompt": "hi"}')
        await asyncio.wait_for(done.wait(), 180)


async def test_a_result_that_is_an_error_carries_the_headers_of_one(connection: Client) -> None:
    async def fail(ask: Ask, caller: Caller) -> None:
        await caller.send_result(Result.unreadable("r1", Overloaded("full"), 1.0))

    async with answering(connection, fail):
        reply = await connection.request(subjects.ASK, b'{"prompt": "hi"}', timeout=60)
    headers = reply.headers or {}
    assert headers[subjects.KIND_HEADER] == "result"
    assert (headers[subjects.ERROR_CODE_HEADER], headers[subjects.ERROR_HEADER]) == ("429", "full")


async def test_the_services_api_sees_the_instance_its_endpoints_and_their_use(connection: Client) -> None:
    async with answering(connection, accept):
        await connection.request(subjects.ASK, b'{"prompt": "hi"}', timeout=60)
        pong = json.loads((await connection.request("$SRV.PING.router", b"", timeout=60)).data)
        info = json.loads((await connection.request("$SRV.INFO.router", b"", timeout=60)).data)
        stats = json.loads((await connection.request("$SRV.STATS.router", b"", timeout=60)).data)
    assert pong["name"] == "router"
    assert pong["metadata"]["instance"] == "router-1"
    assert [endpoint["subject"] for endpoint in info["endpoints"]] == [subjects.doors(subjects.ASK)]
    assert [endpoint["num_requests"] for endpoint in stats["endpoints"]] == [1]


async def test_an_endpoint_needs_the_service_to_be_started(connection: Client) -> None:
    endpoints = Endpoints(connection, Identity("router", "router-1"), "for a test")

    async def nothing(_request: Message, _caller: Caller) -> None:
        """Never called."""

    with pytest.raises(RuntimeError, match="start"):
        await endpoints.add(subjects.doors(subjects.ASK), Message, nothing)


async def test_a_reply_that_the_broker_does_not_carry_is_an_error_that_says_so(
    connection: Client,
) -> None:
    async def say_too_much(_ask: Ask, caller: Caller) -> None:
        await caller.send(Accepted.model_construct(request_id="x" * connection.max_payload))

    async with answering(connection, say_too_much):
        reply = await connection.request(subjects.ASK, b'{"prompt": "hi"}', timeout=60)
    error = error_of(reply).error
    assert error.code == "payload_too_large"
    assert f"the broker carries {connection.max_payload}" in error.message


async def test_an_error_that_names_too_much_is_sent_without_it(connection: Client) -> None:
    async def refuse(_ask: Ask, _caller: Caller) -> None:
        names = tuple(f"model-{number:0100}" for number in range(20_000))
        raise UnknownModel("model: nobody serves it", field="model", known=names)

    async with answering(connection, refuse):
        reply = await connection.request(subjects.ASK, b'{"prompt": "hi"}', timeout=60)
    error = error_of(reply).error
    assert (error.code, error.field, error.known) == ("unknown_model", "model", None)


async def test_a_summary_loses_its_details_before_it_fails(connection: Client) -> None:
    async def sum_up(_ask: Ask, caller: Caller) -> None:
        sizes = (2 * connection.max_payload, connection.max_payload // 2, 10)
        await caller.send_what_fits(Accepted.model_construct(request_id="x" * size) for size in sizes)

    async with answering(connection, sum_up):
        reply = await connection.request(subjects.ASK, b'{"prompt": "hi"}', timeout=60)
    assert json.loads(reply.data)["request_id"] == "x" * (connection.max_payload // 2)


@asynccontextmanager
async def streaming(client: Client, handle: Handle) -> AsyncIterator[None]:
    """An instance that answers `choir.stream.ask` as the test says."""
    endpoints = Endpoints(client, Identity("router", "router-1"), "for a test")
    await endpoints.start()
    await endpoints.add(subjects.doors(subjects.STREAM_ASK), Ask, handle, streams=True)
    try:
        yield
    finally:
        await endpoints.stop(patience_s=0.1)


async def replies_until_the_end(client: Client, body: bytes) -> list[Msg]:
    """What comes back on `choir.stream.ask`, with the empty message that ends it."""
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox)
    await client.publish(subjects.STREAM_ASK, body, reply=inbox)
    came = [await subscription.next_msg(60)]
    while came[-1].data:
        came.append(await subscription.next_msg(60))
    return came


async def test_several_replies_end_with_an_empty_one(connection: Client) -> None:
    async def twice(_ask: Ask, caller: Caller) -> None:
        await caller.send(Accepted(request_id="one"))
        await caller.send(Accepted(request_id="two"))

    async with streaming(connection, twice):
        came = await replies_until_the_end(connection, b'{"prompt": "hi"}')
    assert [Accepted.read(msg.data).request_id for msg in came[:-1]] == ["one", "two"]


@pytest.mark.parametrize("body", [b'{"prompt": "hi"}', b"no json"])
async def test_replies_end_with_an_empty_one_after_an_error_too(connection: Client, body: bytes) -> None:
    async def fail(_ask: Ask, _caller: Caller) -> None:
        raise ZeroDivisionError

    async with streaming(connection, fail):
        refusal, end = await replies_until_the_end(connection, body)
    assert error_of(refusal)
    assert (end.data, end.headers) == (b"", None)


async def test_who_may_have_nothing_open_is_refused_unread_and_others_are_served(connection: Client) -> None:
    async def accept_or_fail(ask: Ask, caller: Caller) -> None:
        assert caller.tenant != "alice"
        await accept(ask, caller)

    endpoints = Endpoints(
        connection,
        Identity("router", "router-1"),
        "for a test",
        most=lambda tenant: 0 if tenant == "alice" else None,
    )
    await endpoints.start()
    await endpoints.add(subjects.doors(subjects.ASK), Ask, accept_or_fail)
    await endpoints.add(subjects.doors(subjects.STREAM_ASK), Ask, accept_or_fail, streams=True)
    # Given many requests of one tenant, of every form, and one of another among them
    ask, stream = subjects.door("alice", subjects.ASK), subjects.door("alice", subjects.STREAM_ASK)
    requests = [
        connection.request(ask, body, timeout=DEADLINE_S, headers=headers)
        for body in (b'{"prompt": "hi"}', b"no json", b"", b"x" * 200_000)
        for headers in (None, {subjects.NEW_HEADER: "1"})
    ]
    other = connection.request(subjects.door("bob", subjects.ASK), b'{"prompt": "hi"}', timeout=DEADLINE_S)
    inbox = connection.new_inbox()
    streamed = await connection.subscribe(inbox)
    await connection.publish(stream, b'{"prompt": "hi"}', reply=inbox)
    await connection.publish(ask, b'{"prompt": "hi"}')  # nobody waits for this one's reply
    *refused, served = await asyncio.gather(*requests, other)
    refused.append(await streamed.next_msg(DEADLINE_S))
    end = await streamed.next_msg(DEADLINE_S)
    await endpoints.stop(patience_s=0.1)
    # Then each has its one typed reply, and a stream its end
    errors = [error_of(reply).error for reply in refused]
    assert {(error.code, error.retry_after_s) for error in errors} == {("overloaded", 1.0)}
    assert (end.data, end.headers) == (b"", None)
    assert Accepted.model_validate_json(served.data)


async def test_who_looks_too_often_at_once_is_refused_unread_and_others_are_served(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUICK_LIMIT", 8)
    release, read, waiting = asyncio.Event(), 0, 0

    async def look(ask: Ask, caller: Caller) -> None:
        nonlocal waiting
        waiting += 1
        await release.wait()
        await accept(ask, caller)

    endpoints = Endpoints(connection, Identity("router", "router-1"), "for a test")
    await endpoints.start()
    await endpoints.add(subjects.doors(subjects.ASK), Ask, look, quick=True)
    alice, bob = subjects.door("alice", subjects.ASK), subjects.door("bob", subjects.ASK)
    body = b'{"prompt": "hi"}'
    # Given a tenant that has all the places that one may have
    first = [asyncio.create_task(connection.request(alice, body, timeout=DEADLINE_S)) for _ in range(7)]
    await eventually(lambda: waiting == 7)

    create = Msg.__init__

    def counted(self: Msg, *arguments: Any, **named: Any) -> None:
        nonlocal read
        create(self, *arguments, **named)
        read += self.subject == alice

    monkeypatch.setattr(Msg, "__init__", counted)
    # When it asks much more, then each is told so, and nothing of them is read
    refused = await asyncio.gather(*(connection.request(alice, body, timeout=DEADLINE_S) for _ in range(500)))
    assert {error_of(reply).error.code for reply in refused} == {"overloaded"}
    assert read == 0
    # And another tenant has its place
    other = asyncio.create_task(connection.request(bob, body, timeout=DEADLINE_S))
    await eventually(lambda: waiting == 8)
    release.set()
    assert all(
        Accepted.model_validate_json(reply.data) for reply in [*await asyncio.gather(*first), await other]
    )
    await endpoints.stop(patience_s=0.1)


async def test_the_handler_knows_whose_door_a_request_came_through(connection: Client) -> None:
    async def who(_ask: Ask, caller: Caller) -> None:
        await caller.send(Accepted(request_id=caller.tenant))

    async with answering(connection, who):
        replies = [
            await connection.request(subject, b'{"prompt": "hi"}', timeout=60)
            for subject in (subjects.ASK, subjects.door("alice", subjects.ASK))
        ]
    assert [Accepted.read(reply.data).request_id for reply in replies] == ["local", "alice"]


@pytest.mark.parametrize(
    "reply",
    [
        subjects.result("r1"),
        subjects.answer("r1", 1, "alpha"),
        subjects.gather("interactive", "r1"),
        subjects.bucket_key(subjects.SCORES_BUCKET, "agent.alpha"),
        "$JS.API.STREAM.PURGE.RESULTS",
        "_INBOX",
    ],
)
async def test_a_request_whose_replies_are_to_go_elsewhere_than_to_an_inbox_is_dropped(
    connection: Client, reply: str
) -> None:
    taken: list[str | None] = []

    async def take(ask: Ask, caller: Caller) -> None:
        taken.append(ask.request_id)
        await caller.send(Accepted(request_id="r1"))

    heard = await connection.subscribe(reply)
    async with answering(connection, take):
        await connection.publish(subjects.ASK, b'{"prompt": "hi", "request_id": "bad"}', reply=reply)
        for asked in ("PING", "INFO", "STATS", "PING.router", "INFO.router", "STATS.router"):
            await connection.publish(f"$SRV.{asked}", b"", reply=reply)
        await connection.request(subjects.ASK, b'{"prompt": "hi", "request_id": "good"}', timeout=60)
        stats = json.loads((await connection.request("$SRV.STATS.router", b"", timeout=60)).data)
        await connection.request("$SRV.INFO", b"", timeout=60)
    assert taken == ["good"]
    assert heard.pending_msgs == 0
    # And whoever operates the mesh sees how often that happened
    (endpoint,) = stats["endpoints"]
    assert (endpoint["num_requests"], endpoint["num_errors"]) == (2, 1)
    assert endpoint["last_error"] == module.DROPPED


async def test_a_tenant_that_sends_many_at_once_delays_the_one_of_another_by_a_few(
    connection: Client,
) -> None:
    began: list[str] = []
    many = 500

    async def note(_ask: Ask, caller: Caller) -> None:
        began.append(caller.tenant)

    body = b'{"prompt": "hi"}'
    async with answering(connection, note):

        async def passed_by() -> bool:
            """Whether the last one to ask was not the last one served: not where all before it had been
            served when it came, as on a machine that stalls."""
            began.clear()
            for _ in range(many):
                await connection.publish(subjects.door("alice", subjects.ASK), body)
            await connection.publish(subjects.door("bob", subjects.ASK), body)
            await eventually(lambda: len(began) == many + 1)
            return began.index("bob") < many // 2

        await eventually(passed_by)
