"""The record of one request of an evaluation and of what came of it, complete in itself.

Everything that scoring needs is in it, so a run can be scored again when the benchmark's files are gone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from pydantic import Field

from analysis.evaluation.asking.plan import Call, Phase
from analysis.evaluation.benchmarks.question import Instruction, Kind
from analysis.evaluation.likelihood.texts import Scored
from schemas.commands import ChatMessage
from schemas.errors import ErrorBody
from schemas.message import Struct
from schemas.replies import Answer, Result


class Exchange(Struct):
    """A request, the question behind it with its right answer, and the result or the error of the request.

    `position` is the question's place in the plan, whenever it came back, `template` what it was made from.
    `wall_s` is how long the client waited, the time in queues included. `prompt_name` is the template's name,
    `order` which order of the options this is. `scored` is what came of a text that was scored. `from_cache`
    names, by agent, the request of an earlier run whose answer was taken. `instructions` are what a text is
    checked by.
    """

    request_id: str
    position: int
    benchmark: str
    question_id: str
    topic: str
    repetition: int
    phase: Phase
    sample: int
    kind: Kind
    choices: tuple[str, ...]
    right: str
    agents: tuple[str, ...]
    prompt: str
    prompt_sha256: str
    fingerprint: str
    seed: int
    temperature: float
    max_tokens: int
    stop: tuple[str, ...]
    asked_at_s: float
    wall_s: float
    result: Result | None = None
    error: ErrorBody | None = None
    template: str = ""
    prompt_name: str = ""
    order: int = 0
    system: str = ""
    chat_template: bool = True
    scored: Scored | None = None
    from_cache: dict[str, str] = Field(default_factory=dict)
    turns: tuple[ChatMessage, ...] = ()
    instructions: tuple[Instruction, ...] = ()

    @property
    def key(self) -> tuple[str, str, int]:
        """Which question of which repetition this is."""
        return self.benchmark, self.question_id, self.repetition

    @property
    def answers(self) -> tuple[Answer, ...]:
        """The answers to the question itself, one of each agent that gave one."""
        return self.result.answers if self.result is not None else ()

    @property
    def further_answers(self) -> tuple[Answer, ...]:
        """What the agents were asked beside the question, if a strategy needed it."""
        return self.result.further_answers if self.result is not None else ()


def exchange(
    call: Call,
    agents: tuple[str, ...],
    asked_at_s: float,
    wall_s: float,
    outcome: Result | ErrorBody,
    *,
    scored: Scored | None = None,
    from_cache: Mapping[str, str] | None = None,
) -> Exchange:
    """What came of a call."""
    item, sampling = call.item, call.ask.sampling
    return Exchange(
        request_id=call.request_id,
        position=item.position,
        benchmark=item.benchmark,
        question_id=item.question.id,
        topic=item.question.topic,
        repetition=item.repetition,
        phase=call.phase,
        sample=call.sample,
        kind=item.question.kind,
        choices=item.question.choices,
        right=item.question.right,
        agents=agents,
        prompt=item.prompt,
        prompt_sha256=hashlib.sha256(item.prompt.encode(errors="surrogatepass")).hexdigest(),
        fingerprint=call.ask.fingerprint,
        seed=sampling.seed,
        temperature=sampling.temperature,
        max_tokens=sampling.max_tokens,
        stop=sampling.stop,
        asked_at_s=asked_at_s,
        wall_s=wall_s,
        result=outcome if isinstance(outcome, Result) else None,
        error=outcome if isinstance(outcome, ErrorBody) else None,
        template=item.question.template,
        prompt_name=item.prompt_name,
        order=item.order,
        system=item.system,
        chat_template=item.chat_template,
        scored=scored,
        from_cache=dict(from_cache or {}),
        turns=item.turns,
        instructions=item.question.instructions,
    )
