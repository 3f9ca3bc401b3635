"""What was kept of a run, read again: the answer of each agent to each question, and the ballots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from analysis.evaluation.asking.exchange import Exchange
from analysis.evaluation.scoring.extraction import MESH_READS, Extraction, extraction
from schemas.replies import Answer
from services.aggregator.reading.ballots import read_ballots
from services.aggregator.strategies import Ballot, Ballots

NS_PER_S = 1e9


class Reply(NamedTuple):
    """One agent's answer: what was read from it (None: nothing), whether it is right, and what it cost.

    `model_s` is the time its model took: neither waiting in the queue nor loading. `why_not` says why there
    is no text at all.
    """

    agent: str
    answer: str | None
    right: bool
    tokens: int
    model_s: float
    why_not: str | None = None


class Cost(NamedTuple):
    """What answers that were given side by side took: `unread` of them came and could not be read, `missing`
    ones did not come."""

    calls: int
    tokens: int
    latency_s: float
    unread: int
    missing: int


def cost_of(replies: Sequence[Reply]) -> Cost:
    """The cost of these answers."""
    tokens, latency_s, unread, missing = 0, 0.0, 0, 0
    for reply in replies:
        tokens += reply.tokens
        if reply.model_s > latency_s:
            latency_s = reply.model_s
        if reply.why_not is not None:
            missing += 1
        elif reply.answer is None:
            unread += 1
    return Cost(len(replies), tokens, latency_s, unread, missing)


@dataclass(frozen=True)
class Asked:
    """One question of one repetition with all that the agents said to it."""

    exchange: Exchange
    ballots: Ballots
    replies: tuple[Reply, ...]
    samples: tuple[Reply, ...] = ()
    sample_ballots: tuple[Ballot, ...] = ()

    @cached_property
    def cost(self) -> Cost:
        """What all answers to the question took."""
        return cost_of(self.replies)

    @cached_property
    def counted(self) -> dict[str, float]:
        """How many agents gave each answer."""
        return {
            a: float(n) for a, n in Counter(b.answer for b in self.ballots.first).items() if a is not None
        }

    @property
    def key(self) -> tuple[str, str, int]:
        """Benchmark, question, repetition."""
        return self.exchange.key

    @property
    def unit(self) -> tuple[str, str]:
        """Benchmark and question: the unit of all statistics."""
        return self.exchange.benchmark, self.exchange.question_id


def read_run(exchanges: Iterable[Exchange], ways: Mapping[str, str]) -> list[Asked]:
    """The questions of a run in the order of its plan; `ways` is how answers are read, by benchmark."""
    samples: dict[tuple[str, str, int], list[Exchange]] = {}
    asked: list[Exchange] = []
    for each in sorted(exchanges, key=lambda each: (each.position, each.sample)):
        if each.phase == "sample":
            samples.setdefault(each.key, []).append(each)
        else:
            asked.append(each)
    return [_read(each, samples.get(each.key, []), ways[each.benchmark]) for each in asked]


def _read(main: Exchange, samples: list[Exchange], way: str) -> Asked:
    read = extraction(way, main.kind)
    ballots = _ballots(main, read)
    answers = {ballot.agent: ballot.answer for ballot in ballots.first}
    given = {answer.agent: answer for answer in main.answers}
    sampled = [answer for each in samples for answer in each.answers]
    return Asked(
        exchange=main,
        ballots=ballots,
        replies=tuple(reply_of(agent, given.get(agent), answers.get(agent), main) for agent in main.agents),
        samples=tuple(
            reply_of(answer.agent, answer, read(answer.text, main.choices), main) for answer in sampled
        ),
        sample_ballots=tuple(
            Ballot(answer.agent, answer.text, read(answer.text, main.choices)) for answer in sampled
        ),
    )


def _ballots(main: Exchange, read: Extraction) -> Ballots:
    """The ballots as the mesh reads them, with answers read in the evaluation's own way."""
    kept = read_ballots((*main.answers, *main.further_answers), main.kind, main.choices)
    if read is MESH_READS[main.kind]:
        return kept

    def again(ballots: tuple[Ballot, ...]) -> tuple[Ballot, ...]:
        return tuple(replace(each, answer=read(each.text, main.choices)) for each in ballots)

    second = None if kept.second_round is None else again(kept.second_round)
    return Ballots(first=again(kept.first), second_round=second, samples=again(kept.samples))


def reply_of(agent: str, given: Answer | None, answer: str | None, main: Exchange) -> Reply:
    """What an agent said to a question; an agent that said nothing abstains, with the reason."""
    if given is None or given.error is not None:
        return Reply(agent, None, right=False, tokens=0, model_s=0.0, why_not=_why_not(given, main))
    return Reply(
        agent=agent,
        answer=answer,
        right=answer == main.right,
        tokens=given.prompt_tokens + given.generated_tokens,
        model_s=model_s(given),
    )


def model_s(given: Answer) -> float:
    """How long its model was at work for an answer: without the queue, and without the time in which a model
    that had been unloaded was loaded again."""
    timings = given.timings
    return max(0, timings.total_duration_ns - timings.load_duration_ns) / NS_PER_S


def _why_not(given: Answer | None, main: Exchange) -> str:
    if given is not None and given.error is not None:
        return given.error.code
    return main.error.code if main.error is not None else "missing"
