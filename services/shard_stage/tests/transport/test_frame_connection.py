"""The connection of frames, against real brokers: what it carries, and what it does when it is lost."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client

from infra.broker.broker import Broker
from infra.broker.server.binary import server_binary
from infra.testing.mesh import eventually
from infra.testing.plugin import connect
from schemas.errors import BrokerUnavailable, ConfigurationError, PayloadTooLarge
from services.shard_stage.handover.log_reader import client_for_reading
from services.shard_stage.transport.frame_connection import FrameLink, LinkOptions, Wire

SUBJECT, OTHER = "choir.test.link.1", "choir.test.link.2"
PATIENCE_S = 180.0


def ignored(_payload: bytes) -> None:
    """What arrives where nothing is awaited."""


@asynccontextmanager
async def linked(
    url: str, on_message: Callable[[bytes], None] = ignored, **options: Any
) -> AsyncIterator[FrameLink]:
    link = FrameLink(LinkOptions([url], reconnect_time_wait=0.05, **options), on_message)
    async with asyncio.timeout(PATIENCE_S):
        await link.open()
    try:
        yield link
    finally:
        await link.close()


async def test_it_carries_messages_of_any_size_and_content_in_their_order(mesh_url: str) -> None:
    arrived: list[bytes] = []
    sent = [b"", b"\r\nMSG x 1 4\r\n", b"PING\r\n", bytes(range(256)) * 2048, b"last"]
    async with linked(mesh_url, arrived.append) as there, linked(mesh_url) as here:
        await there.listen(SUBJECT)
        for payload in sent:
            here.publish(SUBJECT, payload)
        here.publish(OTHER, b"for another")
        await here.flush()
        await eventually(lambda: len(arrived) == len(sent))
    assert arrived == sent


async def test_it_does_not_hear_itself_and_listens_to_one_subject_at_a_time(mesh_url: str) -> None:
    arrived: list[bytes] = []
    async with linked(mesh_url, arrived.append) as there, linked(mesh_url) as here:
        await there.listen(SUBJECT)
        there.publish(SUBJECT, b"its own")
        here.publish(SUBJECT, b"first")
        await here.flush()
        await there.listen(OTHER)
        here.publish(SUBJECT, b"too late")
        here.publish(OTHER, b"second")
        await here.flush()
        await eventually(lambda: b"second" in arrived)
    assert arrived == [b"first", b"second"]


async def test_a_message_that_the_broker_would_not_carry_is_refused(
    connection: Client, mesh_url: str
) -> None:
    async with linked(mesh_url) as link:
        with pytest.raises(PayloadTooLarge, match=f"the broker carries {connection.max_payload} bytes"):
            link.publish(SUBJECT, bytes(connection.max_payload + 1))


async def test_it_comes_back_with_its_subscription_after_the_broker_was_killed(own_broker: Broker) -> None:
    arrived: list[bytes] = []
    told: list[str] = []

    async def lost() -> None:
        told.append("lost")

    async def back() -> None:
        told.append("back")

    async with linked(own_broker.url, arrived.append, disconnected_cb=lost, reconnected_cb=back) as link:
        await link.listen(SUBJECT)
        own_broker.kill()
        await eventually(lambda: told == ["lost"])
        link.publish(OTHER, b"into the void")
        await link.flush()
        await own_broker.restart()
        await eventually(lambda: told == ["lost", "back"])
        client = await connect(own_broker.url)
        await client.publish(SUBJECT, b"hello again")
        await client.flush()
        await eventually(lambda: bool(arrived))
        await client.close()
    assert arrived == [b"hello again"]
    assert told == ["lost", "back"]


async def test_a_broker_that_does_not_answer_is_given_up(
    own_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.shard_stage.transport.frame_connection.PING_INTERVAL_S", 0.2)
    told: list[str] = []

    async def lost() -> None:
        told.append("lost")

    async with linked(own_broker.url, disconnected_cb=lost, connect_timeout=0.5) as link:
        own_broker.pause()
        try:
            await eventually(lambda: "lost" in told)
            await link.flush()
        finally:
            own_broker.resume()


@pytest.mark.parametrize("url", ["http://127.0.0.1:4222", "127.0.0.1:4222", "ws://127.0.0.1:80", "nats://"])
async def test_an_address_that_is_no_brokers_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="not usable between stages") as refused:
        await FrameLink(LinkOptions([url]), ignored).open()
    assert refused.value.field == "mesh.url"


@asynccontextmanager
async def server(*arguments: str) -> AsyncIterator[int]:
    """A bare broker with these arguments; its port."""
    with (
        process := subprocess.Popen(
            [server_binary(), "--addr", "127.0.0.1", "--port", "-1", *arguments],
            stderr=subprocess.PIPE,
            text=True,
        )
    ):
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if "Listening for client connections" in line:
                    yield int(line.rsplit(":", 1)[1])
                    break
        finally:
            process.kill()


async def test_it_says_who_it_is_and_is_told_when_that_is_not_enough() -> None:
    faults: list[Exception] = []

    async def failed(error: Exception) -> None:
        faults.append(error)

    async with server("--user", "stage", "--pass", "open sesame") as port:
        async with linked(f"nats://127.0.0.1:{port}", user="stage", password="open sesame"):
            pass
        async with linked(f"nats://stage:open%20sesame@127.0.0.1:{port}"):
            pass
        nobody = FrameLink(LinkOptions([f"nats://127.0.0.1:{port}"], error_cb=failed), ignored)
        opening = asyncio.create_task(nobody.open())
        await eventually(lambda: any("Authorization Violation" in str(fault) for fault in faults))
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await nobody.close()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl, for a certificate")
async def test_it_speaks_tls_where_the_broker_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )  # fmt: skip
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    arrived: list[bytes] = []
    async with server("--tls", "--tlscert", str(certificate), "--tlskey", str(key)) as port:
        for scheme in ("tls", "nats"):
            url = f"{scheme}://localhost:{port}"
            async with linked(url, arrived.append) as there, linked(url) as here:
                await there.listen(SUBJECT)
                here.publish(SUBJECT, bytes(100_000))
                await here.flush()
                await eventually(lambda: bool(arrived))
            assert arrived == [bytes(100_000)]
            arrived.clear()


@given(st.lists(st.binary(max_size=40), max_size=6), st.lists(st.integers(1, 60), min_size=1))
def test_however_the_bytes_come_the_messages_are_the_same(payloads: list[bytes], cuts: list[int]) -> None:
    arrived: list[bytes] = []
    loop = asyncio.new_event_loop()
    wire = Wire(arrived.append, lambda _: None, loop.create_future(), loop.create_future())
    stream = b"".join(b"MSG a.b 1 %d\r\n%b\r\n+OK\r\n" % (len(p), p) for p in payloads)
    while stream:
        for cut in cuts:
            wire.data_received(stream[:cut])
            stream = stream[cut:]
    loop.close()
    assert arrived == payloads


async def test_reading_the_log_needs_a_broker() -> None:
    with pytest.raises(BrokerUnavailable, match="no broker answers"):
        async with client_for_reading({"servers": ["nats://127.0.0.1:9"]}):
            raise AssertionError("connected to nothing")


async def test_it_comes_back_also_where_whoever_is_told_of_it_fails(own_broker: Broker) -> None:
    told: list[str] = []

    async def fails() -> None:
        told.append("called")
        raise RuntimeError("the loop of the service is closed")

    arrived: list[bytes] = []
    async with linked(own_broker.url, arrived.append, disconnected_cb=fails, reconnected_cb=fails) as link:
        await link.listen(SUBJECT)
        own_broker.kill()
        await own_broker.restart()
        await eventually(lambda: len(told) == 2)
        client = await connect(own_broker.url)
        await client.publish(SUBJECT, b"still there")
        await client.flush()
        await eventually(lambda: arrived == [b"still there"])
        await client.close()
