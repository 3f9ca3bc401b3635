"""Whatever is killed or paused, at any moment: every accepted request has exactly one result."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from nats.aio.client import Client

from infra.broker.broker import Broker
from infra.testing.plugin import SpawnService, connect
from schemas import subjects
from schemas.broker.catalog import ACK_WAIT_S
from schemas.replies import Result
from services.client.client import Choir
from services.tests.load import (
    MODELS,
    SmallMesh,
    assert_each_has_one_result,
    eventually,
    run_under_load,
)

pytestmark = pytest.mark.long


@pytest_asyncio.fixture
async def mesh(mesh_url: str, connection: Client, spawn_service: SpawnService) -> SmallMesh:
    """A small mesh on the session's broker, ready for work."""
    small = SmallMesh(spawn_service, mesh_url)
    await small.wait_ready(connection)
    return small


async def test_a_killed_agent_hands_its_tasks_to_another(
    mesh: SmallMesh, connection: Client, fault_seed: int
) -> None:
    async def kill_agent() -> None:
        mesh.agents[0].kill()

    results = await run_under_load(mesh, kill_agent, fault_seed)

    await assert_each_has_one_result(connection, results)


async def test_a_killed_aggregator_is_replaced_and_finds_the_answers(
    mesh: SmallMesh, connection: Client, fault_seed: int
) -> None:
    async def kill_aggregator() -> None:
        mesh.aggregator.kill()
        await mesh.start_again(mesh.aggregator).wait_ready(connection)

    results = await run_under_load(mesh, kill_aggregator, fault_seed)

    await assert_each_has_one_result(connection, results)


@pytest.mark.soak
async def test_a_killed_router_is_replaced_and_its_clients_are_answered(
    mesh: SmallMesh, connection: Client, fault_seed: int
) -> None:
    async def kill_router() -> None:
        mesh.router.kill()
        await mesh.start_again(mesh.router).wait_ready(connection)

    results = await run_under_load(mesh, kill_router, fault_seed)

    await assert_each_has_one_result(connection, results)


@pytest.mark.soak
async def test_an_agent_paused_beyond_ack_wait_does_no_harm_when_it_wakes(
    mesh: SmallMesh, connection: Client, fault_seed: int
) -> None:
    async def pause_agent() -> None:
        mesh.agents[0].pause()
        await asyncio.sleep(ACK_WAIT_S + 3)
        mesh.agents[0].resume()

    results = await run_under_load(mesh, pause_agent, fault_seed)

    await assert_each_has_one_result(connection, results)
    async with Choir(mesh.url) as client:
        again = [await client.ask("and now?", model=model, timeout_s=120) for model in MODELS]
    assert [result.text for result in again] == [f"{model} says Paris" for model in MODELS]


@pytest_asyncio.fixture
async def fragile(own_broker: Broker, spawn_service: SpawnService) -> AsyncIterator[tuple[SmallMesh, Client]]:
    """A small mesh on a broker of its own, that the test may kill."""
    connection = await connect(own_broker.url)
    mesh = SmallMesh(spawn_service, own_broker.url)
    await mesh.wait_ready(connection)
    yield mesh, connection
    await connection.close()


async def test_a_killed_broker_comes_back_and_nothing_is_lost(
    own_broker: Broker, fragile: tuple[SmallMesh, Client], fault_seed: int
) -> None:
    mesh, connection = fragile

    async def kill_broker() -> None:
        own_broker.kill()
        await own_broker.restart()

    results = await run_under_load(mesh, kill_broker, fault_seed)

    await assert_each_has_one_result(connection, results)


async def test_a_poison_command_ends_in_dead_and_its_request_in_an_error(
    mesh: SmallMesh, connection: Client, fault_seed: int
) -> None:
    js = connection.jetstream()

    async def poison() -> None:
        await js.publish(subjects.generate("interactive", "alpha", "poison-1"), b"\x00 not a command")
        await js.publish(subjects.gather("interactive", "poison-2"), b'{"half": ')

    results = await run_under_load(mesh, poison, fault_seed)

    async def told() -> bool:
        """Whether both have their result and lie in the grave."""
        results = await js.stream_info(subjects.RESULTS_STREAM, subjects_filter=subjects.ALL_RESULTS)
        dead = await js.stream_info(subjects.DEAD_STREAM, subjects_filter=subjects.ALL_DEAD)
        ended = {subjects.result("poison-1"), subjects.result("poison-2")}
        return ended <= set(results.state.subjects or {}) and len(dead.state.subjects or {}) >= 2

    assert await eventually(told, 180.0)
    async with Choir(mesh.url) as client:
        for request_id in ("poison-1", "poison-2"):
            stored = await js.get_last_msg(subjects.RESULTS_STREAM, subjects.result(request_id), direct=True)
            error = Result.model_validate_json(stored.data or b"").error
            assert error is not None and error.code == "poison_message"
        status = await client.status()
    assert status.problems == ()
    dead = await js.stream_info(subjects.DEAD_STREAM, subjects_filter=subjects.ALL_DEAD)
    assert set(dead.state.subjects or {}) == {
        subjects.dead("agent", "poison-1"),
        subjects.dead("aggregator", "poison-2"),
    }
    await js.purge_stream(subjects.RESULTS_STREAM, subject=subjects.result("poison-1"))
    await js.purge_stream(subjects.RESULTS_STREAM, subject=subjects.result("poison-2"))
    await assert_each_has_one_result(connection, results)


async def test_a_request_that_no_agent_takes_ends_in_an_error_at_its_deadline(
    mesh: SmallMesh, connection: Client
) -> None:
    """All agents die after the request was accepted, and none comes back."""
    for agent in mesh.agents:
        agent.pause()
    async with Choir(mesh.url) as client:
        request_id = await client.submit("is anybody there?", model="alpha", timeout_s=1.0)
        for agent in mesh.agents:
            agent.kill()

        async def ended() -> bool:
            info = await connection.jetstream().stream_info(
                subjects.RESULTS_STREAM, subjects_filter=subjects.result(request_id)
            )
            return bool(info.state.subjects)

        assert await eventually(ended, 180.0)
    stored = await connection.jetstream().get_last_msg(
        subjects.RESULTS_STREAM, subjects.result(request_id), direct=True
    )
    error = Result.model_validate_json(stored.data or b"").error
    assert error is not None and error.code == "deadline_exceeded"
