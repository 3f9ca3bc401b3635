"""The connection of a client: one attempt to reach the broker, then reconnection without end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import nats.errors
from nats.aio.client import Client

from schemas.broker.catalog import CLIENT_USER, ENDPOINTS
from schemas.errors import ChoirError, ConfigurationError, MeshUnreachable, NotPermitted, PayloadTooLarge
from schemas.subjects import inbox_prefix
from services.chassis.nats.connecting.address import why, without_password
from services.chassis.nats.connecting.attempt import Attempt
from services.chassis.nats.connecting.ending import end_in_time
from services.chassis.nats.connecting.key_file import read_key_anew
from services.chassis.settings import MeshSection

CONNECT_PATIENCE_S = 2.0
SILENCE_PATIENCE_S = 10.0
"""While nobody says no: a broker on a busy host may stand still for a moment."""
RECONNECT_WAIT_S = 0.25
CLOSE_PATIENCE_S = 2.0
PENDING_BYTES = 64 * 1024 * 1024
SCHEMES = ("nats", "tls", "ws", "wss")
NOT_ALLOWED = "permissions violation"
ENVELOPE_BYTES = 512
"""What subject and headers add to a message at most: they count as payload too."""

HOW_TO_START = "start one here with `choir up` or `choir demo`, or set CHOIR_MESH__URL to where one runs"


@asynccontextmanager
async def open_connection(
    mesh: MeshSection,
    name: str,
    on_reconnect: Callable[[], None],
    on_refusal: Callable[[ChoirError], None],
    inbox: str | None = None,
) -> AsyncIterator[Client]:
    """A connected client, closed at the end.

    MeshUnreachable if no broker answers within two seconds for each address, ConfigurationError if it
    refuses the user. What it does not allow this user later is told to `on_refusal`. Replies come under the
    prefix `inbox`, by default that of the user.
    """
    for url in mesh.servers:
        check_url(url)
    end_in_time()
    client = Client()
    read_key_anew(client)
    attempt = Attempt(mesh)

    async def failed(error: Exception) -> None:
        attempt.failed(error)
        if NOT_ALLOWED in str(error).lower():
            on_refusal(_not_allowed(mesh, error))

    async def reconnected() -> None:
        on_reconnect()

    try:
        await _connect(client, attempt, name, inbox, error_cb=failed, reconnected_cb=reconnected)
        yield client
    finally:
        with contextlib.suppress(TimeoutError, nats.errors.Error, OSError):
            async with asyncio.timeout(CLOSE_PATIENCE_S):
                await client.close()


async def _connect(
    client: Client,
    attempt: Attempt,
    name: str,
    inbox: str | None,
    **callbacks: Callable[..., Awaitable[None]],
) -> None:
    mesh = attempt.mesh
    credentials = mesh.credentials
    try:
        async with attempt.within(CONNECT_PATIENCE_S * len(mesh.servers), SILENCE_PATIENCE_S):
            await client.connect(
                mesh.servers,
                dont_randomize=True,
                name=name,
                inbox_prefix=inbox or inbox_prefix(user_of(mesh)),
                **credentials,
                max_reconnect_attempts=-1,
                pending_size=PENDING_BYTES,
                reconnect_time_wait=RECONNECT_WAIT_S,  # type: ignore[arg-type]  # any number of seconds
                **callbacks,  # type: ignore[arg-type]
            )
    except TimeoutError as error:
        if attempt.refused:
            raise ConfigurationError(
                f"the broker at {without_password(mesh.url)} does not let {_who(mesh)} in: set user and "
                "password in section [mesh], or CHOIR_MESH__USER and CHOIR_MESH__PASSWORD; or nkey there, "
                "or CHOIR_MESH__NKEY; or join the mesh: `choir invite person` where the broker runs prints a "
                "line for `choir join`",
                field="mesh",
            ) from error
        if attempt.problem is not None:
            raise ConfigurationError(
                f"the broker at {without_password(mesh.url)} is not spoken to: {attempt.problem}",
                field="mesh.ca",
            ) from error
        over = "" if mesh.tls is None else " over TLS"
        because = "" if attempt.fault is None else f" ({why(attempt.fault)})"
        raise MeshUnreachable(
            f"no broker answers at {without_password(mesh.url)}{over}{because}; {HOW_TO_START}"
        ) from error


def user_of(mesh: MeshSection) -> str:
    """Who a client is to the broker."""
    return urlsplit(mesh.servers[0]).username or mesh.user or CLIENT_USER


def _who(mesh: MeshSection) -> str:
    if mesh.nkey is not None:
        return f"whoever has the key of {mesh.nkey}"
    named = urlsplit(mesh.servers[0]).username or mesh.user
    return "anybody without user and password" if named is None else f"user {named!r}"


def _not_allowed(mesh: MeshSection, error: Exception) -> ChoirError:
    """What the broker's words mean: they name the subject."""
    said = str(error).lower()
    for endpoint in ENDPOINTS:
        if f'"{endpoint.subject}"' in said:
            return NotPermitted(
                f'"{endpoint.subject}" needs the role {endpoint.role}, which this client does not have: '
                f"whoever runs the mesh can give it (`choir invite person --role {endpoint.role}`)"
            )
    if mesh.nkey is not None:
        return NotPermitted(
            f"the key {mesh.nkey} is not that of a client ({error}): ask by the key of a tenant; `choir "
            "invite person` where the broker runs prints a line for `choir join`, which makes one"
        )
    return ConfigurationError(
        f"the broker does not allow this to user {user_of(mesh)!r}: {error}; its configuration says who may "
        "do what (`python -m infra.broker.access.permissions`)",
        field="mesh.user",
    )


def check_url(url: str) -> None:
    """Raises ConfigurationError for what cannot be the address of a broker."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, a bracket that is not closed
        valid = False
    if not valid:
        raise ConfigurationError(
            f"mesh.url: {url!r} is not the address of a broker, such as nats://127.0.0.1:4222",
            field="mesh.url",
        )


def check_payload(client: Client, payload: bytes) -> None:
    """Raises PayloadTooLarge for what the broker would answer with a dropped connection."""
    limit = client.max_payload - ENVELOPE_BYTES
    if len(payload) > limit:
        raise PayloadTooLarge(
            f"prompt: the request has {len(payload)} bytes, the broker carries {limit}; "
            "shorten it, or raise max_payload in section [broker]",
            field="prompt",
        )
