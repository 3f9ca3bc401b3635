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

from analysis.evaluation.asking.protocol import Protocol
from analysis.evaluation.benchmarks.question import Question
from analysis.evaluation.likelihood.texts import Continuation
from analysis.evaluation.options import SAMPLING_TEMPERATURE, EvalOptions
from schemas.commands import Ask, ChatMessage, RawPrompt
from schemas.ensembles.strategies import asked_for, specs_of
from schemas.requests.sampling import Sampling

Phase = Literal["fan_out", "sample", "alone", "score"]
"""All agents answer a question in one request; one agent is sampled again; one agent goes on with a prompt as
it stands; one agent scores one text after a prompt."""

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
    prompt_name: str = ""
    order: int = 0
    system: str = ""
    chat_template: bool = True
    continuations: tuple[Continuation, ...] = ()
    turns: tuple[ChatMessage, ...] = ()

    @property
    def key(self) -> tuple[str, str, int]:
        """Which question of which repetition this is."""
        return self.benchmark, self.question.id, self.repetition

    @property
    def as_it_stands(self) -> str:
        """The prompt where no template puts it: after what the system says."""
        return f"{self.system}\n\n{self.prompt}" if self.system else self.prompt

    @property
    def conversation(self) -> tuple[ChatMessage, ...]:
        """The prompt as what a user says, after what the system says and the turns of examples."""
        system = (ChatMessage(role="system", content=self.system),) if self.system else ()
        return (*system, *self.turns, ChatMessage(role="user", content=self.prompt))

    @property
    def before(self) -> str:
        """What a text is scored after as it stands; blanks at its end belong to what follows."""
        return self.as_it_stands.rstrip()

    def following(self, continuation: Continuation) -> str:
        """The text that is scored, with what stands between it and the prompt: nothing after a template."""
        between = "" if self.chat_template else self.as_it_stands[len(self.before) :] or " "
        return between + continuation.text


@dataclass(frozen=True)
class Call:
    """One request: an item to all agents, or to one of them: one of its samples, or a text that it scores."""

    item: Item
    phase: Phase
    sample: int
    ask: Ask
    continuation: Continuation | None = None

    @property
    def request_id(self) -> str:
        """Its id in the mesh and in the journal."""
        return self.ask.request_id or ""

    @property
    def agent(self) -> str:
        """Whom a request to one agent is for."""
        return self.ask.model or ""


def items(options: EvalOptions, protocols: Mapping[str, Protocol]) -> list[Item]:
    """Every question of every repetition, in the order in which they are asked and learnt from.

    `samples` questions are drawn with the seed, in random order so that topics mix; all if there are no more.
    """
    drawn = (
        (protocol, question, place, order)
        for name, protocol in protocols.items()
        for place in range(len(protocol.templates))
        for order in range(options.repetitions)
        for question in _drawn(name, protocol.questions, options)
    )
    return [_item(position, *each, options) for position, each in enumerate(drawn)]


def _drawn(name: str, questions: Sequence[Question], options: EvalOptions) -> list[Question]:
    count = len(questions) if options.samples is None else min(options.samples, len(questions))
    return random.Random(f"{options.seed} {name}").sample(questions, count)


def _item(
    position: int, protocol: Protocol, question: Question, place: int, order: int, options: EvalOptions
) -> Item:
    asked = question.shuffled(f"{options.seed} {order}") if protocol.shuffle else question
    name, template = list(protocol.templates.items())[place]
    return Item(
        position=position,
        benchmark=protocol.benchmark.name,
        repetition=place * options.repetitions + order,
        question=asked,
        prompt=protocol.prompt(template, asked),
        max_tokens=protocol.max_tokens,
        stop=protocol.stop,
        prompt_name=name,
        order=order,
        system=protocol.system,
        chat_template=protocol.chat_template,
        continuations=protocol.continuations(template, asked),
        turns=protocol.turns(template, asked),
    )


def questions(run_id: str, item: Item, agents: Sequence[str], options: EvalOptions) -> list[Call]:
    """What is asked of an item: one request to all agents; or, where they go on with a prompt as it stands or
    score texts, one or more to each of them."""
    if item.continuations:
        return [
            score(run_id, item, agent, number, options)
            for agent in agents
            for number in range(len(item.continuations))
        ]
    if not item.chat_template:
        return [alone(run_id, item, agent, options) for agent in agents]
    return [fan_out(run_id, item, agents, options)]


def fan_out(run_id: str, item: Item, agents: Sequence[str], options: EvalOptions) -> Call:
    """The one request from which every strategy is computed.

    The mesh is asked to decide with those strategies that have the agents asked more than the question; the
    others are computed from the answers that were kept. A text it puts together with all of them.
    """
    further = tuple(
        spec.name
        for spec in specs_of(options.strategies)
        if item.question.kind == "text"
        or (spec.asks and spec.name != "best_single" and not (spec.closed_only and not item.question.choices))
    )
    fields = {"models": tuple(agents), "strategies": further or ("majority",)}
    temperature = options.asking_temperature
    logprobs = LOGPROBS if "probabilities" in asked_for(further) else 0
    return _call(run_id, item, "fan_out", 0, fields, options, temperature, logprobs)


def sample(run_id: str, item: Item, agent: str, number: int, options: EvalOptions) -> Call:
    """One sample of one agent, for self-consistency; each has a seed of its own."""
    temperature = options.temperature or SAMPLING_TEMPERATURE
    return _call(run_id, item, "sample", number, {"model": agent}, options, temperature, 0)


def alone(run_id: str, item: Item, agent: str, options: EvalOptions) -> Call:
    """The one request of an agent that goes on with the prompt as it stands."""
    return _call(run_id, item, "alone", 0, {"model": agent}, options, options.asking_temperature, 0)


def score(run_id: str, item: Item, agent: str, number: int, options: EvalOptions) -> Call:
    """How likely an agent holds one text after the prompt. After a template the prompt's tokens stand in for
    it, which only the agent knows."""
    continuation = item.continuations[number]
    ask = Ask(
        raw=RawPrompt(text=item.before + item.following(continuation)),
        model=agent,
        sampling=Sampling(max_tokens=1, logprobs=1, prompt_logprobs=True),
        timeout_s=options.timeout_s,
        priority="batch",
    )
    made_of = (run_id, *item.key, "score", agent, number, item.chat_template, ask.fingerprint)
    asked = ask.model_copy(update={"request_id": request_id(made_of)})
    return Call(item, "score", number, asked, continuation)


def request_id(made_of: Sequence[Any]) -> str:
    """The id of a request, by everything that it consists of."""
    return f"eval-{hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:ID_LENGTH]}"


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
    said: dict[str, Any] = {"prompt": item.prompt}
    if not item.chat_template:
        said = {"raw": RawPrompt(text=item.as_it_stands)}
    elif item.system or item.turns:
        said = {"messages": item.conversation}
    ask = Ask(
        choices=item.question.choices if phase == "fan_out" else (),
        answer_kind=item.question.kind if phase in ("fan_out", "sample") else "auto",
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
        **said,
        **fields,
    )
    made_of = (run_id, *item.key, phase, number, ask.fingerprint)
    return Call(item, phase, number, ask.model_copy(update={"request_id": request_id(made_of)}))


def sampling_seed(seed: int, item: Item, number: int) -> int:
    """The sampler's seed: another one for each question, repetition and sample."""
    digest = hashlib.sha256(json.dumps((seed, *item.key, number)).encode()).digest()
    return int.from_bytes(digest[:4])
