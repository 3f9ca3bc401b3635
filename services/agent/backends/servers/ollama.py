"""`ollama`: a model behind an Ollama server, through the ollama package.

Counts and durations are the server's own. Texts are always streamed, so that a server that hangs is noticed.

What Ollama does in its own way: a prompt over its context is cut at the front without a word. So the context
is set (`num_ctx`) where `context_tokens` says how long it is to be, and a prompt that fills it is refused. Of
a conversation whose older messages were dropped nothing can be seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any, cast

import httpx
import ollama
from ollama import ChatResponse, ShowResponse

from schemas.commands import ChatMessage, Embed, RawPrompt, Tokenize
from schemas.errors import ChoirError, ContextExceeded, GenerationFailed, InvalidRequest, WorkerFailed
from schemas.nodes.lease import Capability
from schemas.replies import FinishReason, TokenCount, Tokenized
from schemas.requests.chat import Tool
from schemas.requests.origin import NOBODY, Origin
from schemas.requests.sampling import Sampling
from services.agent.backends.backend import BackendInfo, Generated, OnPiece, Prompt
from services.agent.backends.samples import several
from services.agent.backends.servers.accumulator import StreamAccumulator
from services.agent.backends.servers.bounded_http import transport
from services.agent.backends.servers.bounds import bounded_count, bounded_text
from services.agent.backends.servers.faults import (
    broken_off,
    excerpt,
    status_fault,
    transport_fault,
)
from services.agent.backends.servers.ollama_chat import calls_of, check_possible, described, turns
from services.agent.backends.servers.remote import (
    UNKNOWN_CONTEXT_TOKENS,
    RemoteBackend,
    ServedModel,
    api_key,
    check_listed,
    checked,
    hooks,
    limits,
    logprob,
    no_tokens,
    room_for_vectors,
    vectors,
)
from services.agent.networks import Networks
from services.agent.settings import ModelSection
from services.tasks.generate import Conversation, conversation_of

LATEST = ":latest"
COUNT_LIMIT_S = 60.0
"""For a count: a prompt is read for it, and the model loaded before that."""
CAPABILITIES: tuple[Capability, ...] = ("completion", "tools", "thinking", "embedding", "vision")
"""Those of a model that Ollama tells of, under the same names. A model that it tells nothing of is tried."""
FINISH_REASONS: Mapping[str, FinishReason] = {"stop": "stop", "length": "length"}


class Ollama(ServedModel):
    """One model of one server."""

    def __init__(self, model: ModelSection, networks: Networks | None = None) -> None:
        """`networks`: where the server may be; None where the operator has written it down."""
        super().__init__(model)
        timeout, connections = limits(self._server, model.slots)
        key = api_key(self._server)
        self._client = ollama.AsyncClient(
            host=self._server.url,
            timeout=timeout,
            transport=transport(self._server.url, connections, networks, proxies=False),
            event_hooks=hooks(self._server),
            follow_redirects=False,
            trust_env=False,
            headers={"Authorization": f"Bearer {key}"} if key else None,
        )

    async def generate(
        self, prompt: Prompt, sampling: Sampling, on_piece: OnPiece | None, origin: Origin = NOBODY
    ) -> Generated:
        """Generates one text with `/api/chat`; cancelled, it closes the stream, at which Ollama stops."""
        if isinstance(prompt, RawPrompt):
            raise InvalidRequest(
                "raw: Ollama is asked for chats only; ask with messages, or another model", field="raw"
            )
        conversation = conversation_of(prompt)
        check_possible(conversation, sampling)
        if sampling.n > 1:
            return await several(partial(self._generate, conversation), sampling, on_piece)
        return await self._generate(conversation, sampling, on_piece)

    async def _generate(
        self, conversation: Conversation, sampling: Sampling, on_piece: OnPiece | None
    ) -> Generated:
        async def receive(accumulated: StreamAccumulator) -> Generated:
            frames = await self._client.chat(
                model=self._model,
                messages=turns(conversation.messages),
                tools=described(conversation),
                think=sampling.think,
                stream=True,
                format=sampling.json_schema,
                options=self._options(sampling),
                logprobs=True if sampling.logprobs else None,
                top_logprobs=sampling.logprobs or None,
            )
            return await self._receive(frames, accumulated)

        return await self._measured(receive, sampling, on_piece, "does not say them, a newer Ollama does")

    def _options(self, sampling: Sampling) -> dict[str, Any]:
        """Every option by name: what is left out would be the server's or the model file's own choice."""
        options: dict[str, Any] = {
            "num_predict": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
            "min_p": sampling.min_p,
            "repeat_penalty": sampling.repeat_penalty,
            "presence_penalty": sampling.presence_penalty,
            "frequency_penalty": sampling.frequency_penalty,
            "seed": sampling.seed,
            "stop": list(sampling.stop),
        }
        if self.info.context_tokens is not None:
            options["num_ctx"] = self.info.context_tokens
        return options

    async def _receive(
        self, frames: AsyncIterator[ChatResponse], accumulated: StreamAccumulator
    ) -> Generated:
        last: ChatResponse | None = None
        async with aclosing(cast(AsyncGenerator[ChatResponse, None], frames)):
            async for frame in frames:
                text, thinking = frame.message.content or "", frame.message.thinking or ""
                if text or thinking:
                    await accumulated.take(text, thinking)
                await accumulated.take_calls(calls_of(frame.message, len(accumulated.tool_calls)))
                accumulated.logprobs += [logprob(token) for token in frame.logprobs or ()]
                last = frame
        if last is None or not last.done:
            raise broken_off(self._server.url, accumulated.pieces)
        self._check_context(last.prompt_eval_count)
        if last.done_reason is not None and last.done_reason not in FINISH_REASONS:
            raise GenerationFailed(
                f"{self._server.url} ended the text for another reason: {last.done_reason}"
            )
        return Generated(
            text=accumulated.text,
            finish_reason=FINISH_REASONS[last.done_reason or "stop"],
            prompt_tokens=bounded_count(last.prompt_eval_count),
            generated_tokens=bounded_count(last.eval_count) or accumulated.steps,
            load_ns=bounded_count(last.load_duration),
            prompt_eval_ns=bounded_count(last.prompt_eval_duration),
            eval_ns=bounded_count(last.eval_duration) or max(1, accumulated.eval_ns),
            first_token_ns=accumulated.first_ns,
            logprobs=tuple(accumulated.logprobs),
            thinking=accumulated.thinking,
            tool_calls=accumulated.tool_calls,
        )

    def _check_context(self, prompt_tokens: int | None) -> None:
        """A prompt that takes the whole context was cut, or has no room for an answer."""
        context = self.info.context_tokens
        if context is not None and (prompt_tokens or 0) >= context:
            raise ContextExceeded(f"the prompt has at least {prompt_tokens} tokens, the context {context}")

    async def count_tokens(
        self, messages: tuple[ChatMessage, ...], tools: tuple[Tool, ...] = ()
    ) -> TokenCount:
        """Counted by the server itself, which generates one token for it."""
        async with self._faults(), asyncio.timeout(COUNT_LIMIT_S):
            reply = await self._client.chat(
                model=self._model,
                messages=turns(messages),
                tools=described(Conversation(messages, tools)),
                options=self._options(Sampling(max_tokens=1)),
            )
        return TokenCount(
            prompt_tokens=bounded_count(reply.prompt_eval_count),
            context_tokens=self.info.context_tokens or UNKNOWN_CONTEXT_TOKENS,
        )

    async def models(self) -> tuple[str, ...]:
        """What `/api/tags` lists, also under the name without `:latest`."""
        async with self._faults():
            listed = (await self._client.list()).models
        names = [entry.model for entry in listed if entry.model]
        return (*names, *(name.removesuffix(LATEST) for name in names if name.endswith(LATEST)))

    async def check(self) -> None:
        """Raises WorkerFailed if the server does not answer, ModelUnusable if the model is not there."""
        check_listed(self._model, await self.models(), self._server.url)
        if self.info.parameters is None:
            async with self._faults():
                self._learn(await self._client.show(self._model))

    def _learn(self, said: ShowResponse) -> None:
        """`/api/show` says how large a model is."""
        count = (said.modelinfo or {}).get("general.parameter_count")
        details = said.details
        words = (details.family, details.quantization_level) if details is not None else ()
        self.info = BackendInfo(
            context_tokens=self.info.context_tokens,
            parameters=bounded_count(count) or None,
            description=bounded_text(" ".join(["ollama", *(word for word in words if word)])),
            capabilities=tuple(name for name in CAPABILITIES if name in (said.capabilities or ())),
        )

    async def embed(self, embed: Embed) -> Generated:
        """One vector for each text, with `/api/embed`."""
        async with self._faults():
            with room_for_vectors(embed):
                reply = await self._client.embed(
                    model=self._model,
                    input=list(embed.inputs),
                    truncate=embed.truncate,
                    dimensions=embed.dimensions,
                )
        return vectors(self._server.url, embed, reply.embeddings, bounded_count(reply.prompt_eval_count))

    async def tokenize(self, request: Tokenize) -> Tokenized:
        """Ollama has no way to ask for it."""
        raise no_tokens(self._server.url)

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.close()  # type: ignore[no-untyped-call]

    @asynccontextmanager
    async def _faults(self) -> AsyncIterator[None]:
        """Whatever the client or the server does wrong leaves here as one of our errors."""
        try:
            yield
        except ChoirError:
            raise
        except ollama.ResponseError as error:
            if error.status_code < 0:  # said in the middle of a stream
                raise WorkerFailed(f"{self._server.url}: {excerpt(error.error)}") from error
            raise status_fault(self._server.url, error.status_code, error.error) from error
        except TimeoutError as error:
            raise WorkerFailed(f"{self._server.url} has not answered within {COUNT_LIMIT_S:g} s") from error
        except ConnectionError as error:
            raise WorkerFailed(f"nobody answers at {self._server.url}") from error
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, AttributeError, TypeError) as error:
            raise transport_fault(self._server.url, error) from error


async def open_backend(model: ModelSection, threads: int | None) -> RemoteBackend:
    """Ready when the server lists the model."""
    return await checked(Ollama(model))
