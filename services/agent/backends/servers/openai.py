"""`openai`: a model behind an OpenAI-compatible HTTP server (LM Studio, Exo, llama-server, vLLM, ...).

Texts are always streamed, so that a server that hangs is noticed and a cancelled one stops. What a server
does not say is measured: token counts and durations. Nothing is tried twice here: another worker takes a
failed task.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import httpx
import openai

# The client would import these at its first request, within the time that the server has for its answer.
import openai.resources.chat
import openai.resources.embeddings
import openai.resources.models
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.chat_completion_chunk import Choice

from schemas.commands import ChatMessage, Embed, RawPrompt, Tokenize
from schemas.errors import ChoirError, GenerationFailed, InvalidRequest, WorkerFailed
from schemas.replies import FinishReason, TokenCount, Tokenized
from schemas.requests.chat import Tool
from schemas.requests.origin import NOBODY, Origin
from schemas.requests.sampling import Sampling
from services.agent.backends.backend import BackendInfo, Generated, OnPiece, Prompt
from services.agent.backends.samples import several
from services.agent.backends.servers.accumulator import StreamAccumulator
from services.agent.backends.servers.bounded_http import transport
from services.agent.backends.servers.bounds import bounded_count
from services.agent.backends.servers.faults import (
    broken_off,
    garbage,
    status_fault,
    transport_fault,
)
from services.agent.backends.servers.openai_chat import PartialCalls, thinking_of, tool_fields, turns
from services.agent.backends.servers.presets import PRESETS, parameters
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

API_PATH = "/v1"
NO_KEY = "none"
COUNT_LIMIT_S = 10.0
CONTEXT_FIELDS = ("max_model_len", "loaded_context_length", "context_length", "max_context_length")
FINISH_REASONS: Mapping[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "stop",
    "function_call": "stop",
}


class OpenAI(ServedModel):
    """One model of one server."""

    def __init__(self, model: ModelSection, networks: Networks | None = None) -> None:
        """`networks`: where the server may be; None where the operator has written it down."""
        super().__init__(model)
        timeout, connections = limits(self._server, model.slots)
        self._http = httpx.AsyncClient(
            timeout=timeout,
            transport=transport(
                self._server.url, connections, networks, proxies=self._server.type == "openai"
            ),
            event_hooks=hooks(self._server),
            follow_redirects=False,
            trust_env=False,
        )
        self._client = openai.AsyncOpenAI(
            base_url=self._server.url.rstrip("/") + API_PATH,
            api_key=api_key(self._server) or NO_KEY,
            max_retries=0,
            timeout=timeout,
            http_client=self._http,
        )
        # Parts of the client are imported when they are first named: here, and not while a server is timed.
        self._seen = b""
        self._models, self._embeddings = self._client.models, self._client.embeddings
        self._completions = self._client.chat.completions

    async def generate(
        self, prompt: Prompt, sampling: Sampling, on_piece: OnPiece | None, origin: Origin = NOBODY
    ) -> Generated:
        """Generates one text; cancelled, it closes the stream, by which the server sees that it can stop."""
        if isinstance(prompt, RawPrompt):
            raise InvalidRequest(
                f"raw: {self._server.url} is asked for chats only; ask with messages, or another model",
                field="raw",
            )
        conversation = conversation_of(prompt)
        if sampling.n > 1:
            return await several(partial(self._generate, conversation), sampling, on_piece)
        return await self._generate(conversation, sampling, on_piece)

    async def _generate(
        self, conversation: Conversation, sampling: Sampling, on_piece: OnPiece | None
    ) -> Generated:
        fields = parameters(self._server.type, sampling) | tool_fields(conversation)
        return await self._measured(
            partial(self._stream, conversation.messages, fields), sampling, on_piece, "does not say them"
        )

    async def _stream(
        self, messages: tuple[ChatMessage, ...], fields: Mapping[str, Any], accumulated: StreamAccumulator
    ) -> Generated:
        finish_reason: str | None = None
        calls = PartialCalls()
        last: ChatCompletionChunk | None = None
        stream = await self._completions.create(
            model=self._model,
            messages=turns(messages),
            stream=True,
            stream_options={"include_usage": True},
            extra_body=dict(fields),
        )
        async with stream:
            async for chunk in stream:
                last = chunk if chunk.usage is not None else last
                for choice in chunk.choices or ():
                    await self._take(choice, accumulated, calls)
                    finish_reason = choice.finish_reason or finish_reason
        if finish_reason is None:
            await self._explain_silence(messages, accumulated)
        ended = FINISH_REASONS.get(finish_reason or "")
        if ended is None:
            raise GenerationFailed(
                f"{self._server.url} ended the text for a reason of its own: {finish_reason}"
            )
        await accumulated.take_calls(calls.whole())
        usage = last.usage if last is not None else None
        prompt_tokens = bounded_count(usage.prompt_tokens) if usage else await self._prompt_tokens(messages)
        return self._generated(accumulated, ended, prompt_tokens, usage, last)

    async def _take(self, choice: Choice, accumulated: StreamAccumulator, calls: PartialCalls) -> None:
        """One chunk. The first one of many servers has a role and no text: no token of it was generated."""
        if choice.delta:
            text, thinking = choice.delta.content or "", thinking_of(choice.delta)
            if text or thinking:
                await accumulated.take(text, thinking)
            accumulated.count(calls.take(choice.delta))
        if choice.logprobs is not None and choice.logprobs.content:
            accumulated.logprobs += [logprob(token) for token in choice.logprobs.content]

    async def _explain_silence(
        self, messages: tuple[ChatMessage, ...], accumulated: StreamAccumulator
    ) -> None:
        """A stream without an end. If not even a word came, the same question without a stream has the
        reason: some servers can say what is wrong with a prompt only there."""
        if accumulated.steps == 0:
            await self._usage(messages)
        raise broken_off(self._server.url, accumulated.pieces)

    def _generated(
        self,
        accumulated: StreamAccumulator,
        finish_reason: FinishReason,
        prompt_tokens: int,
        usage: CompletionUsage | None,
        last: ChatCompletionChunk | None,
    ) -> Generated:
        """llama-server says durations of its own in the last chunk; else they are what was measured here."""
        said = (last.model_extra or {}).get("timings") if last is not None else None
        timings: Mapping[str, Any] = said if isinstance(said, dict) else {}
        return Generated(
            text=accumulated.text,
            finish_reason=finish_reason,
            prompt_tokens=prompt_tokens,
            generated_tokens=bounded_count(usage.completion_tokens if usage else None, accumulated.steps),
            prompt_eval_ns=_ns(timings.get("prompt_ms"), accumulated.first_ns),
            eval_ns=_ns(timings.get("predicted_ms"), max(1, accumulated.eval_ns)),
            first_token_ns=accumulated.first_ns,
            logprobs=tuple(accumulated.logprobs),
            thinking=accumulated.thinking,
            tool_calls=accumulated.tool_calls,
        )

    async def _prompt_tokens(self, messages: tuple[ChatMessage, ...]) -> int:
        """Asked of a server that does not say it in streams; 0 if it does not say it at all."""
        try:
            return await self._usage(messages)
        except WorkerFailed:
            return 0

    async def _usage(self, messages: tuple[ChatMessage, ...], more: Mapping[str, Any] | None = None) -> int:
        """How long a prompt is, from an answer of one token."""
        async with asyncio.timeout(COUNT_LIMIT_S):
            completion = await self._completions.create(
                model=self._model,
                messages=turns(messages),
                timeout=COUNT_LIMIT_S,
                extra_body={PRESETS[self._server.type].max_tokens: 1, **(more or {})},
            )
        if not isinstance(completion, ChatCompletion):
            raise garbage(self._server.url)
        if completion.usage is None:
            raise WorkerFailed(f"{self._server.url} does not say how many tokens a prompt has")
        return bounded_count(completion.usage.prompt_tokens)

    async def count_tokens(
        self, messages: tuple[ChatMessage, ...], tools: tuple[Tool, ...] = ()
    ) -> TokenCount:
        """Counted by the server itself: the API has no other way than to have it generate one token."""
        async with self._faults():
            prompt_tokens = await self._usage(messages, tool_fields(Conversation(messages, tools)))
        return TokenCount(
            prompt_tokens=prompt_tokens, context_tokens=self.info.context_tokens or UNKNOWN_CONTEXT_TOKENS
        )

    async def models(self) -> tuple[str, ...]:
        """What `/v1/models` lists. The client's objects of thousands of models would take half a second, in
        which nobody else is served."""
        return await self._named(await self._page())

    async def _page(self) -> bytes:
        async with self._faults():
            return (await self._models.with_raw_response.list()).content

    async def _named(self, content: bytes) -> tuple[str, ...]:
        async with self._faults():
            page = json.loads(content)
        entries = page.get("data") if isinstance(page, dict) else None
        if not isinstance(entries, list):
            raise garbage(self._server.url, f"no list of models at {API_PATH}/models")
        found = (entry for entry in entries if isinstance(entry, dict))
        named = {entry["id"]: entry for entry in found if isinstance(entry.get("id"), str)}
        self._learn(named.get(self._model, {}))
        return tuple(named)

    def _learn(self, said: Mapping[str, Any]) -> None:
        """Some servers say in the list how long a model's context is."""
        if self.info.context_tokens is None:
            known = [number for name in CONTEXT_FIELDS if (number := bounded_count(said.get(name)))]
            self.info = BackendInfo(
                context_tokens=known[0] if known else None, description=self.info.description
            )

    async def check(self) -> None:
        """Raises WorkerFailed if the server does not answer, ModelUnusable if the model is not there."""
        page = await self._page()
        seen = hashlib.blake2b(page).digest()
        if seen != self._seen:  # a list that has the model is read once, however often the server shows it
            check_listed(self._model, await self._named(page), self._server.url)
            self._seen = seen

    async def embed(self, embed: Embed) -> Generated:
        """One vector for each text. A text that is too long is the server's to refuse: it knows its model."""
        cut = {} if embed.dimensions is None else {"dimensions": embed.dimensions}
        async with self._faults():
            with room_for_vectors(embed):
                reply = await self._embeddings.create(
                    model=self._model, input=list(embed.inputs), encoding_format="float", extra_body=cut
                )
            rows = [entry.embedding for entry in sorted(reply.data, key=lambda entry: entry.index)]
            tokens = bounded_count(reply.usage.prompt_tokens if reply.usage else None)
        return vectors(self._server.url, embed, rows, tokens)

    async def tokenize(self, request: Tokenize) -> Tokenized:
        """The API has no way to ask for it."""
        raise no_tokens(self._server.url)

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    @asynccontextmanager
    async def _faults(self) -> AsyncIterator[None]:
        """Whatever the client or the server does wrong leaves here as one of our errors."""
        try:
            yield
        except ChoirError:
            raise
        except openai.APIStatusError as error:
            raise status_fault(self._server.url, error.status_code, error.message) from error
        except TimeoutError as error:
            raise WorkerFailed(f"{self._server.url} has not answered within {COUNT_LIMIT_S:g} s") from error
        except (openai.OpenAIError, httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise transport_fault(self._server.url, error) from error
        except (AttributeError, TypeError, KeyError) as error:
            # The client builds its objects from whatever JSON comes: what is not there shows only in use.
            raise garbage(self._server.url) from error


def _ns(milliseconds: Any, measured_ns: int) -> int:
    return bounded_count(milliseconds * 1e6 if isinstance(milliseconds, int | float) else None, measured_ns)


async def open_backend(model: ModelSection, threads: int | None) -> RemoteBackend:
    """Ready when the server lists the model."""
    return await checked(OpenAI(model))
