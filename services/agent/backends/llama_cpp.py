"""`llama_cpp`: a GGUF file in this process, through `services.engine`.

Nothing here blocks the event loop: prompts are made ready on a thread of their own, and computed on another.
Either may be held up for good (by a template that never ends, a defect); then the
backend says that it has failed, and what was in work goes to others.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any

from schemas.commands import ChatMessage, Embed, RawPrompt, Tokenize
from schemas.errors import ChoirError, ContextExceeded, ModelUnusable, WorkerFailed
from schemas.nodes.lease import Capability
from schemas.replies import Embeddings, TokenCount, Tokenized
from schemas.requests.chat import Tool, is_forced
from schemas.requests.origin import NOBODY, Origin
from schemas.requests.sampling import Sampling
from services.agent.backends.backend import Backend, BackendInfo, Generated, OnPiece, Prompt
from services.agent.backends.intake import Intake
from services.agent.backends.samples import several
from services.agent.settings import STEP_LIMIT_S, ModelSection
from services.chassis.logs import get_logger
from services.engine import Chat, Embedded, Engine, Finished, Generation, TokenEvent, TokenPrompt
from services.engine import Prompt as EnginePrompt
from services.engine.model.identity import checksum, file_identity
from services.tasks.engine_words import generated, piece_of
from services.tasks.generate import Conversation, conversation_of

CLOSE_PATIENCE_S = 10.0
GENERATING: tuple[Capability, ...] = ("completion", "tools", "raw", "scoring")
ANY_MODEL: tuple[Capability, ...] = ("embedding", "tokenizing")
"""What any model can do here. Vectors of a model that was not made for them are the mean of its states."""
Events = asyncio.Queue[TokenEvent | Finished | ChoirError]

log = get_logger("agent.llama_cpp")


class LlamaCpp:
    """An engine, whose events come from its own thread, for a caller on the event loop."""

    def __init__(
        self, engine: Engine, step_limit_s: float = STEP_LIMIT_S, identity: str | None = None
    ) -> None:
        """A step of more than `step_limit_s` counts as one that never ends. `identity` is the file's."""
        self._engine = engine
        self._step_limit_s = step_limit_s
        self._submitting = Intake[Generation](f"prompts of {engine.info.name}")
        self._constraining = Intake[Generation](f"grammars of {engine.info.name}")
        self._counting = Intake[Any](f"counts of {engine.info.name}")
        self._embedding = Intake[Embedded](f"vectors of {engine.info.name}")
        self._intakes: tuple[Intake[Any], ...] = (
            self._submitting,
            self._constraining,
            self._counting,
            self._embedding,
        )
        self._in_work: set[Events] = set()
        self._failure: ChoirError | None = None
        info = engine.info
        self.info = BackendInfo(
            context_tokens=info.context_tokens,
            parameters=info.parameters,
            file=info.path.name,
            size_bytes=info.size_bytes,
            quantisation=info.quantisation,
            description=info.description or None,
            capabilities=capabilities_of(engine),
            identity=identity,
        )

    def tokens_per_s(self) -> float | None:
        """What the engine has measured of late."""
        return self._engine.stats().decode_tokens_per_s or None

    def kept(self, *, idle: bool = False) -> tuple[Origin, ...]:
        """What the engine keeps."""
        return self._engine.kept(idle=idle)

    async def generate(
        self, prompt: Prompt, sampling: Sampling, on_piece: OnPiece | None, origin: Origin = NOBODY
    ) -> Generated:
        """Generates in the engine's next free slots: one for each text, if there are to be several."""
        if sampling.n == 1:
            return await self._generate(prompt, origin, sampling, on_piece)
        return await several(partial(self._generate, prompt, origin), sampling, on_piece)

    async def _generate(
        self, prompt: Prompt, origin: Origin, sampling: Sampling, on_piece: OnPiece | None
    ) -> Generated:
        loop = asyncio.get_running_loop()
        events: Events = asyncio.Queue()

        def pass_on(event: TokenEvent | Finished) -> None:
            if on_piece is not None or isinstance(event, Finished):
                loop.call_soon_threadsafe(events.put_nowait, event)

        submit = partial(self._engine.submit, engine_prompt(prompt), sampling, pass_on, origin)
        plain = sampling.grammar is None and sampling.json_schema is None and not is_constrained(prompt)
        # A grammar may take a second to be refused: prompts without one do not wait for it.
        intake = self._submitting if plain else self._constraining
        generation = await intake.do(submit, Generation.cancel)
        self._in_work.add(events)
        try:
            while isinstance(event := await events.get(), TokenEvent):
                if on_piece is not None:
                    await on_piece(piece_of(event))
        except asyncio.CancelledError:
            generation.cancel()
            await _let_go(events)
            raise
        finally:
            generation.cancel()
            self._in_work.discard(events)
        if isinstance(event, ChoirError):
            raise event
        return generated(event)

    async def embed(self, embed: Embed) -> Generated:
        """One text after another, on a thread of their own."""
        started_ns = time.perf_counter_ns()
        done: list[Embedded] = []
        for number, text in enumerate(embed.inputs):
            one = partial(self._engine.embed, text, dimensions=embed.dimensions, truncate=embed.truncate)
            try:
                done.append(await self._embedding.do(one, lambda _: None))
            except ContextExceeded as error:
                field = f"embed.inputs.{number}"
                raise ContextExceeded(f"{field}: {error.message}", field=field) from error
        return Generated(
            text="",
            finish_reason="stop",
            prompt_tokens=sum(one.tokens for one in done),
            prompt_tokens_cut=sum(one.cut for one in done),
            prompt_eval_ns=time.perf_counter_ns() - started_ns,
            embeddings=Embeddings.of(one.vector for one in done),
        )

    async def tokenize(self, request: Tokenize) -> Tokenized:
        """With the model's own vocabulary."""
        told: Tokenized = await self._counting.do(partial(self._engine.tokenize, request), lambda _: None)
        return told

    async def count_tokens(
        self, messages: tuple[ChatMessage, ...], tools: tuple[Tool, ...] = ()
    ) -> TokenCount:
        """Counted with the model's own template and vocabulary."""
        prompt = Chat(messages, tools)
        count = await self._counting.do(partial(self._engine.count_tokens, prompt), lambda _: None)
        return TokenCount(prompt_tokens=count, context_tokens=self._engine.info.context_tokens)

    def step_s(self) -> float:
        """The longer of the two: the engine's present step, and the prompt that is made ready."""
        return max(self._engine.step_s(), self._submitting.busy_s())

    def failure(self) -> ChoirError | None:
        """A defect that ended the inference thread, or a step that does not end."""
        if self._failure is None and (failure := self._found()) is not None:
            self._failure = failure
            for events in self._in_work:
                events.put_nowait(failure)
            for intake in self._intakes:
                intake.fail(failure)
        return self._failure

    def _found(self) -> ChoirError | None:
        limit_s = self._step_limit_s
        if self._engine.failure is not None:
            return self._engine.failure
        if self._engine.step_s() > limit_s:
            return WorkerFailed(f"a step of its inference has taken longer than {limit_s:g} s (step_limit_s)")
        if max(intake.busy_s() for intake in self._intakes) > limit_s:
            return WorkerFailed(
                f"a prompt was not ready after {limit_s:g} s (step_limit_s): its chat template"
            )
        return None

    async def close(self) -> None:
        """Ends the inference thread and frees the model; one that is held up is left to the process's end."""
        for intake in self._intakes:
            intake.close()
        if self._failure is None and not await asyncio.to_thread(self._engine.close, CLOSE_PATIENCE_S):
            log.warning("a step has not ended; its model is not freed", model=self._engine.info.name)


def capabilities_of(engine: Engine) -> tuple[Capability, ...]:
    """What the model of an engine can do."""
    thinking: tuple[Capability, ...] = ("thinking",) if engine.thinks else ()
    return (*GENERATING, *thinking, *ANY_MODEL) if engine.generates else ANY_MODEL


def engine_prompt(prompt: Prompt) -> EnginePrompt:
    """A prompt as the engine takes it."""
    if isinstance(prompt, RawPrompt):
        return prompt.text if prompt.text is not None else TokenPrompt(prompt.tokens or ())
    conversation = conversation_of(prompt)
    return Chat(conversation.messages, conversation.tools, conversation.tool_choice)


def is_constrained(prompt: Prompt) -> bool:
    """Whether a call is required, which is made sure of by a grammar."""
    return isinstance(prompt, Conversation) and bool(prompt.tools) and is_forced(prompt.tool_choice)


async def _let_go(events: Events) -> None:
    """Returns when the engine has given the slot of a cancelled generation up."""
    while isinstance(await events.get(), TokenEvent):
        pass


async def open_backend(model: ModelSection, threads: int | None) -> Backend:
    """Checks and loads the file, away from the event loop."""
    if model.path is None:
        raise ModelUnusable(f"model {model.name} has no path", field="path")
    if model.sha256 is not None:
        await asyncio.to_thread(checksum, model.path, model.sha256)
    load = partial(
        Engine.load,
        model.path,
        slots=model.slots,
        context_tokens=model.context_tokens,
        threads=threads,
        fixed_threads=model.fixed_threads,
        gpu_layers=model.gpu_layers,
    )
    engine = await asyncio.to_thread(load)
    return LlamaCpp(engine, model.step_limit_s, await asyncio.to_thread(file_identity, model.path))
