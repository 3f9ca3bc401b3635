"""A broker that speaks TLS: who is let in, what others are told, and a new certificate under traffic."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import nats
import pytest
import pytest_asyncio
from nats.aio.msg import Msg

from infra.broker.access.accounts import accounts
from infra.broker.access.guard import check_guarded
from infra.broker.access.keys import KeyRing
from infra.broker.access.permissions import OPERATOR
from infra.broker.broker import Broker
from infra.broker.tls.authority import Authority
from infra.broker.tls.certificates import BrokerCertificates
from infra.broker.tls.names import LOOPBACK
from infra.host.children.processes import until
from infra.host.operator_connection import connect_operator
from infra.settings import HostSettings
from infra.testing.mesh import settled
from schemas.errors import ConfigurationError, MeshUnreachable
from services.chassis.identity import Identity
from services.chassis.nats.connection import ConnectionEvents, open_broker
from services.chassis.settings import MeshSection
from services.client.client import Choir
from services.client.finding.broker_section import BrokerSection, BrokerTlsSection

pytestmark = pytest.mark.asyncio(loop_scope="module")
DEADLINE_S = 180.0


async def nothing() -> None:
    """Where nobody wants to be told."""


@dataclass
class Secured:
    """A broker with accounts that speaks TLS, and the authority that it is known by."""

    broker: Broker
    authority: Authority
    folder: Path
    key: Path

    def section(self, ca: Path | None = None, **more: object) -> MeshSection:
        told = {"url": self.broker.url, "nkey": str(self.key), "ca": str(ca or self.authority.certificate)}
        return MeshSection.model_validate(told | more)

    @property
    def port(self) -> int:
        return self.broker.port


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def secured(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    authority, keys = Authority(folder / "tls"), KeyRing(folder / "keys")
    authority.renew(LOOPBACK)
    block = accounts(keys.public_key(OPERATOR), (), ())
    async with Broker(folder / "broker", accounts=block, tls=authority.files) as broker:
        yield Secured(broker, authority, folder, keys.path(OPERATOR))


async def test_who_has_the_certificate_of_the_authority_is_let_in(secured: Secured) -> None:
    assert secured.broker.url.startswith("tls://")
    client = await connect_operator(secured.broker.url, secured.section(), nothing)
    await client.jetstream().account_info()
    await client.close()


async def test_a_service_connects_over_tls_by_its_key(secured: Secured) -> None:
    service = open_broker(secured.section(), Identity("router", "one"), ConnectionEvents())
    client = await service.connect()
    await client.jetstream().account_info()
    await service.stop()


async def test_a_broker_of_another_authority_is_sent_nothing(secured: Secured) -> None:
    other = Authority(secured.folder / "other")
    other.renew(LOOPBACK)
    section = secured.section(other.certificate)
    with pytest.raises(ConfigurationError, match=r"not of the authority in .*nothing was sent"):
        await connect_operator(secured.broker.url, section, nothing)
    with pytest.raises(ConfigurationError, match=r"not of the authority in .*nothing was sent"):
        async with Choir(section=section):
            pass


async def test_a_client_in_plain_text_is_told_how_to_join(secured: Secured) -> None:
    url = f"nats://127.0.0.1:{secured.port}"
    with pytest.raises(ConfigurationError, match="choir join"):
        async with Choir(url):
            pass


async def test_whoever_stands_between_cannot_talk_a_client_into_plain_text(secured: Secured) -> None:
    # Given a server that says it is a broker without TLS
    heard = bytearray()

    async def pretend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","max_payload":1048576,"nonce":"abc"}\r\n')
        heard.extend(await reader.read(4096))
        writer.write(b"-ERR 'Unknown Protocol Operation'\r\n")
        writer.close()

    server = await asyncio.start_server(pretend, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        # When a client of the mesh comes to it
        with pytest.raises((ConfigurationError, MeshUnreachable), match="TLS"):
            async with Choir(section=secured.section(url=f"tls://127.0.0.1:{port}")):
                pass
    # Then it is told nothing
    assert heard
    assert b"CONNECT" not in heard


async def test_it_refuses_who_has_no_key(secured: Secured) -> None:
    context = ssl.create_default_context(cafile=str(secured.authority.certificate))
    await check_guarded("127.0.0.1", secured.port, context)


async def test_a_certificate_for_other_names_is_said(secured: Secured) -> None:
    section = secured.section(url=f"tls://127.0.0.2:{secured.port}")
    async with _relay("127.0.0.2", secured.port) as port:
        with pytest.raises(ConfigurationError, match=r"add that to addresses in section .broker."):
            async with Choir(section=section.model_copy(update={"url": f"tls://127.0.0.2:{port}"})):
                pass


class _relay:
    """The same broker at another address."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> int:
        self._server = await asyncio.start_server(self._take, self._host, 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        writers = [writer]
        try:
            to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._port)
            writers.append(to_writer)
            await asyncio.gather(self._carry(reader, to_writer), self._carry(to_reader, writer))
        finally:
            for one in writers:
                one.close()

    @staticmethod
    async def _carry(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while block := await source.read(65_536):
            target.write(block)
        target.close()


async def test_a_renewed_certificate_is_shown_and_no_request_is_lost(secured: Secured) -> None:
    # Given requests and replies without a pause
    service = await nats.connect(**_options(secured))
    client = await nats.connect(**_options(secured))

    async def answer(msg: Msg) -> None:
        await msg.respond(msg.data)

    await service.subscribe("echo", cb=answer)
    await settled(service)
    answered, going = 0, True

    async def ask() -> None:
        nonlocal answered
        while going:
            try:
                reply = await client.request("echo", b"hi", timeout=DEADLINE_S)
            except nats.errors.NoRespondersError:  # for a moment, while the broker reads who may come in
                continue
            assert reply.data == b"hi"
            answered += 1

    asking = [asyncio.create_task(ask()) for _ in range(8)]
    assert await until(lambda: answered > 40, DEADLINE_S)
    before = await _serial(secured.port)
    # When the certificate is renewed, again and again
    for days in range(3):
        Authority(secured.folder / "tls", lifetime=timedelta(days=400 * (days + 2))).renew(LOOPBACK)
        await secured.broker.reload()
        so_far = answered
        assert await until(lambda so_far=so_far: answered > so_far + 40, DEADLINE_S)  # type: ignore[misc]
    going = False
    await asyncio.gather(*asking)
    # Then new connections see the new one, and those that were there were not cut
    assert await _serial(secured.port) != before
    assert (service.stats["reconnects"], client.stats["reconnects"]) == (0, 0)
    await service.close()
    await client.close()


def _options(secured: Secured) -> dict[str, Any]:
    return {"servers": [secured.broker.url], **secured.section().credentials}


async def _serial(port: int) -> str:
    section = ssl.create_default_context()
    section.check_hostname, section.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=section)
    shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return shown.hex()


async def test_certificates_of_the_user_s_own_are_shown_and_read_again_when_they_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a company's authority, whose certificate choir.toml names
    company = Authority(tmp_path / "company")
    company.renew(LOOPBACK)
    files = company.files
    named = BrokerTlsSection(certificate=files.certificate, key=files.key, ca=files.ca)
    settings = HostSettings(broker=BrokerSection(host="0.0.0.0", addresses=("127.0.0.1",), tls=named))
    certificates = BrokerCertificates(settings, tmp_path / "state")
    certificates.prepare()
    assert not (tmp_path / "state").exists()  # the mesh makes no authority of its own
    keys = KeyRing(tmp_path / "keys")
    block = accounts(keys.public_key(OPERATOR), (), ())
    async with Broker(tmp_path / "broker", accounts=block, tls=certificates.files) as broker:
        section = MeshSection(url=broker.url, nkey=str(keys.path(OPERATOR)), ca=str(files.ca))

        async def shown() -> bytes:
            loop, context = asyncio.get_running_loop(), ssl.create_default_context(cafile=str(files.ca))
            return await loop.run_in_executor(None, _certificate_of, broker.port, context)

        await (await connect_operator(broker.url, section, nothing)).close()
        before = await shown()
        # When there is a new one in its place
        monkeypatch.setattr("infra.broker.tls.certificates.LOOK_INTERVAL_S", 0.05)
        said: list[str] = []
        keeping = asyncio.create_task(certificates.keep(broker.reload, said.append))
        await asyncio.sleep(0)
        company.renew([*LOOPBACK, "another.example"])
        assert await until(lambda: "the broker has a new certificate" in said, DEADLINE_S)
        keeping.cancel()
        # Then the broker shows it
        assert await shown() != before
    # And a file that is not there is named
    missing = named.model_copy(update={"key": tmp_path / "nowhere.key"})
    wrong = HostSettings(broker=BrokerSection(host="0.0.0.0", tls=missing))
    with pytest.raises(ConfigurationError, match=r"broker\.tls\.key names .*nowhere\.key"):
        BrokerCertificates(wrong, tmp_path / "state").prepare()


def _certificate_of(port: int, context: ssl.SSLContext) -> bytes:
    with (
        socket.create_connection(("127.0.0.1", port), DEADLINE_S) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        return secure.getpeercert(binary_form=True) or b""
