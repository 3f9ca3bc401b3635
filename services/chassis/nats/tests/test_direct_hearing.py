"""One subscription is heard as it is read; the others of its client are as they were."""

from __future__ import annotations

import asyncio

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from services.chassis.nats.direct_hearing import hear_directly

DEADLINE_S = 180.0
LARGE = b"x" * 200_000
"""More than is read at once."""


async def test_all_of_a_subscription_is_heard_in_order_and_others_are_not(
    connection: Client, mesh_url: str
) -> None:
    client = await nats.connect(mesh_url)
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
