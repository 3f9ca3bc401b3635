"""HTTP to servers that nobody vouches for: where they may be, and how much of what they say is taken.

A server may say too much: a small answer that unpacks to gigabytes, a line or a list without end. All of it
would be in the memory of an agent that has models of its own.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from urllib.request import getproxies, proxy_bypass

import httpcore
import httpx
from httpcore._backends.auto import AutoBackend

from schemas.errors import WorkerFailed
from services.agent.backends.servers.faults import garbage
from services.agent.networks import Networks, permitted

MOST_BYTES = 1024**2
"""Of any answer but a text: a list of models, a count."""
MOST_ERROR_BYTES = 64 * 1024
"""Of an error; the rest of it is not read."""
TOKEN_BYTES = 8 * 1024
"""Of a stream, for each token that was asked for: its text, and the most probable ones in its place."""
LINE_BYTES = 256 * 1024
"""Of a line of a stream, beside LINE_TOKEN_BYTES for each token: the client's library keeps a line until its
end has come, several times over."""
LINE_TOKEN_BYTES = 64
HTTP_ERROR = 400
UNPACKED = ("", "identity")


@dataclass(frozen=True)
class Room:
    """How many bytes an answer may have, and each of its lines; None: as many as all of it."""

    most: int = MOST_BYTES
    most_of_a_line: int | None = None


USUAL = Room()
_room: ContextVar[Room] = ContextVar("room", default=USUAL)

SocketOption = tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]


@contextmanager
def room_for(tokens: int) -> Iterator[None]:
    """Within it an answer may be as long as what is said of so many tokens."""
    with _given(Room(MOST_BYTES + tokens * TOKEN_BYTES)):
        yield


@contextmanager
def room_for_stream(tokens: int, *, logprobs: bool) -> Iterator[None]:
    """Within it an answer may be as long as a text of so many tokens, in lines: one of them may have all of
    it, where a server does not stream."""
    line_bytes = LINE_BYTES + tokens * (TOKEN_BYTES if logprobs else LINE_TOKEN_BYTES)
    with _given(Room(MOST_BYTES + tokens * TOKEN_BYTES, line_bytes)):
        yield


@contextmanager
def _given(room: Room) -> Iterator[None]:
    token = _room.set(room)
    try:
        yield
    finally:
        _room.reset(token)


class BoundedTransport(httpx.AsyncBaseTransport):
    """Asks another transport; its answers are not packed, and not longer than they may be."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises WorkerFailed for an answer that is packed, and so does its stream for one that is too
        long."""
        request.headers["accept-encoding"] = "identity"
        server = f"{request.url.scheme}://{request.url.netloc.decode()}"
        response = await self._inner.handle_async_request(request)
        encoding = response.headers.get("content-encoding", "").strip().lower()
        if encoding not in UNPACKED:
            await response.aclose()
            raise garbage(server, "it was asked for plain text, and has packed it")
        assert isinstance(response.stream, httpx.AsyncByteStream)
        failed = response.status_code >= HTTP_ERROR
        return httpx.Response(
            response.status_code,
            headers=response.headers,
            stream=_ErrorBody(response.stream) if failed else _Body(response.stream, _room.get(), server),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._inner.aclose()


class _Body(httpx.AsyncByteStream):
    """Bytes of a stream; WorkerFailed when there are too many of them, or of one line."""

    def __init__(self, stream: httpx.AsyncByteStream, room: Room, server: str) -> None:
        self._stream = stream
        self._room = room
        self._server = server

    async def __aiter__(self) -> AsyncIterator[bytes]:
        taken = line_bytes = 0
        most_of_a_line = self._room.most_of_a_line
        async for piece in self._stream:
            taken += len(piece)
            if taken > self._room.most:
                raise WorkerFailed(f"{self._server} says more than {self._room.most} bytes, and was cut off")
            if most_of_a_line is not None:
                ended = max(piece.rfind(b"\n"), piece.rfind(b"\r")) + 1
                line_bytes = len(piece) - ended + (0 if ended else line_bytes)
                if line_bytes > most_of_a_line:
                    raise WorkerFailed(
                        f"{self._server} says more than {most_of_a_line} bytes in a line, and was cut off"
                    )
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()


class _ErrorBody(httpx.AsyncByteStream):
    """The beginning of an error: nobody reads more of one."""

    def __init__(self, stream: httpx.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = MOST_ERROR_BYTES
        async for piece in self._stream:
            yield piece[:left]
            left -= len(piece)
            if left <= 0:
                return

    async def aclose(self) -> None:
        await self._stream.aclose()


class CheckedNetwork(httpcore.AsyncNetworkBackend):
    """Connects to addresses that are allowed, and to no other that the same name has in the next moment."""

    def __init__(self, networks: Networks) -> None:
        self._networks = networks
        self._inner = AutoBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Raises WorkerFailed where none of the addresses is allowed."""
        allowed, refusal = permitted(self._networks, host, await _addresses(host, port, timeout))
        failure: httpcore.ConnectError | None = None
        for address in allowed:
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except httpcore.ConnectError as error:
                failure = error
        raise failure or WorkerFailed(f"{host}: {refusal or 'it has no address'}")

    async def sleep(self, seconds: float) -> None:
        """Waits."""
        await self._inner.sleep(seconds)


async def _addresses(host: str, port: int, timeout: float | None) -> tuple[str, ...]:
    """The addresses of a name, in the order of the system."""
    try:
        async with asyncio.timeout(timeout):
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except TimeoutError as error:
        raise httpcore.ConnectTimeout(f"the name {host} is not known in time") from error
    except (OSError, UnicodeError) as error:
        raise httpcore.ConnectError(str(error)) from error
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))


@cache
def trusted(environment: bool) -> ssl.SSLContext:
    """The authorities that are trusted, those of the `environment` too: read once, which takes 20 ms and
    0.7 MiB, and not for each server."""
    return httpx.create_ssl_context(trust_env=environment)


def transport(
    url: str, limits: httpx.Limits, networks: Networks | None, *, proxies: bool
) -> httpx.AsyncBaseTransport:
    """The way to a server. `networks` None: the operator wrote its address down, so it may be anywhere.
    `proxies`: a proxy that the environment names is used; that one has to know where it may go."""
    proxy = _proxy(url) if proxies else None
    if proxy is not None:
        return BoundedTransport(httpx.AsyncHTTPTransport(verify=trusted(True), limits=limits, proxy=proxy))
    inner = httpx.AsyncHTTPTransport(verify=trusted(proxies), limits=limits, trust_env=proxies)
    if networks is not None:
        pool = inner._pool
        assert isinstance(pool, httpcore.AsyncConnectionPool)
        pool._network_backend = CheckedNetwork(networks)  # httpx has no way to say it
    return BoundedTransport(inner)


def _proxy(url: str) -> str | None:
    parsed = httpx.URL(url)
    known = getproxies()
    return None if proxy_bypass(parsed.host) else known.get(parsed.scheme, known.get("all"))
