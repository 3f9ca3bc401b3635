"""`choir invite broker`: what the brokers of a cluster share is handed over once, to who has the line."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from infra.broker.local_cluster import free_ports
from infra.broker.tls.authority import Authority
from infra.members import handover
from infra.members.brokers import shared_by_brokers
from infra.members.handover import (
    NAME,
    BrokerLine,
    handing_over,
    has_taken,
    is_broker_line,
    parse_broker_line,
    take_over,
)
from infra.members.joining import join_once
from infra.settings import HostSettings
from schemas.errors import ConfigurationError, MeshUnreachable
from services.chassis.nats.connecting.tls import trusting
from services.client.finding.broker_section import BrokerSection

DEADLINE_S = 120.0
HERE = "127.0.0.1"


@pytest.fixture(autouse=True)
def _connects_patiently(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "CONNECT_PATIENCE_S", DEADLINE_S)


def cluster() -> tuple[HostSettings, int]:
    """A cluster with this host, which shares its authority too, and a free port for the handover."""
    one, two, three, port = free_ports(4)
    servers = tuple(f"{HERE}:{each}" for each in (one, two, three))
    return HostSettings(broker=BrokerSection(host="0.0.0.0", port=one, cluster=servers)), port


async def shown(line: BrokerLine, secret: str, answer: bytes = b"thanks\n") -> bytes:
    """What whoever connects by hand hears when they show a secret, before they say `answer`."""
    host, _, port = line.addresses[0].rpartition(":")
    context = trusting(None, line.certificate)
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname=NAME)
    writer.write(secret.encode() + b"\n")
    heard = await reader.readline()
    if answer:
        writer.write(answer)
    writer.close()
    return heard


async def test_a_line_makes_one_host_a_broker_of_the_cluster_and_holds_no_key_itself(tmp_path: Path) -> None:
    settings, port = cluster()
    async with handing_over(settings, tmp_path / "one", port) as handover:
        line = handover.line
        assert is_broker_line(line.text) and parse_broker_line(f"  {line.text}\n") == line
        # The line says neither the authority's key nor the secret of the routes
        kept = shared_by_brokers(tmp_path / "one")
        assert kept is not None and kept.secret not in line.model_dump_json()
        assert "PRIVATE KEY" not in line.model_dump_json()
        # Whoever guesses is told nothing, and takes nothing away from who has the line
        assert await shown(line, "0" * 64) == b""
        assert await shown(line, "") == b""
        # When the host that was invited comes
        taking = asyncio.create_task(take_over(line, tmp_path / "two"))
        assert await handover.taken(DEADLINE_S) == HERE
        shared = await taking
        # Then it has what the first host has
        assert shared.secret == kept.secret and has_taken(line, tmp_path / "two")
        authorities = [Authority(tmp_path / name / "tls") for name in ("one", "two")]
        assert authorities[0].shared() == authorities[1].shared()
        # And nobody else has it by that line
        assert await shown(line, line.once) == b""
        with pytest.raises(ConfigurationError, match=r"it was used.*have a new line made"):
            await take_over(line, tmp_path / "three")
        assert shared_by_brokers(tmp_path / "three") is None
    # Nor when the command has ended; a container that starts anew by its line does not ask again
    with pytest.raises(MeshUnreachable, match="while `choir invite broker` waits"):
        await take_over(line, tmp_path / "three")
    await join_once(line.text, tmp_path / "two", tmp_path / "config")


async def test_a_line_that_is_not_used_in_its_time_is_good_no_more(tmp_path: Path) -> None:
    settings, port = cluster()
    async with handing_over(settings, tmp_path / "one", port) as handover:
        with pytest.raises(ConfigurationError, match="nobody has used the line in its time"):
            await handover.taken(0.01)
        assert await shown(handover.line, handover.line.once) == b""


async def test_whoever_breaks_off_in_the_middle_is_named_and_the_line_is_used(tmp_path: Path) -> None:
    settings, port = cluster()
    async with handing_over(settings, tmp_path / "one", port) as handover:
        assert b"PRIVATE KEY" in await shown(handover.line, handover.line.once, answer=b"")
        with pytest.raises(ConfigurationError, match=f"{HERE} has used the line and broken off"):
            await handover.taken(DEADLINE_S)
        assert await shown(handover.line, handover.line.once) == b""


async def test_whoever_listens_in_its_place_is_sent_nothing(tmp_path: Path) -> None:
    settings, port = cluster()
    async with handing_over(settings, tmp_path / "one", port) as handover:
        line = handover.line
    # Given somebody else at the same address, with a certificate of their own for the same name
    other, heard = Authority(tmp_path / "other"), bytearray()
    other.renew([NAME])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(other.files.certificate, other.files.key)

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.extend(await reader.read())
        writer.close()

    async with await asyncio.start_server(listen, HERE, port, ssl=context):
        with pytest.raises(MeshUnreachable, match="not the host of the line, and nothing was sent"):
            await take_over(line, tmp_path / "two")
    assert not heard


async def test_what_is_in_the_way_is_said_and_uses_no_line(tmp_path: Path) -> None:
    settings, port = cluster()
    with pytest.raises(ConfigurationError, match="there is no cluster"):
        async with handing_over(HostSettings(), tmp_path / "alone", port):
            pass
    async with handing_over(settings, tmp_path / "one", port) as handover:
        with pytest.raises(ConfigurationError, match=r"port .* say a port with --port"):
            async with handing_over(settings, tmp_path / "one", port):
                pass
        for text, said in ((handover.line.text[:-7], "not whole"), ("choir1b-", "not whole")):
            with pytest.raises(ConfigurationError, match=said):
                parse_broker_line(text)
        other = BrokerLine.model_construct(addresses=(), once="", certificate="")
        with pytest.raises(ConfigurationError, match="of another Choir"):
            parse_broker_line(other.text)
