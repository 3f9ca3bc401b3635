"""`choir invite broker`: what the brokers of a cluster share is handed to another host, once.

The host that invites waits for it: over TLS, with a certificate that was made for this one invite, it hands
out what is shared to whoever first shows the secret of the line, and then listens no more. So the line itself
holds neither the key of the mesh's authority nor the secret of the routes, and is worth nothing when it was
used, when its time is over, or when the command has ended. No broker need run for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import secrets
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from infra.broker.cluster import own_server
from infra.broker.tls.authority import Authority
from infra.broker.tls.names import reachable_addresses
from infra.members.brokers import (
    EVERYWHERE,
    ClusterSecrets,
    Shared,
    check_may_take,
    cluster_secrets,
    settings_of_broker_host,
    shared_by_brokers,
    take_secrets,
)
from infra.settings import HostSettings
from schemas.errors import ConfigurationError, MeshUnreachable
from services.chassis.nats.connecting.address import host_and_port, is_loopback, why
from services.chassis.nats.connecting.tls import trusting
from services.client.finding.broker_section import Server
from services.client.finding.invite_line import NOT_WHOLE, pack, unpack

BEGINNING = "choir1b-"
PORT_OFFSET = 1000
"""From the broker's port for clients to the one at which it is handed over: 4222 and 5222."""
NAME = "handover.choir"
"""For whom the certificate of an invite is: a name of no host, known from the line alone."""
ANSWER_PATIENCE_S = 20.0
"""For one who has connected to show the secret, and to take what it opens."""
CONNECT_PATIENCE_S = 5.0
THANKS = b"thanks"
MOST_BYTES = 64 * 1024


class BrokerLine(BaseModel):
    """The line: where it is handed over, the secret that opens it, and the certificate (PEM) of who waits."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    addresses: tuple[str, ...] = Field(min_length=1)
    once: str
    certificate: str

    @property
    def text(self) -> str:
        """What is typed."""
        return pack(BEGINNING, self.model_dump_json().encode())

    @property
    def mark(self) -> str:
        """By what the line is known again; it says nothing of the secret."""
        return hashlib.sha256(self.once.encode()).hexdigest()


def is_broker_line(text: str) -> bool:
    """Whether what was typed is the line of a broker, and not that of another invite."""
    return text.lstrip().startswith(BEGINNING)


def parse_broker_line(text: str) -> BrokerLine:
    """Reads what was typed. ConfigurationError if it is not a whole line."""
    document = unpack(BEGINNING, text)
    try:
        return BrokerLine.model_validate_json(document)
    except ValidationError as error:
        whole = document.startswith(b"{") and document.endswith(b"}")
        said = "the line is of another Choir: make a new one there" if whole else NOT_WHOLE
        raise ConfigurationError(said) from error


# --- the host that invites ----------------------------------------------------------------


class Handover:
    """Hands `shared` out once, to whoever first shows the secret of `line`."""

    def __init__(self, shared: ClusterSecrets, line: BrokerLine) -> None:
        self.line = line
        self._shared = shared
        self._used = False
        self._taker: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def taken(self, ttl_s: float) -> str:
        """Returns when it was handed over: the address of who has it.

        ConfigurationError if nobody came in time, or if they broke off in the middle.
        """
        try:
            async with asyncio.timeout(ttl_s):
                return await asyncio.shield(self._taker)
        except TimeoutError as error:
            if self._used:  # somebody has the secrets already, and has not said so yet
                return await self._taker
            self._used = True
            raise ConfigurationError(
                "nobody has used the line in its time, and it is good no more: make another with "
                "`choir invite broker`"
            ) from error

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One who has connected: without the secret they hear nothing."""
        peer, mine = str(writer.get_extra_info("peername")[0]), False
        try:
            async with asyncio.timeout(ANSWER_PATIENCE_S):
                shown = (await reader.readline()).strip()
                mine = not self._used and hmac.compare_digest(shown, self.line.once.encode())
                if mine:
                    self._used = True
                    writer.write(self._shared.model_dump_json().encode() + b"\n")
                    if (await reader.readline()).strip() != THANKS:
                        raise ConnectionResetError
                    self._taker.set_result(peer)
        except (OSError, ValueError, TimeoutError):
            if mine:
                self._taker.set_exception(_broken_off(peer))
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def _broken_off(peer: str) -> ConfigurationError:
    return ConfigurationError(
        f"{peer} has used the line and broken off before it had all: if that was not the host that you "
        "invited, give the cluster a new secret; else type `choir invite broker` again"
    )


@asynccontextmanager
async def handing_over(
    settings: HostSettings, state: Path, port: int | None = None
) -> AsyncIterator[Handover]:
    """What the brokers of this host's cluster share can be had meanwhile, once, at `port`; without it at
    PORT_OFFSET above the broker's.

    ConfigurationError if choir.toml speaks of no cluster with this host, or the port is taken.
    """
    section = settings_of_broker_host(settings, shared_by_brokers(state)).broker
    shared = cluster_secrets(section, settings.mesh, state)
    own = own_server(section.servers, section.host, section.port)
    listen = section.host if "host" in section.model_fields_set else EVERYWHERE
    with tempfile.TemporaryDirectory() as folder:
        authority = Authority(Path(folder) / "tls")
        authority.renew([NAME])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(authority.files.certificate, authority.files.key)
        certificate = authority.certificate.read_text()
    at = port or own.port + PORT_OFFSET
    hosts = (own.host, *(host_and_port(said)[0] for said in section.addresses))
    others = () if is_loopback(own.host) else reachable_addresses(listen)
    line = BrokerLine(
        addresses=tuple(dict.fromkeys(str(Server(host, at)) for host in (*hosts, *others))),
        once=secrets.token_hex(32),
        certificate=certificate,
    )
    handover = Handover(shared, line)
    try:
        server = await asyncio.start_server(
            handover.answer,
            listen,
            at,
            ssl=context,
            ssl_handshake_timeout=ANSWER_PATIENCE_S,
            limit=MOST_BYTES,
        )
    except (OSError, OverflowError) as error:
        why_not = error.strerror if isinstance(error, OSError) else error
        raise ConfigurationError(
            f"the line of a broker is answered at port {at} of this host, and that cannot be had "
            f"({why_not}): end another `choir invite broker`, or say a port with --port"
        ) from error
    async with server:
        yield handover


# --- the host that joins ------------------------------------------------------------------


async def take_over(line: BrokerLine, state: Path) -> Shared:
    """This host is to run one of the brokers, by a line. Nothing is kept after an error.

    ConfigurationError says why the line is no good, or what is in the way here; MeshUnreachable that nobody
    answers where it says.
    """
    check_may_take(state)
    return take_secrets(await _fetched(line), state, line.mark)


def has_taken(line: BrokerLine, state: Path) -> bool:
    """Whether this host has what it runs a broker with from this line."""
    kept = shared_by_brokers(state)
    return kept is not None and kept.invite == line.mark


async def _fetched(line: BrokerLine) -> ClusterSecrets:
    try:
        context = trusting(None, line.certificate)
    except ssl.SSLError as error:
        raise ConfigurationError(NOT_WHOLE) from error
    reasons: list[str] = []
    for address in line.addresses:
        host, port = host_and_port(address)
        try:
            async with asyncio.timeout(CONNECT_PATIENCE_S):
                reader, writer = await asyncio.open_connection(
                    host, port, ssl=context, server_hostname=NAME, limit=MOST_BYTES
                )
        except ssl.SSLCertVerificationError:
            reasons.append(f"{address}: that is not the host of the line, and nothing was sent")
        except (OSError, TimeoutError) as error:
            reasons.append(f"{address}: {why(error)}")
        else:
            return await _handed(line, reader, writer)
    raise MeshUnreachable(
        f"nobody answers where the line says: {'; '.join(reasons)}. It is good while `choir invite broker` "
        "waits on its host, and once; and the way there has to be open (a firewall, another network)"
    )


async def _handed(
    line: BrokerLine, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> ClusterSecrets:
    try:
        async with asyncio.timeout(ANSWER_PATIENCE_S):
            writer.write(line.once.encode() + b"\n")
            document = await reader.readline()
            handed = ClusterSecrets.model_validate_json(document)
            writer.write(THANKS + b"\n")
            await writer.drain()
            return handed
    except (OSError, TimeoutError, ValueError) as error:
        raise ConfigurationError(
            "the line is good no more: it was used, or `choir invite broker` has ended. If that was not you, "
            "give the cluster a new secret; have a new line made there"
        ) from error
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
