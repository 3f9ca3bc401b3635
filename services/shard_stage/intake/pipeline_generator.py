"""The generator of a pipeline: prompts become sequences of stage 0, and sequences become answers."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import asdict, dataclass

import numpy as np

from schemas.chat import Tool, is_forced
from schemas.commands import ChatMessage, Embed, Generate, Tokenize
from schemas.errors import ChoirError, ContextExceeded, InvalidRequest, NotReady, PayloadTooLarge
from schemas.nodes import Capability
from schemas.replies import TokenCount, Tokenized
from schemas.sampling import Sampling
from schemas.stage_wire import START_BYTES
from services.chassis.work.delivery import Retry
from services.engine import Finished, Generation, TokenEvent
from services.engine.model.chat_format import ChatFormat, PreparedChat
from services.engine.model.model import Model, Tokens
from services.engine.model.plain_text import Piece
from services.engine.sequence.prompt import Chat
from services.engine.tokenizing import tokenized
from services.shard_stage.handover.journal import UnfinishedSequence
from services.shard_stage.pipeline.first_stage import FirstStage
from services.shard_stage.pipeline.sequence_state import SequenceState, new_sequence_state
from services.shard_stage.transport.inference_thread import InferenceThread
from services.tasks.generate import Generated, OnPiece, Prompt
from services.tasks.piece import Piece as AnswerPiece

SEQUENCE_BITS = 63
RETRY_DELAY_S = 0.5
TOKEN_JSON_BYTES = 8
"""What a token takes in the list of those that were generated: six digits and what is between two of them."""


class Displaced(NotReady):
    """Raised when another instance has become stage 0: it goes on with the sequence."""


@dataclass
class Entry:
    """A sequence in work, and the events that its listener has not seen."""

    flow: SequenceState
    events: asyncio.Queue[TokenEvent | Finished]
    generation: Generation


class PipelineGenerator:
    """The way into stage 0, on the service's loop. Sequences run on the inference thread."""

    def __init__(self, thread: InferenceThread, stage: FirstStage, model: Model, context_tokens: int) -> None:
        self._thread = thread
        self._stage = stage
        self._model = model
        self._context_tokens = context_tokens
        self._chats = ChatFormat.of(model)
        self._adopted: dict[str, Entry] = {}

    @property
    def capabilities(self) -> tuple[Capability, ...]:
        """What a pipeline of this model can do."""
        thinking: tuple[Capability, ...] = ("thinking",) if self._chats.template.thinks else ()
        return ("completion", "tools", *thinking, "raw", "tokenizing")

    def count(self, messages: tuple[ChatMessage, ...], tools: tuple[Tool, ...] = ()) -> TokenCount:
        """How long a prompt is."""
        chat = self._chats.prepare(Chat(messages, tools), Sampling())
        tokens = self._model.tokenize_pieces(chat.pieces)
        return TokenCount(prompt_tokens=len(tokens), context_tokens=self._context_tokens)

    def tokenize(self, request: Tokenize) -> Tokenized:
        """Answers a question about tokens."""
        return tokenized(self._model, self._chats, request, self._context_tokens)

    async def generate(
        self, command: Generate, acknowledge: str | None, on_piece: OnPiece | None
    ) -> Generated:
        """Generates a command's text, from the beginning or from where another stage 0 has left it. A
        cancelled call ends the sequence. Raises Retry where this instance has to hand it on."""
        entry = self._adopted.pop(command.task_id, None) or await self._begin(command, acknowledge)
        try:
            while isinstance(event := await entry.events.get(), TokenEvent):
                if on_piece is not None:
                    await on_piece(_piece(event))
        finally:
            entry.generation.cancel()
        if isinstance(event.error, Displaced):
            raise Retry(event.error, RETRY_DELAY_S)
        return _generated(event)

    def adopt(self, left: UnfinishedSequence) -> SequenceState | None:
        """Takes up a sequence that another stage 0 has left; what it said is said again to the listener.
        None if it had come to its end, or is none of this model's."""
        command = left.start.command
        if command is None or command.task_id in self._adopted:
            return None
        try:
            entry = self._entry(command, left.id, left.start.acknowledge, asyncio.get_running_loop())
        except ChoirError:
            return None  # it has an outcome as soon as its command is delivered again
        flow = entry.flow
        if flow.prompt_tokens != left.start.prompt_tokens:
            return None
        flow.resumed = 0 if left.spoke else left.start.resumed
        flow.text.admit(0)
        self._adopted[command.task_id] = entry
        for token in left.generated:
            if flow.say(self._model, token, self._context_tokens) == "finished":
                return None
        flow.tokens_at_resume = len(flow.tokens)
        return flow

    def displace(self) -> None:
        """Hands everything that is in work on: this instance is stage 0 no more."""

        def end() -> None:
            for flow in self._stage.close():
                error = Displaced("another instance is the first stage of this pipeline now")
                flow.text.finish("error", error=error)

        if self._thread.alive:
            self._thread.run_soon(end)
        else:
            end()

    def tokens_per_s(self) -> float | None:
        """What was generated a second, over all sequences, while there were any; None before the first."""
        return self._stage.tokens_per_s

    def discard(self, command: Generate) -> None:
        """Ends an adopted sequence that nobody listens to: its task was done already."""
        entry = self._adopted.pop(command.task_id, None)
        if entry is not None:
            entry.generation.cancel()

    async def _begin(self, command: Generate, acknowledge: str | None) -> Entry:
        entry = await self._made(command, secrets.randbits(SEQUENCE_BITS), acknowledge)
        self._thread.run_soon(lambda: self._stage.submit(entry.flow))
        return entry

    async def _made(self, command: Generate, number: int, acknowledge: str | None) -> Entry:
        """A grammar takes its time, which the loop does not have."""
        loop = asyncio.get_running_loop()
        constrained = command.sampling.grammar is not None or command.sampling.json_schema is not None
        if not constrained and not is_forced(command.tool_choice):
            return self._entry(command, number, acknowledge, loop)
        making = asyncio.create_task(asyncio.to_thread(self._entry, command, number, acknowledge, loop))
        try:
            return await asyncio.shield(making)
        except asyncio.CancelledError:
            making.add_done_callback(_forget)
            raise

    def _entry(
        self, command: Generate, number: int, acknowledge: str | None, loop: asyncio.AbstractEventLoop
    ) -> Entry:
        events: asyncio.Queue[TokenEvent | Finished] = asyncio.Queue()

        def pass_on(event: TokenEvent | Finished) -> None:
            if command.stream or isinstance(event, Finished):
                loop.call_soon_threadsafe(events.put_nowait, event)

        generation = Generation(lambda: self._thread.run_soon(lambda: self._stage.cancel(number)))
        chat = self._prepare(command)
        flow = new_sequence_state(
            number,
            command,
            self._prompt(command, chat),
            self._model,
            generation,
            pass_on,
            acknowledge,
            sampling=chat.sampling,
            form=chat.form,
        )
        self._check_size(flow)
        return Entry(flow, events, generation)

    def _check_size(self, flow: SequenceState) -> None:
        """The other stages are told of the sampling, and with a grammar of every token as well."""
        sampling = flow.sampling
        if sampling.grammar is None and sampling.json_schema is None:
            return
        most = self._context_tokens * TOKEN_JSON_BYTES
        need = START_BYTES + len(flow.start(journal=False).to_bytes()) + most
        if need > self._thread.carried:
            field = "grammar" if sampling.grammar is not None else "json_schema"
            raise PayloadTooLarge(
                f"{field}: with it the start of a text takes {need} bytes, and a message holds "
                f"{self._thread.carried}: shorten it, or ask a model that is not a pipeline",
                field=f"sampling.{field}",
            )

    def _prepare(self, command: Generate) -> PreparedChat:
        if command.sampling.n > 1:
            raise InvalidRequest(
                f"sampling.n: {command.model} is a pipeline, and generates one text; ask several times",
                field="sampling.n",
            )
        if command.raw is not None:
            text = command.raw.text
            return PreparedChat((Piece(text),) if text is not None else (), command.sampling)
        chat = Chat(command.messages, command.tools, command.tool_choice)
        return self._chats.prepare(chat, command.sampling)

    def _prompt(self, command: Generate, chat: PreparedChat) -> Tokens:
        if command.raw is not None and command.raw.tokens is not None:
            tokens = np.asarray(command.raw.tokens, dtype=np.int32)
            if tokens.max() >= self._model.vocab_size:
                raise InvalidRequest(f"raw.tokens: the model has no token {tokens.max()}", field="raw.tokens")
        else:
            tokens = self._model.tokenize_pieces(chat.pieces)
        if len(tokens) >= self._context_tokens:
            raise ContextExceeded(
                f"the prompt has {len(tokens)} tokens; the context of {command.model} holds "
                f"{self._context_tokens}",
                field="prompt",
            )
        return tokens


@dataclass(frozen=True)
class OneTask:
    """What generates the text of one command, for the worker that answers it."""

    generator: PipelineGenerator
    command: Generate
    acknowledge: str | None

    async def generate(self, prompt: Prompt, sampling: Sampling, on_piece: OnPiece | None) -> Generated:
        """The command's text."""
        return await self.generator.generate(self.command, self.acknowledge, on_piece)

    async def embed(self, embed: Embed) -> Generated:
        """A pipeline has no vectors."""
        raise InvalidRequest("embed: a pipeline has no vectors: ask another model", field="embed")


def _piece(event: TokenEvent) -> AnswerPiece:
    logprobs = tuple(asdict(logprob) for logprob in event.logprobs)
    return AnswerPiece(event.text, event.thinking, event.calls, logprobs=logprobs)


def _generated(finished: Finished) -> Generated:
    if finished.error is not None:
        raise finished.error
    return Generated(
        text=finished.text,
        finish_reason=finished.finish_reason,
        prompt_tokens=finished.prompt_tokens,
        generated_tokens=finished.generated_tokens,
        queue_ns=finished.queue_ns,
        prompt_eval_ns=finished.prompt_eval_ns,
        eval_ns=finished.eval_ns,
        first_token_ns=finished.first_token_ns,
        logprobs=tuple(asdict(logprob) for logprob in finished.logprobs),
        thinking=finished.thinking or None,
        tool_calls=finished.calls,
    )


def _forget(making: asyncio.Task[Entry]) -> None:
    """What nobody waits for any more has a grammar's process, which ends here."""
    if not making.cancelled() and making.exception() is None:
        making.result().flow.text.sampler.close()
