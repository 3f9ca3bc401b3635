"""The handler of `Generate`: looks whether a task is done already, generates, stores the outcome once."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any, Protocol

from schemas import subjects
from schemas.commands import ChatMessage, Embed, Generate, RawPrompt
from schemas.errors import ChoirError, WorkerFailed
from schemas.replies import Answer, Embeddings, FinishReason, Result, Sample, Timings
from schemas.requests.chat import Tool, ToolCall, ToolChoice
from schemas.requests.origin import NOBODY, Origin
from schemas.requests.sampling import Sampling
from services.chassis.context import ServiceContext
from services.chassis.work.delivery import Delivery, HandedOver, Retry
from services.tasks.capabilities import check_capable
from services.tasks.in_work import RequestsInWork
from services.tasks.storing import emit_again, store_result
from services.tasks.task_events import (
    Taken,
    emit_cancelled,
    emit_completed,
    emit_completed_again,
    emit_pulled,
)
from services.tasks.token_stream import Piece as Piece
from services.tasks.token_stream import TokenStream


@dataclass(frozen=True)
class Conversation:
    """Messages, and the tools that the next turn may call."""

    messages: tuple[ChatMessage, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = "auto"


Prompt = tuple[ChatMessage, ...] | Conversation | RawPrompt
"""What a text is generated for; messages alone are a conversation without tools."""


def conversation_of(prompt: tuple[ChatMessage, ...] | Conversation) -> Conversation:
    """Messages as a conversation without tools."""
    return prompt if isinstance(prompt, Conversation) else Conversation(prompt)


OnPiece = Callable[[Piece], Awaitable[None]]
"""Takes each new piece as it is generated."""


@dataclass(frozen=True)
class Generated:
    """One finished generation. Durations in nanoseconds; `load_ns` is what it waited for the model. Of
    several texts this is the first, with the others in `samples`, and token counts are those of all."""

    text: str
    finish_reason: FinishReason
    prompt_tokens: int = 0
    prompt_tokens_reused: int = 0
    prompt_tokens_cut: int = 0
    generated_tokens: int = 0
    queue_ns: int = 0
    load_ns: int = 0
    prompt_eval_ns: int = 0
    eval_ns: int = 0
    first_token_ns: int = 0
    logprobs: tuple[dict[str, Any], ...] = ()
    thinking: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    samples: tuple[Sample, ...] = ()
    prompt_logprobs: tuple[dict[str, Any], ...] = ()
    embeddings: Embeddings | None = None
    stop_string: str | None = None


class Generator(Protocol):
    """What generates the texts of one model."""

    async def generate(
        self, prompt: Prompt, sampling: Sampling, on_piece: OnPiece | None, origin: Origin = NOBODY
    ) -> Generated:
        """Generates one text. Nothing that is kept of earlier ones may serve another tenant than that of
        `origin`. A cancelled call stops generating. Raises ContextExceeded, GenerationFailed."""

    async def embed(self, embed: Embed) -> Generated:
        """The vectors of texts. Raises ContextExceeded, GenerationFailed."""


def nothing_known() -> tuple[str, ...]:
    """The capabilities of a model of which nobody has said any."""
    return ()


def no_file() -> str | None:
    """The hash of a model that has no file, or of whose file nobody has read all."""
    return None


class GenerateWorker(ABC):
    """Serves one model, for whoever pulls its tasks; generate() is where its texts come from. `name` is who
    answers, if not the service instance; `capabilities` says what the model can do, as far as that is
    known, and `model_sha256` which file it is."""

    def __init__(
        self,
        mesh: ServiceContext,
        name: str | None = None,
        capabilities: Callable[[], Collection[str]] = nothing_known,
        model_sha256: Callable[[], str | None] = no_file,
    ) -> None:
        self._mesh = mesh
        self._storage = mesh.storage
        self._name = name or mesh.identity.instance
        self._capabilities = capabilities
        self._model_sha256 = model_sha256
        self._requests: RequestsInWork[Generated] = RequestsInWork(mesh)

    @abstractmethod
    async def generate(self, command: Generate, on_piece: OnPiece | None) -> Generated:
        """Generates the text of a command. A cancelled call stops generating."""

    async def is_elsewhere(self, command: Generate, delivery: Delivery) -> bool:
        """Whether another instance has the task now: asked before it is begun."""
        return False

    def cancel(self, request_id: str) -> None:
        """Nobody waits for this request any more."""
        self._requests.cancel(request_id)

    async def look_for_cancelled(self) -> None:
        """In case a cancellation was missed: who has a result already waits for no other."""
        await self._requests.look_for_cancelled()

    async def handle(self, command: Generate, delivery: Delivery) -> None:
        """Generates the answer of a task, unless its outcome is stored already.

        What fails at one external server goes back to the queue: another one may do it.
        """
        if self._requests.was_cancelled(command.request_id):
            return
        if not delivery.fresh and await self._is_done(command):
            return
        if await self.is_elsewhere(command, delivery):
            raise HandedOver
        if self._requests.was_cancelled(command.request_id):
            return
        taken = emit_pulled(self._mesh.events, command, delivery)
        try:
            answer = await self._answer(
                command, taken.queue_ns, attempt_of(command, delivery, self._mesh.clock.now())
            )
        except WorkerFailed as error:
            raise Retry(error) from error
        delivery.work_done()
        if answer is None:
            emit_cancelled(self._mesh.events, taken)
            return
        result = Result(
            request_id=command.request_id,
            fingerprint=command.fingerprint,
            topology="single",
            text=answer.text,
            tool_calls=answer.tool_calls,
            answers=(answer,),
            accepted_at_s=command.accepted_at_s,
            completed_at_s=self._mesh.clock.now(),
        )
        await self._store_outcome(command, answer, result, taken)

    async def _is_done(self, command: Generate) -> bool:
        """Whether the request has its result (also: a cancellation), or this task its answer.

        Whoever stored it may have died before it was told.
        """
        reads = [self._storage.last(subjects.RESULTS_STREAM, subjects.result(command.request_id))]
        if command.routing_slip:
            subject = subjects.answer(command.request_id, command.round, command.agent)
            reads.append(self._storage.last(subjects.ANSWERS_STREAM, subject))
        result, *answers = await asyncio.gather(*reads)
        for stored in answers:
            if stored is not None:
                emit_completed_again(self._mesh.events, Answer.read(stored.data), command)
        if result is not None and not command.routing_slip:
            self._emit_again(Result.read(result.data), command)
        return any(stored is not None for stored in (result, *answers))

    def _emit_again(self, result: Result, command: Generate) -> None:
        emit_again(self._mesh, result)
        for answer in result.answers:
            emit_completed_again(self._mesh.events, answer, command)

    async def _answer(self, command: Generate, queue_ns: int, attempt: int) -> Answer | None:
        """The answer, or None if the request was cancelled meanwhile."""
        check_capable(command, self._capabilities(), command.model)
        started_ns = time.perf_counter_ns()
        tokens = TokenStream(self._mesh.client, command, attempt) if command.stream else None
        sent = tokens.send if tokens is not None else None
        generated = await self._requests.run(command.request_id, self.generate(command, sent))
        if generated is None:
            return None
        if tokens is not None:
            await tokens.end()
        return Answer(
            request_id=command.request_id,
            round=command.round,
            agent=command.agent,
            model=command.model,
            instance=self._name,
            text=generated.text,
            finish_reason=generated.finish_reason,
            prompt_tokens=generated.prompt_tokens,
            prompt_tokens_reused=generated.prompt_tokens_reused,
            prompt_tokens_cut=generated.prompt_tokens_cut,
            generated_tokens=generated.generated_tokens,
            timings=Timings(
                total_duration_ns=time.perf_counter_ns() - started_ns,
                queue_duration_ns=queue_ns + generated.queue_ns,
                load_duration_ns=generated.load_ns,
                prompt_eval_duration_ns=generated.prompt_eval_ns,
                eval_duration_ns=generated.eval_ns,
                first_token_ns=generated.first_token_ns,
            ),
            logprobs=generated.logprobs,
            thinking=generated.thinking,
            tool_calls=generated.tool_calls,
            samples=generated.samples,
            prompt_logprobs=generated.prompt_logprobs,
            embeddings=generated.embeddings,
            stop_string=generated.stop_string,
            model_sha256=self._model_sha256(),
            chunks=tokens.chunks if tokens is not None else 0,
        )

    async def _store_outcome(
        self, command: Generate, answer: Answer, result: Result, taken: Taken | None = None
    ) -> None:
        """Stores a task's outcome: an answer if somebody takes it up, else the request's result.

        Write-once: if another agent was faster its outcome stands, and this one never was.
        """
        started_ns = time.perf_counter_ns()
        if command.routing_slip:
            subject = subjects.answer(command.request_id, command.round, command.agent)
            stored = await self._storage.store_once(subject, answer.to_bytes())
        else:
            stored = await store_result(self._mesh, result)
        if stored:
            emit_completed(self._mesh.events, answer, taken, time.perf_counter_ns() - started_ns)

    async def on_failure(self, command: Generate, error: ChoirError) -> None:
        """Stores an error as the task's outcome."""
        answer = Answer.failed(command, error, self._name)
        await self._store_outcome(command, answer, Result.failed(command, error, self._mesh.clock.now()))

    async def on_unreadable(self, request_id: str, error: ChoirError) -> None:
        """Stores an error as the result of a request whose command cannot be read."""
        result = Result.unreadable(request_id, error, self._mesh.clock.now())
        await store_result(self._mesh, result)


class BackendWorker(GenerateWorker):
    """Serves the model of a backend, which knows prompts and nothing of commands."""

    def __init__(
        self,
        mesh: ServiceContext,
        backend: Generator,
        name: str | None = None,
        capabilities: Callable[[], Collection[str]] = nothing_known,
        model_sha256: Callable[[], str | None] = no_file,
    ) -> None:
        super().__init__(mesh, name, capabilities, model_sha256)
        self._backend = backend

    async def generate(self, command: Generate, on_piece: OnPiece | None) -> Generated:
        if command.embed is not None:
            return await self._backend.embed(command.embed)
        prompt: Prompt = command.messages
        if command.raw is not None:
            prompt = command.raw
        elif command.tools:
            prompt = Conversation(command.messages, command.tools, command.tool_choice)
        return await self._backend.generate(prompt, command.sampling, on_piece, command.origin)


def attempt_of(command: Generate, delivery: Delivery, now_s: float) -> int:
    """A number for a generation that is begun now, higher than those of all before it: 1 for the first, then
    the age of the command in milliseconds.

    Delivery counts would do if a broker that crashes did not forget some.
    """
    return 1 if delivery.fresh else 2 + max(0, int((now_s - command.accepted_at_s) * 1000))
