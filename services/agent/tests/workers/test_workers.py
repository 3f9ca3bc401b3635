"""External workers on a real broker: taken up, given work, taken out when they fail, and let in again."""

from __future__ import annotations

import asyncio

import pytest
from nats.aio.client import Client

from infra.testing.broker.cable import mesh_on_a_cable
from infra.testing.mesh import (
    enqueue,
    events,
    eventually,
    generate,
    open_mesh,
    queue_is_empty,
)
from infra.testing.plugin import connect
from schemas import subjects
from schemas.events import TaskRetried
from services.agent.tests.servers.http_server import http_server
from services.agent.tests.workers.worker_mesh import (
    QUICK,
    LmStudio,
    host,
    host_on,
    register,
    result_of,
    served,
    state_of,
    unregister,
    usable,
    worker,
)

CHAT = "/v1/chat/completions"


async def test_a_registered_worker_is_taken_up_without_a_restart_and_answers(connection: Client) -> None:
    server = LmStudio()
    async with http_server(server.handle) as http, host(connection) as agent:
        assert agent.load().models == ()
        await register(connection, worker(http))
        await usable(agent)
        await enqueue(open_mesh(connection), generate("r1"))
        result = await result_of(connection, "r1")
    assert result.text == "the tall giraffe"
    (answer,) = result.answers
    assert (answer.instance, answer.prompt_tokens, answer.generated_tokens) == ("mac-1", 9, 3)
    assert answer.timings.first_token_ns > 0 and answer.timings.eval_duration_ns > 0


async def test_a_worker_that_dies_in_the_midst_of_a_text_hands_its_task_to_another(
    connection: Client,
) -> None:
    """Given two workers of one model, the first of which breaks off after a word."""
    dying, healthy = LmStudio(mood="half"), LmStudio("quite another text")
    async with (
        http_server(dying.handle) as first,
        http_server(healthy.handle) as second,
        host(connection) as agent,
    ):
        await register(connection, worker(first, "dying"))
        await usable(agent, "dying")
        await enqueue(open_mesh(connection), generate("r1", stream=True))
        await dying.began.wait()
        await register(connection, worker(second, "healthy"))
        result = await result_of(connection, "r1")
        told = [event for event in await events(connection) if isinstance(event, TaskRetried)]
        state = state_of(agent, "dying")
    assert (result.text, result.answers[0].instance) == ("quite another text", "healthy")
    assert told and "broke off: peer closed connection" in told[0].error.message
    assert state is not None and state.last_error is not None and state.last_error.code == "worker_failed"


async def test_a_worker_that_answers_500_is_taken_out_and_let_in_when_it_recovers(connection: Client) -> None:
    failing, healthy = LmStudio(mood="500"), LmStudio()
    async with (
        http_server(failing.handle) as first,
        http_server(healthy.handle) as second,
        host(connection) as agent,
    ):
        # Given a worker that fails every task, and another one of the same model
        await register(connection, worker(first, "failing"), worker(second, "healthy"))
        await usable(agent, "failing", "healthy")
        numbers = range(12)
        for number in numbers:
            await enqueue(open_mesh(connection), generate(f"r{number}"))

        # Then every task is answered by the other one, and the first is out
        results = [await result_of(connection, f"r{number}") for number in numbers]
        assert {result.answers[0].instance for result in results} == {"healthy"}
        failed = state_of(agent, "failing")
        assert failed is not None and failed.last_error is not None
        assert "out of memory" in failed.last_error.message

        # And when it recovers it is let in, and works
        failing.mood = "well"
        await usable(agent, "failing")
        await unregister(connection, "healthy")
        await eventually(lambda: served(agent, "healthy") is None)
        await enqueue(open_mesh(connection), generate("again"))
        assert (await result_of(connection, "again")).answers[0].instance == "failing"


async def test_a_worker_whose_server_is_gone_is_out_after_so_many_looks(connection: Client) -> None:
    server = LmStudio()
    async with host(connection) as agent:
        async with http_server(server.handle) as http:
            await register(connection, entry := worker(http))
            await usable(agent)
        await eventually(lambda: (state := state_of(agent)) is not None and state.circuit == "open")
        model = served(agent)
        assert model is not None and model.problem is not None
        assert (model.slots, agent.load().slots) == (0, 0)
        assert f"nobody answers at {entry.url}" in model.problem.message
        async with http_server(server.handle, entry.port):
            await usable(agent)


async def test_a_worker_that_hangs_is_cut_off_at_the_stall_limit_and_another_answers(
    connection: Client,
) -> None:
    hanging, healthy = LmStudio(mood="hang"), LmStudio()
    settings = QUICK.model_copy(update={"stall_limit_s": 0.3})
    async with (
        http_server(hanging.handle) as first,
        http_server(healthy.handle) as second,
        host(connection, settings=settings) as agent,
    ):
        await register(connection, worker(first, "hanging"))
        await usable(agent, "hanging")
        await enqueue(open_mesh(connection), generate("r1"))
        await hanging.began.wait()
        await register(connection, worker(second, "healthy"))
        result = await result_of(connection, "r1")
        await first.hung_up.wait()
        state = state_of(agent, "hanging")
    assert result.answers[0].instance == "healthy"
    assert state is not None and state.last_error is not None
    assert "said nothing for too long" in state.last_error.message


async def test_a_worker_that_hangs_is_cut_off_at_the_deadline_and_then_tried(connection: Client) -> None:
    hanging = LmStudio(mood="hang")
    settings = QUICK.model_copy(update={"trial_limit_s": 0.2})
    async with http_server(hanging.handle) as http, host(connection, settings=settings) as agent:
        await register(connection, worker(http))
        await usable(agent)
        await cut_off(connection, hanging)
        await asyncio.wait_for(http.hung_up.wait(), 180)
        await eventually(lambda: (state := state_of(agent)) is not None and state.circuit != "closed")


async def test_a_worker_that_is_cut_off_while_it_is_looked_at_is_tried_as_well(connection: Client) -> None:
    hanging = LmStudio(mood="hang")
    settings = QUICK.model_copy(update={"trial_limit_s": 0.2, "check_limit_s": 600})
    async with http_server(hanging.handle) as http, host(connection, settings=settings) as agent:
        await register(connection, worker(http))
        await usable(agent)
        # Given a look at the worker that has begun, before a request is cut off at its deadline
        hanging.may_list.clear()
        hanging.asked_for_list.clear()
        await hanging.asked_for_list.wait()
        await cut_off(connection, hanging)
        await asyncio.wait_for(http.hung_up.wait(), 180)
        # When that look ends well
        hanging.may_list.set()
        # Then the worker is still in doubt, and is tried
        await eventually(lambda: (state := state_of(agent)) is not None and state.circuit != "closed")


async def cut_off(connection: Client, hanging: LmStudio) -> None:
    """Asks a worker that hangs until a request has reached it, and each is over at its deadline."""
    sent = 0
    while not hanging.began.is_set():  # on a busy machine, a deadline may pass before the worker is asked
        await enqueue(open_mesh(connection), generate(f"r{sent}", timeout_s=0.3))
        result = await result_of(connection, f"r{sent}")
        assert result.error is not None and result.error.code == "deadline_exceeded"
        sent += 1


async def test_a_cancelled_request_closes_the_stream_which_the_server_sees(connection: Client) -> None:
    server = LmStudio(text=" ".join(["word"] * 200), mood="slow")
    async with http_server(server.handle) as http, host(connection) as agent:
        await register(connection, worker(http))
        await usable(agent)
        tokens = await connection.subscribe(subjects.token("r1", "alpha"))
        await enqueue(open_mesh(connection), generate("r1", stream=True, timeout_s=600))
        await tokens.next_msg(60)
        assert CHAT not in http.left
        await connection.publish(subjects.cancel_signal("r1"))
        await eventually(lambda: CHAT in http.left)
        await eventually(lambda: queue_is_empty(connection))
        state = state_of(agent)
    assert state is not None and (state.circuit, state.failures) == ("closed", 0)


async def test_a_worker_that_is_removed_while_busy_finishes_what_it_has(connection: Client) -> None:
    server = LmStudio(text=" ".join(["word"] * 20), mood="slow")
    async with http_server(server.handle) as http, host(connection) as agent:
        await register(connection, worker(http, slots=1))
        await usable(agent)
        await enqueue(open_mesh(connection), generate("r1"))
        await server.began.wait()
        await unregister(connection, "mac-1")
        await eventually(lambda: served(agent) is None)
        await enqueue(open_mesh(connection), generate("r2"))
        result = await result_of(connection, "r1")
        assert (result.text, server.chats) == (server.text, 1)
        # and what came afterwards waits for another worker
        other = LmStudio("from another")
        async with http_server(other.handle) as second:
            await register(connection, worker(second, "mac-2"))
            assert (await result_of(connection, "r2")).text == "from another"


async def test_a_cordoned_worker_gets_nothing_new_until_it_is_uncordoned(connection: Client) -> None:
    server = LmStudio()
    async with http_server(server.handle) as http, host(connection) as agent:
        await register(connection, entry := worker(http, cordoned=True))
        await eventually(lambda: (state := state_of(agent)) is not None and state.circuit == "closed")
        model = served(agent)
        assert model is not None and model.problem is not None
        assert "choir worker uncordon mac-1" in model.problem.message
        await enqueue(open_mesh(connection), generate("r1"))
        await register(connection, entry.model_copy(update={"cordoned": False}))
        await result_of(connection, "r1")


async def test_one_agent_uses_a_worker_and_another_takes_it_over(connection: Client, mesh_url: str) -> None:
    server = LmStudio()
    other = await connect(mesh_url)
    async with http_server(server.handle) as http, host(other, "agent-2") as second:
        async with host(connection, "agent-1") as first:
            await register(connection, *(worker(http, f"mac-{n}") for n in range(6)))
            both = (first, second)
            await eventually(lambda: sum(len(agent.load().models) for agent in both) == 6)
            held = [{model.worker.id for model in a.load().models if model.worker} for a in both]
            assert not held[0] & held[1]
        await usable(second, *(f"mac-{n}" for n in range(6)))
    await other.close()


async def test_the_workers_of_a_killed_agent_are_taken_over(
    connection: Client, mesh_url: str, spawn_service: object
) -> None:
    server = LmStudio()
    async with http_server(server.handle) as http:
        killed = spawn_service("agent", "doomed", agent={"name": "doomed"})  # type: ignore[operator]
        await killed.wait_ready(connection)
        await register(connection, worker(http))
        await eventually(lambda: bool(http.asked("/v1/models")))
        killed.kill()
        async with host(connection) as agent:
            await usable(agent)


async def test_a_worker_of_another_host_is_left_alone(connection: Client) -> None:
    server = LmStudio()
    async with http_server(server.handle) as http, host(connection) as agent:
        await register(connection, worker(http, "elsewhere", only_on="another-host"), worker(http, "here"))
        await usable(agent, "here")
        assert served(agent, "elsewhere") is None


async def test_what_no_host_has_made_a_queue_for_is_said(connection: Client) -> None:
    server = LmStudio()
    async with http_server(server.handle) as http, host(connection) as agent:
        await register(connection, worker(http, served_as="no-such-queue"))

        def said() -> bool:
            model = served(agent)
            return model is not None and model.problem is not None and "no queue" in model.problem.message

        await eventually(said)


@pytest.mark.parametrize(
    ("mood", "complaint"),
    [("html", "text/html from /v1/chat/completions"), ("garbage", "something else than this API")],
)
async def test_garbage_is_named_and_the_task_goes_to_another(
    mood: str, complaint: str, connection: Client
) -> None:
    odd, healthy = LmStudio(mood=mood), LmStudio()
    async with (
        http_server(odd.handle) as first,
        http_server(healthy.handle) as second,
        host(connection) as agent,
    ):
        await register(connection, worker(first, "odd"))
        await usable(agent, "odd")
        await enqueue(open_mesh(connection), generate("r1"))
        await odd.began.wait()
        await register(connection, worker(second, "healthy"))
        assert (await result_of(connection, "r1")).answers[0].instance == "healthy"
        state = state_of(agent, "odd")
    assert state is not None and state.last_error is not None
    assert complaint in state.last_error.message


async def test_a_server_that_is_no_api_and_one_without_the_model_are_never_given_work(
    connection: Client,
) -> None:
    page, other = LmStudio(), LmStudio()
    page.lists_models = False
    async with http_server(page.handle) as first, http_server(other.handle) as second, host(connection) as a:
        await register(connection, worker(first, "page"), worker(second, "other", model="beta"))

        def said(worker_id: str, words: str) -> bool:
            model = served(a, worker_id)
            return model is not None and model.problem is not None and words in model.problem.message

        await eventually(lambda: said("page", "text/html from /v1/models"))
        await eventually(lambda: said("other", "has no model beta; it has: alpha"))


async def test_interactive_work_goes_first_and_free_workers_share_what_there_is(connection: Client) -> None:
    servers = [LmStudio(mood="slow"), LmStudio(mood="slow")]
    async with (
        http_server(servers[0].handle) as first,
        http_server(servers[1].handle) as second,
        host(connection) as agent,
    ):
        await register(connection, worker(first, "a", cordoned=True), worker(second, "b", cordoned=True))
        mesh = open_mesh(connection)
        for number in range(20):
            await enqueue(mesh, generate(f"batch{number}", priority="batch"))
        # Given workers that are all at work on the batch when it comes
        for server in servers:
            server.may_chat.clear()
        await register(connection, worker(first, "a"), worker(second, "b"))
        await usable(agent, "a", "b")
        await eventually(lambda: sum(server.chats for server in servers) >= 4)
        await enqueue(mesh, generate("asked"))
        for server in servers:
            server.may_chat.set()
        asked = await result_of(connection, "asked")
        await eventually(lambda: queue_is_empty(connection))
    assert asked.error is None
    stored = await mesh.storage.last(subjects.RESULTS_STREAM, subjects.result("asked"))
    assert stored is not None and stored.sequence < 16, "it waited behind the batch"
    assert min(server.chats for server in servers) >= 6


async def test_a_heavier_worker_is_next_more_often_while_both_are_free(connection: Client) -> None:
    servers = [LmStudio(), LmStudio()]
    async with (
        http_server(servers[0].handle) as first,
        http_server(servers[1].handle) as second,
        host(connection) as agent,
    ):
        await register(
            connection, worker(first, "light", slots=8), worker(second, "heavy", slots=8, weight=4)
        )
        await usable(agent, "light", "heavy")
        for number in range(40):
            await enqueue(open_mesh(connection), generate(f"r{number}"))
            await result_of(connection, f"r{number}")
    assert servers[1].chats >= 1.5 * servers[0].chats
    assert servers[0].chats >= 2


async def test_a_worker_that_was_removed_while_its_agent_was_cut_off_is_used_no_more(
    connection: Client, mesh_url: str
) -> None:
    async with (
        http_server(LmStudio().handle) as http,
        mesh_on_a_cable(mesh_url) as (mesh, way),
        host_on(mesh) as agent,
    ):
        await register(connection, worker(http, "stays"), worker(http, "goes"))
        await usable(agent, "stays", "goes")
        await way.cut_from(mesh)
        await unregister(connection, "goes")
        await way.mend()
        await eventually(lambda: served(agent, "goes") is None)
        await usable(agent, "stays")
