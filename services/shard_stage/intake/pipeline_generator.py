"""The generator of a pipeline: prompts become sequences of stage 0, and sequences become answers."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass

from schemas.commands import ChatMessage, Generate, Tokenize
from schemas.errors import ChoirError, InvalidRequest, NotReady, PayloadTooLarge
from schemas.nodes.lease import Capability
from schemas.pipelines.stage_wire import START_BYTES
from schemas.replies import TokenCount, Tokenized
from schemas.requests.chat import Tool, is_forced
from schemas.requests.sampling import Sampling
from services.chassis.work.delivery import Retry
from services.engine import Finished, Generation, TokenEvent
from services.engine.model.chat.format import ChatFormat
from services.engine.model.model import Model
from services.engine.prompt_reader import PromptReader
from services.engine.sequence.prompt import Chat, Prompt, TokenPrompt
from services.engine.tokenizing import tokenized
from services.shard_stage.handover.journal import UnfinishedSequence
from services.shard_stage.pipeline.first_stage import FirstStage
from services.shard_stage.pipeline.sequence_state import SequenceState, logprob_of
from services.shard_stage.transport.inference_thread import InferenceThread
from services.tasks.engine_words import generated, piece_of
from services.tasks.generate import Generated, OnPiece

SEQUENCE_BITS = 63
RETRY_DELAY_S = 0.5
FOLLOWS_JSON_BYTES = 32
TOKEN_JSON_BYTES = 8
"""Bytes of a token in the list of those that were generated: six digits and what is between two of them."""


class Displaced(NotReady):
    """Raised when another instance has become stage 0: it goes on with the sequence."""


@dataclass
class Entry:
    """A sequence in work, and the events that its listener has not seen."""

    sequence: SequenceState
    events: asyncio.Queue[TokenEvent | Finished]
    generation: Generation


class PipelineGenerator:
    """The way into stage 0, on the service's loop. Sequences run on the inference thread."""

    def __init__(
        self, thread: InferenceThread, stage: FirstStage, model: Model, context_tokens: int, name: str
    ) -> None:
        """`name` is the model's in messages of errors."""
        self._thread = thread
        self._stage = stage
        self._model = model
        self._context_tokens = context_tokens
        self._chats = ChatFormat.of(model)
        self._prompts = PromptReader(model, self._chats, context_tokens, name)
        self._adopted: dict[str, Entry] = {}

    @property
    def capabilities(self) -> tuple[Capability, ...]:
        """The abilities of a pipeline of this model."""
        thinking: tuple[Capability, ...] = ("thinking",) if self._chats.template.thinks else ()
        return ("completion", "tools", *thinking, "raw", "tokenizing")

    def count(self, messages: tuple[ChatMessage, ...], tools: tuple[Tool, ...] = ()) -> TokenCount:
        """How long a prompt is."""
        with self._model.reading():
            count = self._prompts.count(self._prompts.prepare(Chat(messages, tools), Sampling()))
        return TokenCount(prompt_tokens=count, context_tokens=self._context_tokens)

    def tokenize(self, request: Tokenize) -> Tokenized:
        """Answers a question about tokens."""
        with self._model.reading():
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
                    await on_piece(piece_of(event))
        finally:
            entry.generation.cancel()
        if isinstance(event.error, Displaced):
            raise Retry(event.error, RETRY_DELAY_S)
        return generated(event)

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
        sequence = entry.sequence
        if len(sequence.prompt) != left.start.prompt_tokens:
            return None
        sequence.resumed = 0 if left.has_decoded else left.start.resumed
        sequence.admit(0)
        self._adopted[command.task_id] = entry
        for token in left.generated:
            sequence.draws = token.draws
            logprob = logprob_of(self._model, token, sequence.sampling)
            ending = sequence.follow(self._model, token.token, self._context_tokens, logprob)
            if ending is not None:
                sequence.end(ending)
                return None
        sequence.tokens_at_resume = len(sequence.tokens)
        return sequence

    def displace(self) -> None:
        """Hands everything that is in work on: this instance is stage 0 no more."""

        def end() -> None:
            for sequence in self._stage.close():
                error = Displaced("another instance is the first stage of this pipeline now")
                sequence.finish("error", error=error)

        if self._thread.alive:
            self._thread.run_soon(end)
        else:
            end()

    def tokens_per_s(self) -> float | None:
        """Tokens per second over all sequences, while there were any; None before the first."""
        return self._stage.tokens_per_s

    def discard(self, command: Generate) -> None:
        """Ends an adopted sequence that nobody listens to: its task was done already."""
        entry = self._adopted.pop(command.task_id, None)
        if entry is not None:
            entry.generation.cancel()

    async def _begin(self, command: Generate, acknowledge: str | None) -> Entry:
        entry = await self._made(command, secrets.randbits(SEQUENCE_BITS), acknowledge)
        self._thread.run_soon(lambda: self._stage.submit(entry.sequence))
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

        def cancel() -> None:
            self._thread.run_soon(lambda: self._stage.cancel(number))
            self._stage.hang_up()

        generation = Generation(cancel)
        with self._model.reading():
            prepared = self._prompts.prepare(_prompt_of(command), command.sampling)
            tokens = self._prompts.tokens(prepared)
            sampler = self._prompts.sampler(prepared, tokens)
        sequence = SequenceState(number, command, prepared, tokens, sampler, generation, pass_on, acknowledge)
        self._check_size(sequence)
        return Entry(sequence, events, generation)

    def _check_size(self, sequence: SequenceState) -> None:
        """The other stages are told of the sampling, and with a grammar of every token as well."""
        sampling = sequence.sampling
        if sampling.grammar is None and sampling.json_schema is None:
            return
        most = self._context_tokens * TOKEN_JSON_BYTES + FOLLOWS_JSON_BYTES
        need = START_BYTES + len(sequence.start(journal=False).to_bytes()) + most
        if need > self._thread.carried:
            field = "grammar" if sampling.grammar is not None else "json_schema"
            raise PayloadTooLarge(
                f"{field}: with it the start of a text takes {need} bytes, and a message holds "
                f"{self._thread.carried}: shorten it, or ask a model that is not a pipeline",
                field=f"sampling.{field}",
            )


def _prompt_of(command: Generate) -> Prompt:
    if command.sampling.n > 1:
        raise InvalidRequest(
            f"sampling.n: {command.model} is a pipeline, and generates one text; ask several times",
            field="sampling.n",
        )
    raw = command.raw
    if raw is not None:
        return raw.text if raw.text is not None else TokenPrompt(raw.tokens or ())
    return Chat(command.messages, command.tools, command.tool_choice)


def _forget(making: asyncio.Task[Entry]) -> None:
    """Ends the grammar's process of an entry that nobody waits for any more."""
    if not making.cancelled() and making.exception() is None:
        making.result().sequence.sampler.close()
