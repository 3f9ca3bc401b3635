"""Clients that try again: what they asked is done once, whatever was lost on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
import openai
import pytest
from nats.aio.client import Client
from openai import APIStatusError, AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam
from starlette.requests import Request

from infra.testing.choir_up import connect_inside
from infra.testing.mesh import eventually
from schemas import subjects
from schemas.errors import NotReady
from services.chassis.nats.bucket import BYTES, Bucket
from services.client import Choir
from services.gateway.openai.tests.test_endpoint import until_known
from services.gateway.requests.retries import COUNT_HEADER, Retries
from services.gateway.tests.serving import inside, serving

AT_ONCE = 12
MANY, MANY_AT_ONCE = 1_000, 32
LOST_OF_MANY = 600
COUNTS = """
    SELECT (SELECT count(*) FROM completed_tasks WHERE model = 'choir-one'),
           (SELECT count(DISTINCT request_id) FROM completed_tasks WHERE model = 'choir-one')
"""
"""Generations of the model, and requests that had one."""


class LossyProxy:
    """Passes connections on. Of its first ones, or of each `every`-th at first, it swallows the reply, or
    breaks off as soon as the request is `taken`."""

    def __init__(
        self,
        gateways: list[str],
        losses: int,
        taken: Callable[[], Awaitable[None]] | None = None,
        every: int = 1,
    ) -> None:
        self._every, self._came = every, 0
        self._ports = [int(url.rpartition(":")[2]) for url in gateways]
        self._losses = losses
        self._taken = taken
        self.lost = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to the first gateway as long as there are losses, then to the last one."""
        self._came += 1
        loses = self.lost < self._losses and self._came % self._every == 0
        self.lost += loses
        onward, back = await asyncio.open_connection("127.0.0.1", self._ports[0 if loses else -1])
        asking = asyncio.create_task(self._copy(reader, back))
        try:
            if not loses:
                await self._copy(onward, writer)
            elif self._taken is not None:
                await self._taken()
            else:
                await onward.read(1)  # the answer is there
        finally:
            asking.cancel()
            await asyncio.wait([asking])
            for end in (back, writer):
                end.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def lossy(
    gateways: list[str], losses: int, taken: Callable[[], Awaitable[None]] | None = None, every: int = 1
) -> AsyncIterator[tuple[AsyncOpenAI, LossyProxy]]:
    """The official client behind such a proxy, with as many retries as there are losses.

    On a busy machine one request may meet more of them than the two retries that are usual.
    """
    proxy = LossyProxy(gateways, losses, taken, every)
    one_request_each = openai.DefaultAsyncHttpxClient(limits=httpx.Limits(max_keepalive_connections=0))
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    async with (
        server,
        AsyncOpenAI(
            base_url=url, api_key="none", timeout=180, max_retries=losses, http_client=one_request_each
        ) as client,
    ):
        yield client, proxy


async def results_in(connection: Client) -> int:
    """How many results the mesh has."""
    return (await connection.jetstream().stream_info(subjects.RESULTS_STREAM)).state.messages


@pytest.mark.parametrize("elsewhere", [False, True], ids=["same gateway", "another gateway"])
async def test_equal_requests_whose_replies_are_lost_are_done_once_each(
    live_mesh: str, *, elsewhere: bool
) -> None:
    hello: list[ChatCompletionMessageParam] = [{"role": "user", "content": f"Hello {elsewhere}"}]
    async with serving(live_mesh) as one, serving(live_mesh) as other:
        connection = await connect_inside(live_mesh)
        before = await results_in(connection)

        # When equal requests lose their replies, and some lose them twice
        losses = AT_ONCE + AT_ONCE // 2
        async with lossy([one, other] if elsewhere else [one], losses) as (client, proxy):
            asked = (
                client.chat.completions.create(model="choir-one", messages=hello) for _ in range(AT_ONCE)
            )
            replies = await asyncio.gather(*asked)

        # Then each has an answer of its own, and no work was done twice
        assert proxy.lost == losses
        assert len({reply.id for reply in replies}) == AT_ONCE
        assert await results_in(connection) - before == AT_ONCE
        await connection.close()


def asked(count: int) -> Request:
    """A request, as a client sends it that has tried so often before."""
    headers = [(COUNT_HEADER.encode(), str(count).encode())]
    return Request({"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": headers})


@pytest.mark.parametrize("elsewhere", [False, True], ids=["same gateway", "another gateway"])
async def test_a_retry_that_comes_as_its_request_is_given_up_is_that_one_or_a_new_one(
    live_mesh: str, *, elsewhere: bool
) -> None:
    """Never one that is cancelled under it."""
    async with inside(live_mesh) as (mesh, connection), inside(live_mesh) as (_, further):
        one = Retries(lambda: mesh, connection, grace_s=0.0)
        other = Retries(lambda: mesh, further, grace_s=0.0) if elsewhere else one
        for number in range(24):
            body = {"said": f"{elsewhere} {number}"}
            first = await one.id_of(asked(0), body)
            await connection.flush()
            giving_up = asyncio.create_task(one.comes_back(first))
            for _ in range(number % 8):
                await asyncio.sleep(0)

            again = await other.id_of(asked(1), body)

            assert await giving_up == (again == first)


@pytest.mark.parametrize("elsewhere", [False, True], ids=["same gateway", "another gateway"])
async def test_a_retry_is_recognised_though_the_one_before_it_never_came(
    live_mesh: str, *, elsewhere: bool
) -> None:
    body = {"model": "choir-one", "messages": [{"role": "user", "content": f"Hello again {elsewhere}"}]}
    async with serving(live_mesh) as one, serving(live_mesh) as other:
        connection = await connect_inside(live_mesh)
        noted = Bucket(connection, subjects.RETRIES_BUCKET, BYTES)

        async def asked(gateway: str, count: int) -> str:
            async with httpx.AsyncClient(base_url=gateway, timeout=180) as http:
                headers = {COUNT_HEADER: str(count)}
                reply = await http.post("/v1/chat/completions", json=body, headers=headers)
                return reply.headers["choir-request-id"]

        async def lost(request_id: str, note: bytes) -> bool:
            keys = [key for key in await noted.keys("*.*") if subjects.request_of_retry(key) == request_id]
            return [(await noted.get(key)).value for key in keys] == [note]

        # Given a request whose connection has gone
        first = await asked(one, 0)
        await eventually(lambda: lost(first, b"0-"))

        # When its second retry comes, and not its first one, it is that request
        assert await asked(other if elsewhere else one, 2) == first
        await eventually(lambda: lost(first, b"2-"))

        # And one that comes for the first time is another
        assert await asked(one, 0) != first
        await connection.close()


@pytest.mark.soak
async def test_a_thousand_requests_of_which_many_lose_their_replies_are_a_thousand_generations(
    live_mesh: str,
) -> None:
    room = asyncio.Semaphore(MANY_AT_ONCE)
    async with Choir(live_mesh) as mesh, serving(live_mesh) as one, serving(live_mesh) as other:

        async def counted() -> list[int]:
            ((*counts,),) = (await mesh.sql(COUNTS)).rows
            return counts

        marker = (await mesh.ask("Hello", model="choir-one")).request_id  # events are stored in their order

        async def marked() -> bool:
            told = await mesh.sql(f"SELECT count(*) FROM completed_tasks WHERE request_id = '{marker}'")
            return bool(told.rows[0][0])

        await eventually(marked)
        before = await counted()
        async with lossy([one, other], LOST_OF_MANY, every=2) as (client, proxy):

            async def ask(number: int) -> str:
                hello: list[ChatCompletionMessageParam] = [{"role": "user", "content": f"Hello {number}"}]
                async with room:
                    return (await client.chat.completions.create(model="choir-one", messages=hello)).id

            ids = set(await asyncio.gather(*(ask(number) for number in range(MANY))))
        assert (proxy.lost, len(ids)) == (LOST_OF_MANY, MANY)

        async def told() -> bool:
            return all(now - then >= MANY for now, then in zip(await counted(), before, strict=True))

        await eventually(told)
        after = await counted()
        assert [now - then for now, then in zip(after, before, strict=True)] == [MANY] * 2


async def test_work_goes_on_for_a_client_that_comes_back(live_mesh: str) -> None:
    hello: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Wait"}]
    async with Choir(live_mesh) as mesh, serving(live_mesh, retry_grace_s=60.0) as gateway:
        connection = await connect_inside(live_mesh)
        noted = Bucket(connection, subjects.RETRIES_BUCKET, BYTES)
        known = set(await noted.keys("*.*"))

        async def noted_as(count: bytes) -> str:
            """The id of the request when it has come so often."""
            async with asyncio.timeout(60):
                while True:
                    for key in set(await noted.keys("*.*")) - known:
                        if ((await noted.get(key)).value or b"").rstrip(b"-") == count:
                            return subjects.request_of_retry(key)
                    await asyncio.sleep(0.02)

        async def taken() -> None:
            await until_known(mesh, await noted_as(b"0"))

        # Given a request whose connection breaks while a model works on it
        async with lossy([gateway], 1, taken) as (client, _):
            asked = asyncio.create_task(client.chat.completions.create(model="choir-slow", messages=hello))

            # When its client has come back, it is the same request, and it is still worked on
            request_id = await noted_as(b"1")
            with pytest.raises(NotReady):
                await mesh.fetch(request_id)
            await mesh.cancel(request_id)
            with pytest.raises(APIStatusError, match="cancelled"):
                await asked
        await connection.close()
