"""Turns the failures of an HTTP server into typed errors.

WorkerFailed is what another server of the same model may not suffer from; everything else would fail there
in the same way.
"""

from __future__ import annotations

import json
import re
from copy import copy

import httpx
from pydantic import ValidationError

from schemas.errors import ChoirError, ContextExceeded, GenerationFailed, WorkerFailed
from services.agent.backends.servers.bounds import plain
from services.agent.backends.servers.echoes import without_echo

LONGEST_EXCERPT = 160
LOOKED_AT = 2 * LONGEST_EXCERPT
CONTEXT_WORDS = re.compile(
    r"context[ _](length|window|size)|exceeds? the (available )?context|too many tokens", re.I
)
REFUSED_FOR_GOOD = frozenset({400, 413, 422})
STREAM_TYPES = ("text/event-stream", "application/x-ndjson", "application/json")


def excerpt(text: str) -> str:
    """What a server said, in one line that fits an error message, commands no terminal, and repeats nothing
    of what the server was asked."""
    line = without_echo(plain(" ".join(text[:LOOKED_AT].split())))
    return line if len(line) <= LONGEST_EXCERPT else line[: LONGEST_EXCERPT - 3] + "..."


def status_fault(server: str, status: int, said: str) -> ChoirError:
    """The error that an HTTP status and the server's words stand for."""
    if status in REFUSED_FOR_GOOD and CONTEXT_WORDS.search(said):
        return ContextExceeded(f"{server}: {excerpt(said)}")
    what = f"{server} answered with status {status}: {excerpt(said) or '(nothing)'}"
    if status in REFUSED_FOR_GOOD:
        return GenerationFailed(what)
    if status in (401, 403):
        return WorkerFailed(f"{what}; it wants an API key (key_variable)")
    if status == 404:
        return WorkerFailed(f"{what}; is the port right, and the model there?")
    return WorkerFailed(what)


def transport_fault(server: str, error: Exception) -> ChoirError:
    """The error that a failed connection, a broken stream or garbage stands for."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ChoirError):
            return copy(
                cause
            )  # raised from what was raised from itself, it would live until garbage is searched
        if isinstance(cause, httpx.ConnectTimeout | httpx.PoolTimeout):
            return WorkerFailed(f"{server} does not take the connection in time")
        if isinstance(cause, httpx.ConnectError):
            return WorkerFailed(f"nobody answers at {server}: {excerpt(str(cause)) or 'no connection'}")
        if isinstance(cause, httpx.TimeoutException):
            return WorkerFailed(f"{server} has said nothing for too long, and was cut off")
        if isinstance(cause, httpx.TransportError):
            return WorkerFailed(f"{server} broke off: {excerpt(str(cause)) or type(cause).__name__}")
        if isinstance(cause, httpx.InvalidURL):
            return WorkerFailed(f"{server} is not an address: {excerpt(str(cause))}")
        if isinstance(cause, json.JSONDecodeError | ValidationError | UnicodeDecodeError):
            return garbage(server)
        cause = cause.__cause__ or cause.__context__
    return WorkerFailed(f"{server}: {type(error).__name__}: {excerpt(str(error))}")


def garbage(server: str, what: str = "") -> WorkerFailed:
    """A server that says what cannot be read."""
    return WorkerFailed(f"{server} answered with something else than this API{': ' if what else ''}{what}")


def broken_off(server: str, pieces: int) -> WorkerFailed:
    """A stream that ended before it said that it was done."""
    return WorkerFailed(f"{server}: the stream broke off after {pieces} pieces of text")


async def check_content(response: httpx.Response) -> None:
    """An httpx hook: a page for people, where an API should be, is refused before it is read as a stream."""
    content = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if response.is_success and content and content not in STREAM_TYPES:
        server = f"{response.url.scheme}://{response.url.netloc.decode()}"
        raise garbage(server, f"{content} from {response.url.path}")


def check_json(server: str, text: str, finish_reason: str, wanted: bool) -> None:
    """Raises GenerationFailed if JSON was asked for, and a finished text is none."""
    if not wanted or finish_reason != "stop":
        return
    try:
        json.loads(text)
    except ValueError as error:
        raise GenerationFailed(
            f"sampling.json_schema: {server} answered with a text that is no JSON: it ignores schemas",
            field="sampling.json_schema",
        ) from error
