"""What is asked: every question of every repetition, and each request under an id that it would have again.

The same run asks the same request under the same id, so a request that was under way when a run was
interrupted is fetched by the next attempt, not asked again.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from analysis.evaluation.benchmarks.question import Question
from analysis.evaluation.options import SAMPLING_TEMPERATURE, EvalOptions
from analysis.evaluation.protocol import Protocol
from schemas.commands import Ask
from schemas.sampling import Sampling
from schemas.strategies import asked_for, specs_of

Phase = Literal["fan_out", "sample"]
"""All agents answer a question; or one agent is sampled again."""

ID_LENGTH = 40
LOGPROBS = 20
"""How many alternatives of a token are asked for where option probabilities are needed."""


@dataclass(frozen=True)
class Item:
    """A question as one repetition asks it: its place in the plan, its options in order, its prompt."""

    position: int
    benchmark: str
    repetition: int
    question: Question
    prompt: str
    max_tokens: int
    stop: tuple[str, ...]

    @property
    def key(self) -> tuple[str, str, int]:
        """Which question of which repetition this is."""
        return self.benchmark, self.question.id, self.repetition


@dataclass(frozen=True)
class Call:
    """One request: an item to all agents, or one of the samples of one agent."""

    item: Item
    phase: Phase
    sample: int
    ask: Ask

    @property
    def request_id(self) -> str:
        """Its id in the mesh and in the journal."""
        return self.ask.request_id or ""


def items(options: EvalOptions, protocols: Mapping[str, Protocol]) -> list[Item]:
    """Every question of every repetition, in the order in which they are asked and learnt from.

    `samples` questions are drawn with the seed, in random order so that topics mix; all if there are no more.
    """
    drawn = (
        (protocol, question, repetition)
        for name, protocol in protocols.items()
        for repetition in range(options.repetitions)
        for question in _drawn(name, protocol.questions, options)
    )
    return [_item(position, *each, options) for position, each in enumerate(drawn)]


def _drawn(name: str, questions: Sequence[Question], options: EvalOptions) -> list[Question]:
    count = len(questions) if options.samples is None else min(options.samples, len(questions))
    return random.Random(f"{options.seed} {name}").sample(questions, count)


def _item(
    position: int, protocol: Protocol, question: Question, repetition: int, options: EvalOptions
) -> Item:
    asked = question.shuffled(f"{options.seed} {repetition}") if protocol.shuffle else question
    return Item(
        position=position,
        benchmark=protocol.benchmark.name,
        repetition=repetition,
        question=asked,
        prompt=protocol.prompt(asked),
        max_tokens=protocol.max_tokens,
        stop=protocol.stop,
    )


def fan_out(run_id: str, item: Item, agents: Sequence[str], options: EvalOptions) -> Call:
    """The one request from which every strategy is computed.

    The mesh is asked to decide with those strategies that have the agents asked more than the question; the
    others are computed from the answers that were kept.
    """
    further = tuple(
        spec.name
        for spec in specs_of(options.strategies)
        if spec.asks and spec.name != "best_single" and not (spec.closed_only and not item.question.choices)
    )
    fields = {"models": tuple(agents), "strategies": further or ("majority",)}
    temperature = options.asking_temperature
    logprobs = LOGPROBS if "probabilities" in asked_for(further) else 0
    return _call(run_id, item, "fan_out", 0, fields, options, temperature, logprobs)


def sample(run_id: str, item: Item, agent: str, number: int, options: EvalOptions) -> Call:
    """One sample of one agent, for self-consistency; each has a seed of its own."""
    temperature = options.temperature or SAMPLING_TEMPERATURE
    return _call(run_id, item, "sample", number, {"model": agent}, options, temperature, 0)


def _call(
    run_id: str,
    item: Item,
    phase: Phase,
    number: int,
    fields: dict[str, Any],
    options: EvalOptions,
    temperature: float,
    logprobs: int,
) -> Call:
    """The request, under an id made of everything that it consists of."""
    ask = Ask(
        prompt=item.prompt,
        choices=item.question.choices if phase == "fan_out" else (),
        answer_kind=item.question.kind,
        topic=item.question.topic if phase == "fan_out" else None,
        sampling=Sampling(
            max_tokens=item.max_tokens,
            temperature=temperature,
            seed=sampling_seed(options.seed, item, number),
            stop=item.stop,
            logprobs=logprobs,
        ),
        timeout_s=options.timeout_s,
        priority="batch",
        **fields,
    )
    made_of = (run_id, *item.key, phase, number, ask.fingerprint)
    digest = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()
    return Call(item, phase, number, ask.model_copy(update={"request_id": f"eval-{digest[:ID_LENGTH]}"}))


def sampling_seed(seed: int, item: Item, number: int) -> int:
    """The sampler's seed: another one for each question, repetition and sample."""
    digest = hashlib.sha256(json.dumps((seed, *item.key, number)).encode()).digest()
    return int.from_bytes(digest[:4])
