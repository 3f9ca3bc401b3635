"""One subscription is heard as it is read; the others of its client are as they were."""

from __future__ import annotations

import asyncio
import itertools

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from infra.testing.plugin import connect
from services.chassis.nats.direct.hearing import (
    DirectParser,
    headers_bytes,
    hear_directly,
    reply_of,
    stop_taking,
    take_directly,
)

DEADLINE_S = 180.0
LARGE = b"x" * 200_000
"""More than is read at once."""


async def test_all_of_a_subscription_is_heard_in_order_and_others_are_not(
    connection: Client, mesh_url: str
) -> None:
    client = await connect(mesh_url)
    heard: list[tuple[str, bytes, bytes]] = []
    others: list[bytes] = []

    async def other(msg: Msg) -> None:
        others.append(msg.data)

    await client.subscribe("hearing.other", cb=other)
    subscription = await client.subscribe("hearing.own.*")
    hear_directly(client, subscription, lambda *message: heard.append(message))
    await client.flush()
    payloads = [b"first", LARGE, b"", *(b"%d" % number for number in range(500)), b"last"]
    for number, payload in enumerate(payloads):
        headers = {"Choir-Kind": "token"} if number % 7 else None
        await connection.publish(f"hearing.own.{number}", payload, headers=headers)
        if number % 50 == 0:
            await connection.publish("hearing.other", b"other", headers={"Choir-Kind": "token"})
    async with asyncio.timeout(DEADLINE_S):
        while len(heard) < len(payloads) or len(others) < 11:  # noqa: ASYNC110  (what comes is counted)
            await asyncio.sleep(0.01)
    await client.close()
    assert [subject for subject, _, _ in heard] == [f"hearing.own.{n}" for n in range(len(payloads))]
    assert [payload for _, _, payload in heard] == payloads
    assert [b"Choir-Kind: token" in headers for _, headers, _ in heard] == [
        bool(number % 7) for number in range(len(payloads))
    ]
    assert others == [b"other"] * 11


HEAD = b"NATS/1.0\r\nA: b\r\n\r\n"
OWN, OTHER = 1, 2
READ = b"".join(
    (
        b"MSG own.1 1 2\r\nhi\r\n",
        b"MSG other.1 2 to.me 2\r\nho\r\n",
        b"+OK\r\n",
        b"HMSG own.2 1 to.me %d %d\r\n%sMSG x 2 9\r\n\r\n" % (len(HEAD), len(HEAD) + 11, HEAD),
        b"MSG own.left 1 2\r\nhu\r\n",
        b"HMSG other.2 2 %d %d\r\n%sMSG x 1 9\r\n\r\n" % (len(HEAD), len(HEAD) + 11, HEAD),
        b"MSG own.3 1 0\r\n\r\n",
    )
)
TAKEN = [("own.1", "", b"", b"hi"), ("own.2", "to.me", HEAD, b"MSG x 2 9\r\n"), ("own.3", "", b"", b"")]
LEFT = {OTHER: [("other.1", b"ho"), ("other.2", b"MSG x 1 9\r\n")], OWN: [("own.left", b"hu")]}


async def test_wherever_what_is_read_is_cut_each_message_goes_where_it_belongs() -> None:
    for first, second in itertools.combinations(range(len(READ) + 1), 2):
        client = Client()
        for number in (OWN, OTHER):
            subscription = Subscription(client, number)
            subscription._pending_queue = asyncio.Queue()
            client._subs[number] = subscription
        taken: list[tuple[str, str, bytes, bytes]] = []

        def take(words: list[bytes], read: bytes, begin: int, end: int) -> bool:
            if words[1] == b"own.left":
                return False
            body = begin + headers_bytes(words)
            taken.append((words[1].decode(), reply_of(words), read[begin:body], read[body:end]))  # noqa: B023
            return True

        take_directly(client, client._subs[OWN], take)
        for piece in (READ[:first], READ[first:second], READ[second:]):
            await client._ps.parse(piece)
        left = {number: await _waiting(client._subs[number]) for number in LEFT}
        assert (first, second, taken, left) == (first, second, TAKEN, LEFT)
        assert not client._ps.buf


async def _waiting(subscription: Subscription) -> list[tuple[str, bytes]]:
    """What nats-py has put into the queue of a subscription."""
    queue = subscription._pending_queue
    return [(message.subject, message.data) for message in [queue.get_nowait() for _ in range(queue.qsize())]]


async def test_a_connection_that_is_made_anew_begins_with_whole_messages() -> None:
    client = Client()
    heard: list[bytes] = []
    hear_directly(client, Subscription(client, OWN), lambda *message: heard.append(message[2]))
    await client._ps.parse(b"MSG own.1 1 9\r\nhal")
    client._ps.reset()
    await client._ps.parse(b"MSG own.1 1 5\r\nwhole\r\n")
    assert heard == [b"whole"]


async def test_whoever_stops_taking_leaves_what_comes_to_nats_py() -> None:
    client = Client()
    subscription = Subscription(client, OWN)
    subscription._pending_queue = asyncio.Queue()
    client._subs[OWN] = subscription
    take_directly(client, subscription, lambda *_: True)
    assert isinstance(client._ps, DirectParser)
    await client._ps.parse(b"MSG own.1 1 2\r\nhi\r\n")
    stop_taking(client, subscription)
    await client._ps.parse(b"MSG own.2 1 2\r\nho\r\n")
    assert await _waiting(subscription) == [("own.2", b"ho")]
