"""The stages of a model in one process, joined by bytes: what the services do, without broker and threads."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from schemas.commands import ChatMessage, Generate
from schemas.pipelines.plan import PipelinePlan, Shard, StagePlan
from schemas.pipelines.stage_wire import unpack
from schemas.requests.sampling import Sampling
from services.engine import Chat, Finished, Generation
from services.engine.batching.batch_size import BatchSizeTuner
from services.engine.decode.stage_context import StageContext
from services.engine.model.chat.format import ChatFormat
from services.engine.model.cuts import even_layers
from services.engine.model.gguf.check import check_model_file
from services.engine.model.model import Model, Weights
from services.engine.model.slicing import slice_file
from services.engine.prompt_reader import PromptReader
from services.shard_stage.handover.replay import Replay
from services.shard_stage.pipeline.drafts import Proposer
from services.shard_stage.pipeline.first_stage import FirstStage
from services.shard_stage.pipeline.later_stage import BATCH_TOKENS, LaterStage
from services.shard_stage.pipeline.sequence_state import SequenceState
from services.shard_stage.pipeline.step_executor import Outgoing, StepExecutor
from services.shard_stage.pipeline.step_stats import StepStats
from services.shard_stage.transport.messages import messages

SLOTS, CONTEXT_TOKENS = 8, 256
HOP_MS = 0.2
EPOCH_S = 2.0


def plan_of(model: Path, stages: int, **options: object) -> PipelinePlan:
    """A plan with slices as even as can be, one instance each."""
    header = check_model_file(model)
    layers = even_layers(header, stages)
    architecture = header.text("general.architecture") or ""
    fields = {
        "model": "alpha",
        "number": 7,
        "epoch": 1,
        "sha256": "0" * 64,
        "architecture": architecture,
        "layers": layers[-1].stop,
        "width": header.integer(f"{architecture}.embedding_length"),
        "slots": SLOTS,
        "context_tokens": CONTEXT_TOKENS,
        "dtype": "f32",
        "partition": "adaptive",
        "stages": [
            StagePlan(
                instance=f"stage-{number}", host="here", first_layer=r.start, end_layer=r.stop, predicted_ms=1
            )
            for number, r in enumerate(layers)
        ],
        "predicted_ms": 1.0,
        "wanted": Shard(model="alpha", stages=stages),
        "made_by": "test",
        "made_at_s": 0.0,
        "why": "a test",
    }
    return PipelinePlan.model_validate(fields | options)


class Line:
    """A pipeline whose messages are delivered when pump() is called, in any order of stages."""

    def __init__(
        self,
        model: Path,
        folder: Path,
        stages: int,
        proposer: Callable[[], Proposer] | None = None,
        **options: Any,
    ) -> None:
        self._proposer = proposer
        self.plan = plan_of(model, stages, **options)
        self._model_path, self._folder = model, folder
        self.contexts: list[StageContext] = []
        self.sent: list[list[bytes]] = [[] for _ in range(stages)]
        self.wires: list[deque[bytes]] = [deque() for _ in range(stages)]
        self.later: dict[int, LaterStage] = {}
        self.now_s = 0.0
        self._hung_up: list[int] = []
        self._executors: dict[int, StepExecutor] = {}
        self._number = 0
        for stage in reversed(range(stages)):
            self.renew(stage)
        self.open()

    def renew(self, stage: int) -> None:
        """An instance that knows nothing takes a stage over."""
        spec = self.plan.stages[stage]
        path = self._folder / f"{self.plan.layers}-{spec.first_layer}-{spec.end_layer}.gguf"
        if not path.exists():
            slice_file(self._model_path, range(spec.first_layer, spec.end_layer), path)
        outer = stage in (0, len(self.plan.stages) - 1)
        weights = Model(path) if outer else Weights(path)
        context = StageContext(
            weights,
            slots=self.plan.slots,
            context_tokens=self.plan.context_tokens,
            batch_tokens=BATCH_TOKENS,
        )
        self.contexts.append(context)
        executor = self._executors[stage] = StepExecutor(context, self.plan, stage)
        if stage:
            self.later[stage] = LaterStage(executor, BatchSizeTuner(), StepStats())
        else:
            assert isinstance(weights, Model)
            context_tokens = self.plan.context_tokens
            self.prompts = PromptReader(weights, ChatFormat.of(weights), context_tokens, self.plan.model)
            self.first = FirstStage(
                executor,
                weights,
                BatchSizeTuner(),
                StepStats(),
                HOP_MS,
                lambda: self.now_s,
                proposer=self._proposer,
            )

    def replay(self, stage: int) -> None:
        """Has a renewed stage read all that was ever sent to it."""
        later = self.later[stage]
        replay = Replay(self._executors[stage], later.slots, None)
        for message in self.sent[stage]:
            for item in unpack(message):
                replay.take(item)
        replay.finish()

    def next_epoch(self) -> None:
        """Everybody learns of a plan with the next epoch, after a while; what was on its way arrives late."""
        self.now_s += EPOCH_S
        self.plan = self.plan.model_copy(update={"epoch": self.plan.epoch + 1})
        self.first.begin_epoch(self.plan)
        for stage in self.later.values():
            stage.begin_epoch(self.plan)

    def open(self, *, speculates: bool = True) -> None:
        """All stages have said how far they are, and whether all of them know of guesses."""
        cells = [self.later[stage].cells() for stage in sorted(self.later)]
        self.first.open(cells, speculates=speculates)

    def submit(self, text: str, sampling: Sampling, **options: object) -> SequenceState:
        """A sequence of a prompt in a chat, as stage 0 would make it."""
        self._number += 1
        fields = {
            "request_id": f"r{self._number}",
            "agent": "alpha",
            "model": "alpha",
            "messages": (ChatMessage(role="user", content=text),),
            "sampling": sampling,
            "fingerprint": "f",
            "accepted_at_s": time.time(),
            "deadline_at_s": time.time() + 60,
        }
        command = Generate.model_validate(fields | options)
        prepared = self.prompts.prepare(Chat(command.messages, command.tools, command.tool_choice), sampling)
        tokens = self.prompts.tokens(prepared)
        sampler = self.prompts.sampler(prepared, tokens)
        sequence = SequenceState(
            self._number, command, prepared, tokens, sampler, Generation(lambda: None), _ignore
        )
        self.first.submit(sequence)
        return sequence

    def hang_up(self, sequence: SequenceState) -> None:
        """What all stages hear when nobody waits for a sequence any more, at a step or not; stage 0 ends it
        before its next step."""
        self._hung_up.append(sequence.id)
        sequence.generation.cancel()
        self.first.hang_up()
        for stage in self.later.values():
            stage.hang_up(sequence.command.request_id)

    def pump(self, turns: int = 10_000, until: Callable[[], bool] = lambda: False) -> int:
        """Delivers and steps until nothing is left, or for so many turns; how many there were."""
        for turn in range(turns):
            busy = False
            while self._hung_up:
                self.first.cancel(self._hung_up.pop())
            for number in range(len(self.wires)):
                stage = self.later[number] if number else self.first
                while self.wires[number]:
                    for item in unpack(self.wires[number].popleft()):
                        stage.take(item)
                if stage.has_work:
                    busy = True
                    self._send(number, stage.step())
            if until() or not (busy or any(self.wires)):
                return turn
        return turns

    def wander(self, chance: Random, moves: int = 1_000_000) -> None:
        """Has the stages get on in any order, each at its own pace, until nothing is left or for so many
        moves: a message is delivered, or a step is done. What one stage sends another stays in order."""
        for _ in range(moves):
            possible = [
                number
                for number in range(len(self.wires))
                if self.wires[number] or self._stage(number).has_work
            ]
            if not possible:
                return
            number = chance.choice(possible)
            stage, wire = self._stage(number), self.wires[number]
            if wire and (not stage.has_work or chance.random() < 0.5):
                for item in unpack(wire.popleft()):
                    stage.take(item)
            else:
                self._send(number, stage.step())

    def march(self) -> int:
        """Has all stages do a step at the same time, again and again, as on equally fast hosts: what is
        sent arrives before the next step. How many such turns there were until nothing was left."""
        turns = 0
        while any(self.wires) or any(self._stage(number).has_work for number in range(len(self.wires))):
            turns += 1
            arrived = [list(wire) for wire in self.wires]
            for number, messages_in in enumerate(arrived):
                self.wires[number].clear()
                for item in (item for message in messages_in for item in unpack(message)):
                    self._stage(number).take(item)
            working = [number for number in range(len(self.wires)) if self._stage(number).has_work]
            for number, out in [(number, self._stage(number).step()) for number in working]:
                self._send(number, out)
        return turns

    def _stage(self, number: int) -> FirstStage | LaterStage:
        return self.later[number] if number else self.first

    def _send(self, source: int, out: Sequence[Outgoing]) -> None:
        for target, message in messages(out):
            self.sent[target].append(message)
            if target != source:
                self.wires[target].append(message)

    def close(self) -> None:
        """Frees all contexts."""
        for sequence in self.first.close():
            sequence.finish("cancelled")
        for context in self.contexts:
            context.close()


def _ignore(_event: object) -> None:
    """A listener to nothing."""


def text_of(sequence: SequenceState) -> str:
    """The text of a sequence that is done."""
    finished: Finished | None = sequence.finished
    assert finished is not None, "the sequence has no outcome"
    assert finished.error is None, finished.error
    return finished.text
