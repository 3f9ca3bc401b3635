"""The baselines of an ensemble: each agent alone, the best of them, luck, and the best one could do.

| baseline | what it is |
|---|---|
| an agent's name | that agent alone, asked once |
| `best_agent` | the best agent alone, asked once; picked on other questions (see `crossfit`) |
| `best_single` | the same, sampled as often as the ensemble asks agents, the majority of its samples |
| `self_consistency` | the same, with as many samples as the tokens of the debates pay for |
| `router`, `router_online`, `topic_best` | one agent by the question's topic: see `routers.py` |
| `isp_batch`, ... | what learns from agreement, with all questions at once: see `batch.py` |
| `random_agent` | the answer of an agent drawn by lot |
| `random` | an option drawn by lot; of an open question one of the answers that were given |
| `oracle` | right if any agent is: no choice among these answers can do better |
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence

from analysis.evaluation.benchmarks.question import LETTERS
from analysis.evaluation.contestants.crossfit import Unit, best_agents
from analysis.evaluation.contestants.matched import samples_for_debate
from analysis.evaluation.contestants.outcome import Group, Outcome
from analysis.evaluation.contestants.replay import BEST_SINGLE, chance_to_be_right
from analysis.evaluation.scoring.reading import Asked, Reply, cost_of
from services.aggregator.strategies import Ballot, StrategyContext, get

BEST_AGENT = "best_agent"
SELF_CONSISTENCY = "self_consistency"
RANDOM_AGENT = "random_agent"
RANDOM = "random"
ORACLE = "oracle"


def baseline_outcomes(asked: Sequence[Asked], seed: int, strategies: Sequence[str]) -> list[Outcome]:
    """What each baseline made of each question."""
    best = best_agents(asked, seed)
    matched = _matched_samples(asked, best) if "debate" in strategies else {}
    return [
        outcome
        for each in asked
        for outcome in _of_question(each, best[each.unit], matched.get(each.exchange.benchmark), seed)
    ]


def _matched_samples(asked: Sequence[Asked], best: Mapping[Unit, str]) -> dict[str, int]:
    names = dict.fromkeys(each.exchange.benchmark for each in asked)
    return {
        name: samples_for_debate([each for each in asked if each.exchange.benchmark == name], best)
        for name in names
    }


def _of_question(asked: Asked, best: str, matched: int | None, seed: int) -> Iterator[Outcome]:
    for reply in asked.replies:
        yield alone(reply.agent, "agent", asked, reply)
        if reply.agent == best:
            yield alone(BEST_AGENT, "baseline", asked, reply)
    calls = len(asked.replies)
    if len(asked.samples) >= calls:
        yield _sampled(BEST_SINGLE, asked, calls)
    if matched is not None and asked.samples:
        yield _sampled(SELF_CONSISTENCY, asked, matched)
    dice = random.Random(f"{seed} {asked.key}")
    drawn = alone(RANDOM_AGENT, "baseline", asked, dice.choice(asked.replies))
    yield drawn._replace(expected=sum(reply.right for reply in asked.replies) / calls)
    yield _guess(asked, dice)
    yield _oracle(asked)


def alone(name: str, group: Group, asked: Asked, reply: Reply) -> Outcome:
    """One agent's answer to a question as an outcome."""
    return _outcome(name, group, asked, [reply], reply.answer)


def _sampled(name: str, asked: Asked, count: int) -> Outcome:
    """The majority of the first `count` samples; of fewer, where an interrupted run has no more.

    It has no latency: samples are asked after the questions, since only then the best agent is known, and of
    one agent at a time, so theirs is that of another load.
    """
    ballots: Sequence[Ballot] = asked.sample_ballots[:count]
    context = StrategyContext(seed=f"{name} {asked.key}")
    decision = get("majority")(ballots, context)
    note = None if len(ballots) == count else f"{len(ballots)} samples instead of {count}"
    made = _outcome(name, "baseline", asked, asked.samples[:count], decision.answer, decision.tie, note)
    return made._replace(expected=chance_to_be_right(decision, asked.exchange.right), latency_s=None)


def _guess(asked: Asked, dice: random.Random) -> Outcome:
    kept = asked.exchange
    options = LETTERS[: len(kept.choices)] or [r.answer for r in asked.replies if r.answer is not None]
    made = _outcome(RANDOM, "baseline", asked, [], dice.choice(options) if options else None)
    return made._replace(expected=sum(o == kept.right for o in options) / len(options) if options else 0.0)


def _oracle(asked: Asked) -> Outcome:
    right = next((reply.answer for reply in asked.replies if reply.right), None)
    return _outcome(ORACLE, "baseline", asked, asked.replies, right)


def _outcome(
    name: str,
    group: Group,
    asked: Asked,
    replies: Sequence[Reply],
    answer: str | None,
    tie: bool = False,
    note: str | None = None,
) -> Outcome:
    kept, cost = asked.exchange, asked.cost if replies is asked.replies else cost_of(replies)
    return Outcome(
        contestant=name,
        group=group,
        benchmark=kept.benchmark,
        question_id=kept.question_id,
        topic=kept.topic,
        repetition=kept.repetition,
        answer=answer,
        right=answer == kept.right,
        expected=float(answer == kept.right),
        tie=tie,
        calls=cost.calls,
        tokens=cost.tokens,
        latency_s=cost.latency_s,
        unread=cost.unread,
        missing=cost.missing,
        note=note,
        template=kept.template,
    )
