"""The further protocol of backends that ask an HTTP server, and what they share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from math import isfinite
from typing import Any, Protocol

import httpx

from schemas.commands import Embed
from schemas.errors import ChoirError, GenerationFailed, InvalidRequest, ModelUnusable
from schemas.replies import Embeddings
from schemas.requests.origin import Origin
from schemas.requests.sampling import Sampling
from services.agent.backends.backend import Backend, BackendInfo, Generated, OnPiece
from services.agent.backends.servers.accumulator import SpeedMeter, StreamAccumulator
from services.agent.backends.servers.bounded_http import room_for, room_for_stream
from services.agent.backends.servers.bounds import MOST_KNOWN, bounded_text
from services.agent.backends.servers.echoes import note_sent
from services.agent.backends.servers.faults import check_content, check_json
from services.agent.keys import origin
from services.agent.settings import ModelSection, ServerSection

MOST_ALTERNATIVES = 20
LARGEST_LOGPROB = 1e-3
"""0 is certain; what is above comes of rounding."""
SPARE_CONNECTIONS = 4
"""Beside those for generations: a check must not wait for a slot."""

UNKNOWN_CONTEXT_TOKENS = 2**31 - 1
"""Said where nobody knows how long a server's context is: the server itself refuses what is too long."""

VECTOR_TOKENS = 16
"""A vector takes as much room in an answer as so many tokens, at most."""


class RemoteBackend(Backend, Protocol):
    """One model on a server."""

    async def models(self) -> tuple[str, ...]:
        """The models that the server has. Raises WorkerFailed."""

    async def check(self) -> None:
        """Raises WorkerFailed if the server does not answer, ModelUnusable if the model is not there."""


class ServedModel(ABC):
    """One model of one server, in the ways that are the same for all servers."""

    def __init__(self, model: ModelSection) -> None:
        self._server = server_of(model)
        self._model = self._server.model or model.name
        self._speed = SpeedMeter()
        self.info = BackendInfo(context_tokens=model.context_tokens, description=self._server.type)

    @abstractmethod
    def _faults(self) -> AbstractAsyncContextManager[None]:
        """Whatever the client or the server does wrong within it leaves as one of our errors."""

    def failure(self) -> ChoirError | None:
        """A server that fails may come back."""
        return None

    def step_s(self) -> float:
        """Its steps are its own."""
        return 0.0

    def tokens_per_s(self) -> float | None:
        """Tokens per second while the server worked for us."""
        return self._speed.tokens_per_s()

    def kept(self, *, idle: bool = False) -> tuple[Origin, ...]:
        """What the server keeps is not known."""
        return ()

    async def _measured(
        self,
        receive: Callable[[StreamAccumulator], Awaitable[Generated]],
        sampling: Sampling,
        on_piece: OnPiece | None,
        no_logprobs: str,
    ) -> Generated:
        """What `receive` makes of the stream. Raises GenerationFailed where that is not the JSON that was
        asked for, or has no log probabilities (`no_logprobs` ends that sentence)."""
        self._speed.begin()
        generated = None
        try:
            async with self._faults():
                with room_for_stream(sampling.max_tokens, logprobs=bool(sampling.logprobs)):
                    accumulated = StreamAccumulator(self._server.url, sampling.max_tokens, on_piece)
                    generated = await receive(accumulated)
        finally:
            self._speed.end(generated.generated_tokens if generated else 0)
        form_wanted = sampling.json_schema is not None and not generated.tool_calls
        check_json(self._server.url, generated.text, generated.finish_reason, form_wanted)
        if sampling.logprobs and generated.generated_tokens and not generated.logprobs:
            raise GenerationFailed(
                f"sampling.logprobs: {self._server.url} {no_logprobs}", field="sampling.logprobs"
            )
        return generated


def room_for_vectors(embed: Embed) -> AbstractContextManager[None]:
    """Within it an answer may be as long as the vectors of these texts."""
    return room_for(VECTOR_TOKENS * len(embed.inputs))


def vectors(url: str, embed: Embed, found: Sequence[Sequence[float]], prompt_tokens: int) -> Generated:
    """What a server has made of texts. Raises GenerationFailed unless that is a vector of one length each."""
    lengths = {len(vector) for vector in found}
    finite = all(isinstance(number, int | float) and isfinite(number) for row in found for number in row)
    if len(found) != len(embed.inputs) or len(lengths) != 1 or 0 in lengths or not finite:
        raise GenerationFailed(f"{url} has not given one vector for each text")
    return Generated(
        text="", finish_reason="stop", prompt_tokens=prompt_tokens, embeddings=Embeddings.of(found)
    )


def no_tokens(url: str) -> InvalidRequest:
    """Raised where a server has no way to ask for tokens."""
    return InvalidRequest(
        f"model: {url} does not tell its tokens: ask for a model that an agent runs by itself", field="model"
    )


def server_of(model: ModelSection) -> ServerSection:
    """Where the model is served; ModelUnusable if the settings do not say."""
    if model.server is None:
        raise ModelUnusable(f"model {model.name} needs server = {{ type, url }}", field="server")
    return model.server


def api_key(server: ServerSection) -> str | None:
    """The key that goes with each request, if one is named; ModelUnusable if the server was given none."""
    if server.key_variable is not None and server.key is None:
        raise ModelUnusable(f"{server.url} needs the key {server.key_variable}", field="key_variable")
    return server.key


def limits(server: ServerSection, slots: int) -> tuple[httpx.Timeout, httpx.Limits]:
    """How long is waited, and how many connections are open at once.

    The read limit is the stall limit: for so long may a server say nothing at all. Each request has a
    connection of its own: on one that is kept, a server that closes it at the wrong moment looks like one
    that failed, and nothing here is tried twice.
    """
    timeout = httpx.Timeout(server.stall_limit_s, connect=server.connect_limit_s)
    return timeout, httpx.Limits(max_connections=slots + SPARE_CONNECTIONS, max_keepalive_connections=0)


ACCOUNT_HEADERS = ("cookie", "openai-organization", "openai-project")
"""Headers that a client library may take from the environment on its own account."""

Hook = Callable[[Any], Awaitable[None]]


def hooks(server: ServerSection) -> dict[str, list[Hook]]:
    """httpx hooks: a key leaves for its own server only; a page for people is no answer; and what was sent is
    known when the server repeats it."""

    async def only_its_key(request: httpx.Request) -> None:
        mine = server.key is not None and origin(str(request.url)) == origin(server.url)
        for header in (*ACCOUNT_HEADERS, *(() if mine else ("authorization",))):
            request.headers.pop(header, None)
        note_sent(request)

    return {"request": [only_its_key], "response": [check_content]}


def check_listed(name: str, listed: tuple[str, ...], url: str) -> None:
    """Raises ModelUnusable, with what there is, unless the server has the model."""
    if name not in listed:
        some = tuple(bounded_text(other) for other in sorted(listed)[:MOST_KNOWN])
        more = f" and {len(listed) - len(some)} more" if len(listed) > len(some) else ""
        what = f"{url} has no model {name}; it has: {', '.join(some) or 'none'}{more}"
        raise ModelUnusable(what, field="model", known=some)


def logprob(token: Any) -> dict[str, Any]:
    """In the form that all backends use; servers do not say the ids of tokens."""
    top = [_ranked(other) for other in (token.top_logprobs or ())[:MOST_ALTERNATIVES]]
    return _ranked(token) | {"top": top}


def _ranked(token: Any) -> dict[str, Any]:
    """Raises ValueError for what is no logarithm of a probability."""
    if not -math.inf < float(token.logprob) <= LARGEST_LOGPROB:
        raise ValueError("a log probability that is none")
    return {"text": str(token.token), "logprob": float(token.logprob)}


async def checked(backend: RemoteBackend) -> RemoteBackend:
    """The backend, when its server lists the model; closed if it does not."""
    try:
        await backend.check()
    except ChoirError:
        await backend.close()
        raise
    return backend
